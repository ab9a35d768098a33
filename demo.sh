#!/usr/bin/env bash
# The whole story on this machine: a cluster of real servers, a synchronous slave registered in SQL, a load through the
# pooler, the master killed in the middle of it, and the proof that nothing acknowledged was lost.
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/test/lib/common.sh"

usage() {
    cat <<'END'
usage: ./demo.sh [--keep] | ./demo.sh --stop FOLDER

Builds pgxc_ha, makes a coordinator, two datanode masters and a synchronous slave of each on loopback, runs pgbench
through the pooler, kills a master with kill -9, and checks that every acknowledged transaction survived. Installs the
packages that it needs when run as root or where sudo asks for no password, else names them. Servers run as you, or as
`postgres` when you are root. Leaves nothing running.

  --keep         leave the cluster running at the end, and print how to connect to it and how to stop it
  --stop FOLDER  stop a cluster that was left running and remove its folder
END
}

keep=no
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=yes ;;
    --stop)
        [ -e "${2:-}/.pgxc_demo" ] || die "${2:-(no folder named)}: not the folder of a demo"
        pgxc_stop_servers "$2"
        rm -rf "$2"
        say "stopped, and $2 removed"
        exit 0
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 64
        ;;
    esac
    shift
done

work='' bench_pid='' finished=no
cleanup() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$work" ] && { [ $keep = no ] || [ $finished = no ]; }; then
        if [ $status -ne 0 ]; then
            warn "The demo stopped early. The ends of the logs:"
            rm -f "$work"/*.initdb.log
            tail -n 15 "$work"/*.log >&2 2>/dev/null || true
        fi
        pgxc_stop_servers "$work"
        # pgbench ends when its connections do.
        [ -z "$bench_pid" ] || wait "$bench_pid" || true
        rm -rf "$work"
    fi
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n== %s\n' "$*"; }

# psql_at PORT [ARGUMENT...]: psql at one of the servers, stopping at the first error.
psql_at() {
    local port=$1
    shift
    as_server "$bin/psql" -X -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d postgres "$@"
}
# sql TEXT: shows a statement as it is typed at the coordinator, and what comes back.
sql() {
    printf '\ncoordinator=# %s\n' "$1"
    psql_at "$coordinator" -P footer=off -c "$1"
}
# ask PORT TEXT: one value.
ask() { psql_at "$1" -qAt -c "$2"; }
# wait_until SECONDS WHAT TEXT [PORT]: until the coordinator (or the server on PORT) answers t.
wait_until() {
    local end=$((SECONDS + $1))
    until [ "$(ask "${4:-$coordinator}" "$3" 2>/dev/null || true)" = t ]; do
        [ $SECONDS -lt $end ] || die "waited $1 s for $2"
        sleep 0.05
    done
}
# claim TEXT COMMAND...: a claim of the story, which fails the demo if it isn't true.
claims_failed=0
claim() {
    local text=$1
    shift
    if "$@"; then
        say "   yes: $text"
    else
        say "   NO:  $text"
        claims_failed=$((claims_failed + 1))
    fi
}

pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}"
# From here on the clock of the demo runs: what comes before is the network's.
SECONDS=0
work=$(pgxc_temp_dir pgxc_demo)
touch "$work/.pgxc_demo"

step "1. Build pgxc_ha and install it into a private copy of the server"
pgxc_build release "$work/build.log" || die "the build failed"
bin=$(pgxc_server_tree "$(pgxc_build_dir release)" "$work/server")
cd "$work"
say "   $("$bin/postgres" --version), module and all in $work ($SECONDS s)"

pgxc_free_port && coordinator=$PGXC_PORT
pgxc_free_port && pooler=$PGXC_PORT
pgxc_free_port && datanode1=$PGXC_PORT
pgxc_free_port && datanode2=$PGXC_PORT
pgxc_free_port && slave3=$PGXC_PORT
pgxc_free_port && slave4=$PGXC_PORT

# make_master NAME PORT [LINE...]: a new server with settings of its own.
make_master() { pgxc_make_server "$bin" "$work" "$@" "wal_log_hints = on"; }
# make_slave NAME PORT MASTER_PORT: plain pg_basebackup -R; only the port is edited.
make_slave() {
    as_server "$bin/pg_basebackup" -D "$work/$1" -R -c fast --no-sync -h 127.0.0.1 -p "$3" -U postgres
    sed -i "s/^port = .*/port = $2/" "$work/$1/postgresql.conf"
    pgxc_start_server "$bin" "$work" "$1"
}

step "2. Two datanode masters, and a slave of each by pg_basebackup -R"
make_master datanode1 "$datanode1"
make_master datanode2 "$datanode2"
make_slave slave3 "$slave3" "$datanode1"
make_slave slave4 "$slave4" "$datanode2"
say "   datanode 1 on port $datanode1, its slave on $slave3"
say "   datanode 2 on port $datanode2, its slave on $slave4"
say "   Nothing of pgxc_ha is on them, and no setting for synchronous replication."

step "3. A coordinator with pgxc_ha"
settings=("shared_preload_libraries = 'pgxc_ha'"
    "max_prepared_transactions = 64"
    "pgxc.node_id = 1"
    "pgxc.coordinators = '1=127.0.0.1:$coordinator'"
    "pgxc.datanodes = '1=127.0.0.1:$datanode1, 2=127.0.0.1:$datanode2'"
    "pgxc.pooler_port = $pooler")
printf '   %s\n' "${settings[@]}"
make_master coordinator "$coordinator" "${settings[@]}"
sql "CREATE EXTENSION pgxc_ha;"

step "4. Register the slaves: plain SQL, from any client"
sql "REGISTER DATANODE SLAVE IDENTIFIED BY ID 3 WITH CONNECTION ('127.0.0.1:$slave3') ON MASTER 1
       REPLICATION TO SYNCHRONOUS;"
sql "REGISTER DATANODE SLAVE IDENTIFIED BY ID 4 WITH CONNECTION ('127.0.0.1:$slave4') ON MASTER 2
       REPLICATION TO SYNCHRONOUS;"
sql "SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;"
wait_until 30 "all nodes to be up" "SELECT count(*) = 4 AND bool_and(state = 'up') AND
    count(*) FILTER (WHERE gate = 'open' AND node_master_id = 0) = 2 FROM pgxc_node_status WHERE node_type = 'D'"
sql "SELECT node_type, node_id, node_port, node_master_id, state, role_seen, gate, timeline, lag_bytes
       FROM pgxc_node_status;"

step "5. A load on datanode 1, through the pooler on port $pooler"
export PGOPTIONS='-c pgxc.node=1'
load=(-h 127.0.0.1 -p "$pooler" -U postgres)
as_server "$bin/pgbench" "${load[@]}" -i -q -s 1 postgres >"$work/pgbench_init.log" 2>&1
psql_at "$pooler" -q -c 'CREATE TABLE journal (client int, n int)'
cat >"$work/load.sql" <<'END'
\set n :n + 1
\set aid random(1, 100000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
INSERT INTO journal VALUES (:client_id, :n);
COMMIT;
END
sed 's/^/   /' "$work/load.sql"
clients=20 seconds=9
say "   pgbench: $clients clients, 400 transactions per second for $seconds s. Client c's n-th transaction writes (c, n)."
as_server "$bin/pgbench" "${load[@]}" -n -f "$work/load.sql" -D n=0 -c $clients -j 2 --rate 400 -T $seconds \
    -l --log-prefix="$work/acknowledged" postgres >"$work/pgbench.out" 2>"$work/pgbench.err" &
bench_pid=$!
unset PGOPTIONS
wait_until 60 "1000 transactions" "SELECT count(*) >= 1000 FROM journal" "$datanode1"
say "   1000 of them are acknowledged."

step "6. kill -9 of datanode 1's master, in the middle of the load"
victim=$(head -n 1 "$work/datanode1/postmaster.pid")
killed_at=$(date +%s%6N)
kill -9 "$victim"
say "   killed process $victim"
wait_until 60 "the failover" "SELECT count(*) = 1 FROM pgxc.failover_history"
sql "SELECT node_id, old_address, new_address, cause FROM pgxc.failover_history;"
sql "SELECT detect_ms, decide_ms, fence_ms, promote_ms, publish_ms, outage_ms, lost_wal_bytes
       FROM pgxc.failover_history;"
sql "SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;"

step "7. What pgbench saw"
bench_status=0
wait "$bench_pid" || bench_status=$?
bench_pid=''
sed -n 's/^\(number of transactions actually processed\|latency average\|tps\).*/   &/p' "$work/pgbench.out"
aborted=$(grep -c ' aborted in command ' "$work/pgbench.err" || true)
sed -n 's/^pgbench: error: \(client [0-9]* .*\)/   \1/p; s/^\(DETAIL\|HINT\):/      &/p' "$work/pgbench.err"
say
say "   $aborted of $clients clients had a transaction under way when the master died. Each was told: rolled back (SQLSTATE"
say "   08006), or outcome unknown because its COMMIT was under way (08007). Their connections to the pooler stay usable,"
say "   but pgbench gives up a client at such an error, and says so with its exit status ($bench_status)."
say "   The other $((clients - aborted)) were held for a moment and then went on."
cat "$work"/acknowledged.* >"$work/acknowledged"
awk -v killed="$killed_at" '$3 ~ /^[0-9]+$/ { printf "%d %d\n", $1, $2 > acked; at = $5 * 1000000 + $6; printf "%.0f %d\n", at, (at > killed) }' \
    acked="$work/acked" "$work/acknowledged" | sort -n >"$work/times"
silence_ms=$(awk -v killed="$killed_at" 'NR > 1 && $1 > killed && $1 - last > gap { gap = $1 - last } { last = $1 }
    END { printf "%.1f", gap / 1000 }' "$work/times")
after=$(awk '$2 == 1' "$work/times" | wc -l)
say "   The longest time without an acknowledged commit around the kill: $silence_ms ms."

step "8. Is every acknowledged transaction there?"
acknowledged=$(sort -u "$work/acked" | tee "$work/acked.sorted" | wc -l)
PGOPTIONS='-c pgxc.node=1' psql_at "$pooler" -qAt -F ' ' -c 'SELECT client, n FROM journal' | sort >"$work/rows"
rows=$(wc -l <"$work/rows")
lost=$(comm -23 "$work/acked.sorted" <(sort -u "$work/rows") | wc -l)
twice=$(uniq -d "$work/rows" | wc -l)
master_now=$(PGOPTIONS='-c pgxc.node=1' ask "$pooler" 'SELECT inet_server_port()')
balance=$(PGOPTIONS='-c pgxc.node=1' ask "$pooler" 'SELECT sum(abalance) FROM pgbench_accounts')
lost_wal=$(ask "$coordinator" 'SELECT sum(lost_wal_bytes) FROM pgxc.failover_history')
say "   acknowledged to pgbench: $acknowledged; rows in the journal: $rows; acknowledged and missing: $lost; twice: $twice"
claim "the same port of the pooler leads to the former slave now" [ "$master_now" = "$slave3" ]
claim "commits went on after the kill ($after of them)" [ "$after" -gt 0 ]
claim "every acknowledged transaction is there" [ "$acknowledged" -gt 0 -a "$lost" -eq 0 ]
claim "none is there twice" [ "$twice" -eq 0 ]
claim "every transaction is there as a whole or not at all" [ "$balance" = "$rows" ]
claim "only transactions without an answer may be there beyond the acknowledged" \
    [ $((rows - acknowledged)) -ge 0 -a $((rows - acknowledged)) -le "$aborted" ]
claim "no WAL was lost" [ "$lost_wal" = 0 ]

step "9. And the old master?"
wait_until 60 "the old master to be back as slave 3" "SELECT count(*) = 2 AND bool_and(state = 'up' AND why = '')
    FROM pgxc_node_status WHERE node_type = 'D' AND node_id IN (1, 3)"
sql "SELECT node_type, node_id, node_port, node_master_id, state, role_seen, timeline, lag_bytes FROM pgxc_node_status;"
sql "SELECT decision, reason FROM pgxc.failover_evidence WHERE node_id = 1 ORDER BY evidence_id;"
claim "it was made a synchronous slave of the new one, by itself" wait_until 10 "it to count" \
    "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'quorum' AND application_name = 'pgxc_d_3_e1'" "$slave3"
claim "its port is the old one" [ "$(ask "$coordinator" \
    "SELECT node_port FROM pgxc_nodes WHERE node_type = 'D' AND node_id = 3")" = "$datanode1" ]

[ $claims_failed -eq 0 ] || die "$claims_failed of the story's claims are not true"
finished=yes
say
say "Done in $SECONDS s."

if [ $keep = yes ]; then
    cat <<END

The cluster is still running:
  coordinator            psql -h 127.0.0.1 -p $coordinator -U postgres postgres
  datanode 1, by pooler  psql -U postgres -h 127.0.0.1 -p $pooler "dbname=postgres options='-c pgxc.node=1'"
  datanode 2, by pooler  psql -U postgres -h 127.0.0.1 -p $pooler "dbname=postgres options='-c pgxc.node=2'"
  kill the next master   kill -9 \$(head -n 1 $work/datanode2/postmaster.pid)
  logs                   $work/*.log
Stop it and remove everything with
  $PGXC_ROOT/demo.sh --stop $work
END
fi

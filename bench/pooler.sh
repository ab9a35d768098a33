#!/usr/bin/env bash
# pgbench -S through our pooler and through PgBouncer, alternating, at the same datanode.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
usage: bench/pooler.sh [--runs N] [--seconds N] [--clients N] [--threads N] [--protocol simple|extended|prepared]
                       [--pool-size N] [--json FILE] [--min-ratio R]

Prints transactions per second of each run, the medians and their ratio (ours to PgBouncer's), and the same as JSON.
Both poolers pool transactions, ask for no password, and may open as many server connections. A direct connection to
the datanode is measured as well, to show what the machine can do.

  --runs 5 --seconds 6 --clients 32 --threads 2 --protocol simple --pool-size 32 are the defaults
  --json FILE      write the JSON there instead of after the table
  --min-ratio R    fail if the ratio of the medians is below it
END
}
runs=5 seconds=6 clients=32 threads=2 protocol=simple pool_size=32 json='' min_ratio=0
while [ $# -gt 0 ]; do
    case $1 in
    --runs) runs=${2:?} && shift ;;
    --seconds) seconds=${2:?} && shift ;;
    --clients) clients=${2:?} && shift ;;
    --threads) threads=${2:?} && shift ;;
    --protocol) protocol=${2:?} && shift ;;
    --pool-size) pool_size=${2:?} && shift ;;
    --json) json=${2:?} && shift ;;
    --min-ratio) min_ratio=${2:?} && shift ;;
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

pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" "${PGXC_BENCH_PACKAGES[@]}"
# Debian keeps pgbouncer where only root's PATH leads.
pgbouncer=$(PATH=$PATH:/usr/sbin command -v pgbouncer)
bouncer_pid=''
stop_others() {
    [ -z "$bouncer_pid" ] || kill -INT "$bouncer_pid" 2>/dev/null || true
    pgxc_stop_servers "$work"
}
bench_begin
bin=$(pgxc_server_tree "$(pgxc_build_dir release)" "$work/server")
cd "$work"
pgxc_free_port && datanode=$PGXC_PORT
pgxc_free_port && coordinator=$PGXC_PORT
pgxc_free_port && ours=$PGXC_PORT
pgxc_free_port && bouncer=$PGXC_PORT

room="max_connections = $((2 * pool_size + 2 * clients + 40))" # both poolers keep theirs while the direct run has its own
pgxc_make_server "$bin" "$work" datanode "$datanode" "$room"
pgxc_make_server "$bin" "$work" coordinator "$coordinator" "$room" "shared_preload_libraries = 'pgxc_ha'" \
    "max_prepared_transactions = 64" "pgxc.coordinators = '1=127.0.0.1:$coordinator'" \
    "pgxc.datanodes = '1=127.0.0.1:$datanode'" "pgxc.pooler_port = $ours" "pgxc.max_pool_size = $pool_size" \
    "pgxc.failover = off"
psql=("$bin/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -d postgres)
as_server "${psql[@]}" -p "$coordinator" -c "CREATE EXTENSION pgxc_ha"
as_server "$bin/pgbench" -h 127.0.0.1 -p "$datanode" -U postgres -i -q -s 10 postgres >"$work/init.log" 2>&1
deadline=$((SECONDS + 30))
until as_server env PGOPTIONS='-c pgxc.node=1' "${psql[@]}" -p "$ours" -c 'SELECT 1' >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || die "our pooler does not answer"
    sleep 0.05
done

cat >"$work/pgbouncer.ini" <<END
[databases]
postgres = host=127.0.0.1 port=$datanode dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $bouncer
unix_socket_dir =
auth_type = trust
auth_file = $work/users.txt
pool_mode = transaction
default_pool_size = $pool_size
max_client_conn = $((clients + 100))
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
END
echo '"postgres" ""' >"$work/users.txt"
# Not as_server: the pid of the pooler itself is wanted.
if is_root; then
    setpriv --reuid=postgres --regid=postgres --init-groups -- "$pgbouncer" -q "$work/pgbouncer.ini" >"$work/pgbouncer.log" 2>&1 &
else
    "$pgbouncer" -q "$work/pgbouncer.ini" >"$work/pgbouncer.log" 2>&1 &
fi
bouncer_pid=$!
until as_server "${psql[@]}" -p "$bouncer" -c 'SELECT 1' >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || die "PgBouncer does not answer: $(tail -n 5 "$work/pgbouncer.log")"
    sleep 0.05
done

# measure PORT [PGOPTIONS]: transactions per second of one run.
measure() {
    as_server env PGOPTIONS="${2:-}" "$bin/pgbench" -h 127.0.0.1 -p "$1" -U postgres -n -S -M "$protocol" \
        -c "$clients" -j "$threads" -T "$seconds" postgres >"$work/run.out" 2>&1 || {
        cat "$work/run.out" >&2
        die "pgbench at port $1 failed"
    }
    sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$work/run.out"
}
say "pgbench -S -M $protocol -c $clients -j $threads -T $seconds, pools of $pool_size; transactions per second"
printf '%4s %12s %12s %12s\n' run ours pgbouncer direct
: >"$work/results"
# Once each before it counts: pools fill and the table comes into memory.
for port in "$ours" "$bouncer" "$datanode"; do
    options=''
    [ "$port" != "$ours" ] || options='-c pgxc.node=1'
    as_server env PGOPTIONS="$options" "$bin/pgbench" -h 127.0.0.1 -p "$port" -U postgres -n -S -c "$clients" \
        -j "$threads" -T 1 postgres >/dev/null 2>&1 || true
done
for run in $(seq "$runs"); do
    # Each goes first as often as the other.
    if [ $((run % 2)) -eq 1 ]; then
        a=$(measure "$ours" '-c pgxc.node=1')
        b=$(measure "$bouncer")
    else
        b=$(measure "$bouncer")
        a=$(measure "$ours" '-c pgxc.node=1')
    fi
    c=$(measure "$datanode")
    printf '%4d %12.0f %12.0f %12.0f\n' "$run" "$a" "$b" "$c"
    echo "$a $b $c" >>"$work/results"
done

# Median, ratio, JSON.
/usr/bin/python3 - "$work/results" "$protocol" "$clients" "$threads" "$pool_size" "$seconds" "$json" "$min_ratio" <<'END'
import json
import statistics
import sys

path, protocol, clients, threads, pool_size, seconds, target, least = sys.argv[1:]
ours, bouncer, direct = zip(*([float(word) for word in line.split()] for line in open(path)))
medians = [statistics.median(values) for values in (ours, bouncer, direct)]
ratio = medians[0] / medians[1]
print("{:>4} {:>12.0f} {:>12.0f} {:>12.0f}".format("med.", *medians))
print(f"\nratio of the medians, ours / pgbouncer: {ratio:.3f}")
text = json.dumps({"protocol": protocol, "clients": int(clients), "threads": int(threads), "pool_size": int(pool_size),
                   "seconds": int(seconds), "ours_tps": ours, "pgbouncer_tps": bouncer, "direct_tps": direct,
                   "ratio_of_medians": round(ratio, 4)}, indent=1)
if target:
    with open(target, "w", encoding="utf-8") as file:
        file.write(text + "\n")
else:
    print(text)
sys.exit(0 if ratio >= float(least) else f"the ratio is below {least}")
END

#!/bin/bash
# What pg_dump writes, a restore puts back: exactly the dumped rows, also where CREATE EXTENSION has filled the tables
# already. Run by run.sh (PGHOST, PGPORT, PGUSER, BINDIR), in databases of its own.
set -u

source_db=pgxc_dump_source
target_db=pgxc_dump_target
work=$(mktemp -d)
export PGDATABASE=postgres PGOPTIONS='-c client_min_messages=error'
failures=0

sql() { "$BINDIR/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

finish() {
    rm -rf "$work"
    sql -c "DROP DATABASE IF EXISTS $source_db" -c "DROP DATABASE IF EXISTS $target_db"
}
trap finish EXIT

check() {  # check <what> <command...>: the command succeeds
    local what=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "ok     dump_restore: $what"
    else
        echo "FAILED dump_restore: $what"
        sed 's/^/       /' "$work/out"
        failures=$((failures + 1))
    fi
}

contents() {
    sql -d "$1" <<'SQL'
SELECT * FROM pgxc_nodes ORDER BY node_type, node_id;
SELECT * FROM pgxc.node_record ORDER BY node_type, node_id;
SELECT * FROM pgxc.failover_history ORDER BY history_id;
SELECT last_value, is_called FROM pgxc.failover_history_history_id_seq;
SELECT attname FROM pg_attribute WHERE attrelid = 'mine'::regclass AND attnum > 0 ORDER BY attnum;
SQL
}

fresh_target() {
    sql -c "DROP DATABASE IF EXISTS $target_db" -c "CREATE DATABASE $target_db"
}

same_contents() {
    contents $source_db >"$work/expected" && contents $target_db >"$work/found" &&
        diff "$work/expected" "$work/found"
}

sql -c "DROP DATABASE IF EXISTS $source_db" -c "CREATE DATABASE $source_db" || exit 1
sql -d $source_db <<'SQL' || exit 1
SET pgxc.check_nodes = off;
CREATE EXTENSION pgxc_ha;
CREATE TABLE mine (i integer);
DO $$
DECLARE
    node record;
BEGIN
    FOR node IN SELECT node_type, node_id FROM pgxc_nodes LOOP
        CALL pgxc.drop_master(node.node_type, node.node_id);
    END LOOP;
END
$$;
CALL pgxc.register_master('D', 1, ARRAY['elsewhere:5001']);
CALL pgxc.register_master('D', 7, ARRAY['[::1]:5007']);
CALL pgxc.register_slave('D', 3, ARRAY['elsewhere:5003'], 1, 's');
CALL pgxc.register_slave('D', 5, ARRAY['elsewhere:5005'], 3, 'a');
UPDATE pgxc.node_record SET generation = 12, record = '{"epoch": 4}' WHERE node_id = 7;
INSERT INTO pgxc.failover_history (epoch, node_type, node_id, cause, started_at)
    VALUES (1, 'D', 1, 'refused', '2030-01-01 00:00:00+00'), (2, 'D', 1, E'a\ttab', '2030-01-02 00:00:00+00');
SQL

plain() {
    "$BINDIR/pg_dump" -d $source_db -f "$work/plain.sql" && fresh_target &&
        sql -d $target_db -f "$work/plain.sql" && same_contents
}
check "pg_dump | psql" plain

# psql goes on after an error, as it does by default when somebody restores
restore_again() {
    contents $target_db >"$work/before" || return 1
    "$BINDIR/psql" -X -q -v ON_ERROR_STOP=0 -d $target_db -f "$work/plain.sql" >"$work/again" 2>&1
    for table in pgxc_nodes node_record failover_history; do
        grep -q "cannot restore \"$table\" because the catalog has changed since CREATE EXTENSION" "$work/again" ||
            { cat "$work/again"; return 1; }
    done
    # but for the sequence, which can't refuse a setval()
    contents $target_db | grep -v '|[tf]$' >"$work/after" && grep -v '|[tf]$' "$work/before" | diff - "$work/after"
}
check "a second restore is refused" restore_again

custom() {
    "$BINDIR/pg_dump" -Fc -d $source_db -f "$work/custom" && fresh_target &&
        "$BINDIR/pg_restore" --exit-on-error "$@" -d $target_db "$work/custom" && same_contents
}
check "pg_dump -Fc | pg_restore" custom
check "pg_restore --single-transaction" custom --single-transaction
check "pg_restore --jobs" custom --jobs=2

into_created() {
    fresh_target && sql -d $target_db -c 'CREATE EXTENSION pgxc_ha' &&
        sql -d $target_db -f "$work/plain.sql" && same_contents
}
check "into a database where the extension is created" into_created

create_database() {
    sql -c "DROP DATABASE IF EXISTS $target_db" &&
        "$BINDIR/pg_dump" -C -d $source_db | sed "s/$source_db/$target_db/g" >"$work/create.sql" &&
        sql -f "$work/create.sql" && same_contents
}
check "pg_dump --create, as pg_dumpall does" create_database

# shellcheck disable=SC1003 # the backslash is meant
dumped_again() {
    "$BINDIR/pg_dump" -d $target_db | sed "s/$target_db/$source_db/g" | grep -v '^\\' >"$work/again.sql" &&
        grep -v '^\\' "$work/plain.sql" | diff - "$work/again.sql"
}
check "a dump of what was restored is the same" dumped_again

rolled_back() {
    fresh_target && sql -d $target_db -c 'CREATE EXTENSION pgxc_ha' -c 'CREATE TABLE mine (i integer)' &&
        contents $target_db >"$work/expected" || return 1
    printf 'COPY pgxc_nodes FROM stdin;\nD\t1\th\t1\t0\t\\N\t0\nD\t3\th\t3\t9\ta\t0\n\\.\n' >"$work/broken.sql"
    if sql -d $target_db -f "$work/broken.sql"; then return 1; fi
    grep -q 'the master of datanode 3, datanode 9, is missing' "$work/out" &&
        contents $target_db | diff "$work/expected" -
}
check "rows that break the rules are refused, and nothing has changed" rolled_back

changed() {
    sql -d $target_db -c 'SET pgxc.check_nodes = off' \
        -c "CALL pgxc.register_master('D', 999, ARRAY['elsewhere:999'])" && restore_again
}
check "a catalog in use is not overwritten" changed

emptied() {
    sql -d $source_db -c 'DROP EXTENSION pgxc_ha' &&
        "$BINDIR/pg_dump" -d $source_db >"$work/after.sql" && ! grep -qi pgxc_ha "$work/after.sql" &&
        ! grep -q 'pgxc\.' "$work/after.sql"
}
check "after DROP EXTENSION a dump knows nothing of it" emptied

[ $failures = 0 ]

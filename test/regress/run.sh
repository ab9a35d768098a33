#!/bin/bash
# Runs the SQL tests (pg_regress) on a running coordinator, in databases of their own, then the dump and restore tests.
#   test/regress/run.sh [--host HOST_OR_SOCKET_DIR] [--port PORT] [--user SUPERUSER] [--out DIR] [test ...]
# PG_CONFIG chooses the server's tools. What differs is in DIR/regression.diffs. Nothing of the coordinator's other
# databases is touched; role pgxc_admin stays.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
host=${PGHOST:-localhost}
port=${PGPORT:-5432}
user=${PGUSER:-postgres}
out=
tests=()
while [ $# -gt 0 ]; do
    case $1 in
        --host) host=$2; shift 2 ;;
        --port) port=$2; shift 2 ;;
        --user) user=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        -*) echo "$0: unknown option $1" >&2; exit 2 ;;
        *) tests+=("$1"); shift ;;
    esac
done

pg_config=${PG_CONFIG:-}
if [ -z "$pg_config" ]; then
    for candidate in /usr/lib/postgresql/*/bin/pg_config "$(command -v pg_config)"; do
        if [ -x "$candidate" ] && [ -x "$(dirname "$("$candidate" --pgxs)")/../test/regress/pg_regress" ]; then
            pg_config=$candidate
            break
        fi
    done
fi
[ -n "$pg_config" ] || { echo "$0: no pg_config with pg_regress beside it: set PG_CONFIG" >&2; exit 2; }
pg_regress=$(dirname "$("$pg_config" --pgxs)")/../test/regress/pg_regress
bindir=$("$pg_config" --bindir)

[ -n "$out" ] || { out=$(mktemp -d); trap 'rm -rf "$out"' EXIT; keep_out=no; }
mkdir -p "$out"
if [ ${#tests[@]} -eq 0 ]; then
    for script in "$here"/sql/*.sql; do tests+=("$(basename "$script" .sql)"); done
    tests+=(dump_restore)
fi

sql_tests=()
dump_restore=no
for test in "${tests[@]}"; do
    if [ "$test" = dump_restore ]; then dump_restore=yes; else sql_tests+=("$test"); fi
done

failed=0
if [ ${#sql_tests[@]} -gt 0 ]; then
    "$pg_regress" --inputdir="$here" --outputdir="$out" --bindir="$bindir" --host="$host" --port="$port" \
        --user="$user" --dbname=pgxc_regression "${sql_tests[@]}" || failed=1
    if [ $failed = 1 ] && [ "${keep_out:-yes}" = no ]; then cat "$out/regression.diffs" 2>/dev/null || true; fi
    "$bindir/psql" -X -q -h "$host" -p "$port" -U "$user" -d postgres -c 'DROP DATABASE IF EXISTS pgxc_regression'
fi
if [ $dump_restore = yes ]; then
    PGHOST=$host PGPORT=$port PGUSER=$user BINDIR=$bindir "$here/dump_restore.sh" || failed=1
fi
exit $failed

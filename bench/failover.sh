#!/usr/bin/env bash
# How long does a client of the pooler wait when the master dies? See bench/failover.py for what is measured.
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../test/lib/common.sh"

usage() {
    cat <<'END'
usage: bench/failover.sh [--runs N] [--clients N] [--promotion auto|promote|restart] [--json FILE]
                         [--max-median MS] [--max-worst MS]

Each run: a fresh coordinator, master and synchronous slave on loopback; clients insert one row per transaction
through the pooler without pause; kill -9 of the master's postmaster. Prints a table, and as JSON what it measured.
With --promotion restart the slave takes over the dead master's port.

  --runs N        how many (20)
  --clients N     how many clients write (1)
  --json FILE     write the JSON there instead of after the table
  --max-median MS, --max-worst MS
                  fail if the median or the worst outage is above it; lost or duplicated rows always fail
END
}
for argument in "$@"; do
    case $argument in -h | --help)
        usage
        exit 0
        ;;
    esac
done
pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" python3 python3-psycopg2
work=$(pgxc_temp_dir pgxc_bench)
cleanup() {
    local status=$? folder
    trap - EXIT INT TERM
    for folder in "$work"/pgxc.*; do
        [ ! -d "$folder" ] || pgxc_stop_servers "$folder"
    done
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
pgxc_build release "$work/build.log" || {
    tail -n 30 "$work/build.log" >&2
    die "the build failed"
}
TMPDIR=$work PGXC_BUILD_DIR=$(pgxc_build_dir release) PYTHONDONTWRITEBYTECODE=1 \
    /usr/bin/python3 "$PGXC_ROOT/bench/failover.py" "$@"

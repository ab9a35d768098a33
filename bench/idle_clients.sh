#!/usr/bin/env bash
# What idle clients cost the pooler, and how many can connect in a second. See bench/idle_clients.py.
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../test/lib/common.sh"

case ${1:-} in
-h | --help)
    cat <<'END'
usage: bench/idle_clients.sh [--clients N] [--connects N] [--parallel N] [--tcp] [--json FILE] [--max-kb K]

  --clients N   idle clients (10000)
  --connects N  logins by SCRAM that are measured, one after the other in each of --parallel (4000, 16)
  --tcp         idle clients come over loopback instead of the Unix socket
  --json FILE   write the JSON there instead of after the table
  --max-kb K    fail if an idle client costs more kB of resident memory
END
    exit 0
    ;;
esac
pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" python3 python3-psycopg2
child=
# Two descriptors for each client are what the pooler allows for.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
work=$(pgxc_temp_dir pgxc_bench)
cleanup() {
    local status=$? folder
    trap - EXIT
    trap '' INT TERM
    # The measure stops and removes what it started; what follows is for one that was killed.
    if [ -n "$child" ] && kill -TERM "$child" 2>/dev/null; then
        wait "$child" 2>/dev/null || true
    fi
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
# In the background, so that a signal to this script alone reaches the trap at once.
TMPDIR=$work PGXC_BUILD_DIR=$(pgxc_build_dir release) PYTHONDONTWRITEBYTECODE=1 \
    /usr/bin/python3 "$PGXC_ROOT/bench/idle_clients.py" "$@" &
child=$!
wait "$child"

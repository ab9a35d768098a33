#!/usr/bin/env bash
# What the monitor costs while nothing happens. See bench/monitor_idle.py for what is measured.
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../test/lib/common.sh"

case ${1:-} in
-h | --help)
    cat <<'END'
usage: bench/monitor_idle.sh [--entries N] [--seconds S] [--json FILE] [--max-percent P]

  --entries N      of the second run, which points them at few servers (200); 0 leaves it out
  --seconds S      how long each run is (60)
  --json FILE      write the JSON there instead of after the table
  --max-percent P  fail if 8 nodes cost more of a core
END
    exit 0
    ;;
esac
pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" python3 python3-psycopg2
child=
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
    /usr/bin/python3 "$PGXC_ROOT/bench/monitor_idle.py" "$@" &
child=$!
wait "$child"

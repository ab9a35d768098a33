#!/usr/bin/env bash
# What the monitor costs while nothing happens. See bench/monitor_idle.py for what is measured.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

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
bench_begin
bench_measure "$PGXC_ROOT/bench/monitor_idle.py" "$@"

#!/usr/bin/env bash
# What idle clients cost the pooler, and how many can connect in a second. See bench/idle_clients.py.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
-h | --help)
    cat <<'END'
usage: bench/idle_clients.sh [--clients N] [--connects N] [--parallel N] [--workers N] [--tcp] [--json FILE] [--max-kb K]

  --clients N   idle clients (10000)
  --connects N  logins by SCRAM that are measured, one after the other in each of --parallel (4000, 16)
  --workers N   of the pooler (1): each has a limit of open files of its own
  --tcp         idle clients come over loopback instead of the Unix socket
  --json FILE   write the JSON there instead of after the table
  --max-kb K    fail if an idle client costs more kB of resident memory
END
    exit 0
    ;;
esac
pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" python3 python3-psycopg2
# Two descriptors for each client are what the pooler allows for.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
bench_begin
bench_measure "$PGXC_ROOT/bench/idle_clients.py" "$@"

#!/usr/bin/env bash
# Reads with two slaves and pgxc.read_routing = auto against master only: see bench/reads.py for what is measured.
#   bench/reads.sh [--runs N] [--seconds N] [--clients N] [--json FILE]
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../test/lib/common.sh"

pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" python3 python3-psycopg2
work=$(pgxc_temp_dir pgxc_bench)
trap 'rm -rf "$work"' EXIT
pgxc_build release "$work/build.log" || {
    tail -n 30 "$work/build.log" >&2
    die "the build failed"
}
/usr/bin/python3 "$PGXC_ROOT/bench/reads.py" "$@"

#!/usr/bin/env bash
# Reads with two slaves and pgxc.read_routing = auto against master only: see bench/reads.py for what is measured.
#   bench/reads.sh [--runs N] [--seconds N] [--clients N] [--json FILE]
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" python3 python3-psycopg2
bench_begin
bench_measure "$PGXC_ROOT/bench/reads.py" "$@"

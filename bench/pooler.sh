#!/usr/bin/env bash
# Our pooler beside PgBouncer, Pgpool-II and a direct connection: see bench/pooler.py for what is measured.
#   bench/pooler.sh [--what select,tpcb,workers,copy,row,calls] [--peers pgbouncer,pgpool,direct] [--protocols simple,extended,prepared]
#                   [--clients 1,8,32,128] [--runs N] [--seconds N] [--threads N] [--pool-size N] [--scale N] [--json FILE]
#                   [--min-ratio R]
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

packages=("${PGXC_BUILD_PACKAGES[@]}" "${PGXC_BENCH_PACKAGES[@]}")
[[ " $* " != *pgpool* ]] || packages+=(pgpool2)
[[ " $* " != *calls* ]] || packages+=(strace)
pgxc_need_packages "${packages[@]}"
bench_begin
bench_measure "$PGXC_ROOT/bench/pooler.py" "$@"

#!/usr/bin/env bash
# How long does a client of the pooler wait when the master dies? See bench/failover.py for what is measured, and
# bench/peers/measure.py for the comparison with the peers.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
usage: bench/failover.sh [--runs N] [--clients N] [--slaves N] [--sync-slaves K] [--promotion auto|promote|restart]
                         [--json FILE] [--max-median MS] [--max-worst MS]
       bench/failover.sh [--peers LIST|all] [--scenario LIST|all] [--runs N] [--json FILE] [--deadline S]
                         [--wake-window S] [--without-own] [--verbose]

Each run: a fresh coordinator, master and synchronous slaves on loopback; clients insert one row per transaction
through the pooler without pause; kill -9 of the master's postmaster. Prints a table, and as JSON what it measured.
With --promotion restart the slave takes over the dead master's port.

  --runs N        how many (20)
  --clients N     how many clients write (1)
  --slaves N      how many synchronous slaves the master has (1)
  --sync-slaves K how many of them acknowledge a commit: pgxc.sync_slaves (1)
  --json FILE     write the JSON there instead of after the table
  --max-median MS, --max-worst MS
                  fail if the median or the worst outage is above it; lost or duplicated rows always fail

With --peers or --scenario, other products are measured in the same way as ours, one client each: docs/peers.md.

  --peers LIST    of pg_auto_failover, patroni, repmgr (all: these), patroni_strict, patroni_ttl7; their Debian packages are
                  installed (default: none)
  --scenario LIST of kill, hang, hang-wake, switchover (kill)
  --runs N        of each product in each scenario (5)
  --deadline S    how long a run waits for the first row after the outage (60)
  --wake-window S how long both servers are written to once the old master is awake (10)
  --without-own   only the peers
  --verbose       the peers' logs when a run breaks
END
}
# What is not named here goes to the measure as it is.
peers='' scenarios='' rest=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --peers | --scenario)
        [ $# -ge 2 ] || die "$1 wants a value"
        if [ "$1" = --peers ]; then peers=$2; else scenarios=$2; fi
        shift
        ;;
    --peers=*) peers=${1#*=} ;;
    --scenario=*) scenarios=${1#*=} ;;
    *) rest+=("$1") ;;
    esac
    shift
done
[ "$peers" != none ] || peers=''
[ "$peers" != all ] || peers=pg_auto_failover,patroni,repmgr
[ "$scenarios" != all ] || scenarios=kill,hang,hang-wake,switchover

# peer_packages PEER: Debian's packages of it.
peer_packages() {
    case $1 in
    pg_auto_failover) echo pg-auto-failover-cli postgresql-15-auto-failover ;;
    patroni | patroni_strict | patroni_ttl7) echo patroni etcd-server python3-etcd ;;
    repmgr) echo repmgr postgresql-15-repmgr ;;
    *) return 1 ;;
    esac
}
# in_main PACKAGE: installed, or offered by the main archive of a Debian bookworm.
in_main() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ] ||
        apt-cache policy "$1" | grep -Eq ' bookworm(-[a-z]+)?/main '
}

pgxc_need_packages "${PGXC_BUILD_PACKAGES[@]}" python3 python3-psycopg2
# The peers' processes are found as bench/peers/node.py does: they live in a folder below $work.
stop_others() {
    local pid
    for pid in /proc/[0-9]*; do
        case $(readlink "$pid/cwd" 2>/dev/null) in
        "$work"/*) kill -KILL "${pid#/proc/}" 2>/dev/null || true ;;
        esac
    done
}
bench_begin
if [ -z "$peers$scenarios" ]; then
    measure=("$PGXC_ROOT/bench/failover.py")
else
    measure=("$PGXC_ROOT/bench/peers/measure.py" "--scenario=${scenarios:-kill}")
    chosen=''
    # A fresh machine has no lists of packages to look in.
    if [ -n "$peers" ] && is_root && [ -z "$(apt-cache policy patroni 2>/dev/null)" ]; then
        apt-get -qq -o DPkg::Lock::Timeout=900 update >"$work/apt.log" 2>&1 || die "apt-get update: $(tail -n 5 "$work/apt.log")"
    fi
    for peer in ${peers//,/ }; do
        packages=$(peer_packages "$peer") || die "--peers knows no $peer; see --help"
        absent=''
        for package in $packages; do
            in_main "$package" || absent+=" $package"
        done
        if [ -n "$absent" ]; then
            measure+=("--skipped=$peer: not in the main archive of Debian bookworm:$absent")
        else
            # shellcheck disable=SC2086  # a list of words
            (unset PG_CONFIG && pgxc_need_packages $packages)
            chosen+=$peer,
        fi
    done
    measure+=("--peers=$chosen")
fi
bench_measure "${measure[@]}" "${rest[@]}"

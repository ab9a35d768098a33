# shellcheck shell=bash
# shellcheck disable=SC2034  # the folder here is used by those who source it
# What the benchmarks have in common: a release build, a folder that goes with the script, and a measure that is stopped
# with it. Sourced, never run.
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../test/lib/common.sh"

work='' bench_child=''
# stop_others: what a benchmark started besides its measure; called last, before the folder goes.
stop_others() { :; }

bench_cleanup() {
    local status=$? folder
    trap - EXIT
    trap '' INT TERM
    # The measure stops and removes what it started; what follows is for one that was killed.
    if [ -n "$bench_child" ] && kill -TERM "$bench_child" 2>/dev/null; then
        wait "$bench_child" 2>/dev/null || true
    fi
    for folder in "$work"/pgxc.*; do
        [ ! -d "$folder" ] || pgxc_stop_servers "$folder"
    done
    stop_others
    rm -rf "$work"
    exit $status
}

# bench_begin: makes $work, and the release build.
bench_begin() {
    work=$(pgxc_temp_dir pgxc_bench)
    trap bench_cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    pgxc_build release "$work/build.log" || {
        tail -n 30 "$work/build.log" >&2
        die "the build failed"
    }
}

# bench_measure PROGRAM [ARGUMENT...]: runs a measure in Python on that build. In the background, so that a signal to the
# script alone reaches its trap at once.
bench_measure() {
    TMPDIR=$work PGXC_BUILD_DIR=$(pgxc_build_dir release) PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 "$@" &
    bench_child=$!
    wait "$bench_child"
}

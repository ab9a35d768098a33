#!/usr/bin/env bash
# All tests. The last line is always "N passed, N failed"; the exit status is 0 only if nothing failed.
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/test/lib/common.sh"

usage() {
    cat <<'END'
usage: ./test.sh [--quick] [--only STAGE]... [--fuzz-seconds N]

  --quick           no sanitizer build and no fuzzing
  --only STAGE      just this stage (may be repeated):
                      unit     unit tests and the simulation (ctest)
                      checks   formatting, layers, headers, shell scripts
                      regress  the SQL surface, with a server
                      cluster  real clusters on loopback (pytest)
                      asan     unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
                      fuzz     every fuzz target for a while
                      tidy     clang-tidy over all sources (slow, and not part of a run without --only)
  --fuzz-seconds N  how long each fuzz target runs (20; a quarter of it for scram and record)

Installs the packages that it needs when run as root or where sudo asks for no password, else names them and exits 2.
PG_CONFIG chooses the server. TMPDIR chooses where servers live (memory, where 6 GB of it are to be had). What failed is told with its log's end; the logs stay in the folder named then.
END
}

stages=(unit checks regress cluster asan fuzz) only=() fuzz_seconds=20
while [ $# -gt 0 ]; do
    case $1 in
    --quick) stages=(unit checks regress cluster) ;;
    --only)
        case ${2:-} in
        unit | checks | regress | cluster | asan | fuzz | tidy) only+=("$2") ;;
        *)
            usage >&2
            exit 64
            ;;
        esac
        shift
        ;;
    --fuzz-seconds)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || {
            usage >&2
            exit 64
        }
        fuzz_seconds=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 64
        ;;
    esac
    shift
done
[ ${#only[@]} -eq 0 ] || stages=("${only[@]}")

export PYTHONDONTWRITEBYTECODE=1 PGXC_BUILD_DIR
PGXC_BUILD_DIR=$(pgxc_build_dir dev)
total_passed=0 total_failed=0 work='' table='' behind=''
cleanup() {
    local status=$?
    trap - EXIT INT TERM
    [ -z "$behind" ] || kill -- "-$behind" 2>/dev/null || true
    if [ -n "$work" ]; then
        # Workspaces of interrupted tests.
        for folder in "$work" "$work"/pgxc.*; do
            [ ! -d "$folder" ] || pgxc_stop_servers "$folder"
        done
        rm -rf "$work"/pgxc.* "$work/server"
        if [ $total_failed -eq 0 ]; then rm -rf "$work"; fi
    fi
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A stage is a function that writes "passed failed skipped" as the last line of its output, and calls fail() for what
# keeps it from counting. Everything else goes to its log.
junit() { /usr/bin/python3 "$PGXC_ROOT/test/lib/junit_count.py" "$@"; }
# could_not STAGE WHAT LOG: tells why a stage has nothing to count.
could_not() {
    warn "    FAILED: $2. The end of $3:"
    tail -n 30 "$3" >&2 || true
    echo "0 1 0"
}
show_if_failed() {
    local log=$1 counts=$2
    [ "$(cut -d ' ' -f 2 <<<"$counts")" = 0 ] || tail -n "${3:-60}" "$log" >&2
    printf '%s\n' "$counts"
}

built_dev=''
build_dev() {
    [ -z "$built_dev" ] || return "$built_dev"
    built_dev=0
    pgxc_build dev "$work/build-dev.log" || built_dev=1
    start_behind
    return $built_dev
}

stage_unit() {
    build_dev || { could_not unit "the build (preset dev) failed" "$work/build-dev.log" && return; }
    # Tests with servers mostly wait.
    (
        cd "$PGXC_ROOT"
        ctest --preset dev -LE cluster -j "$PGXC_JOBS" --output-junit "$work/unit.xml"
        ctest --preset dev -L cluster -j $((PGXC_JOBS * 2)) --output-junit "$work/servers.xml"
    ) >"$work/unit.log" 2>&1 || true
    show_if_failed "$work/unit.log" "$(junit "$work/unit.xml" "$work/servers.xml")"
}

stage_checks() {
    build_dev || { could_not checks "the build (preset dev) failed" "$work/build-dev.log" && return; }
    (cd "$PGXC_ROOT/test/checks" && /usr/bin/python3 -m pytest -q -n "$PGXC_JOBS" --junitxml "$work/checks.xml") \
        >"$work/checks.log" 2>&1 || true
    show_if_failed "$work/checks.log" "$(junit "$work/checks.xml")"
}

server_bin=''
# make_tree LOG: the private server with the module of the dev build, made once.
make_tree() {
    [ -z "$server_bin" ] || return 0
    mkdir -p "$work/server"
    server_bin=$(pgxc_server_tree "$PGXC_BUILD_DIR" "$work/server" 2>"$1")
}

stage_regress() {
    build_dev || { could_not regress "the build (preset dev) failed" "$work/build-dev.log" && return; }
    make_tree "$work/tree.log" || { could_not regress "no server tree" "$work/tree.log" && return; }
    local coordinator pooler passed failed
    pgxc_free_port && coordinator=$PGXC_PORT
    pgxc_free_port && pooler=$PGXC_PORT
    (pgxc_make_server "$server_bin" "$work" regress "$coordinator" "shared_preload_libraries = 'pgxc_ha'" \
        "max_prepared_transactions = 64" "pgxc.coordinators = '1=127.0.0.1:$coordinator'" \
        "pgxc.datanodes = '1=127.0.0.1:1, 2=127.0.0.1:2'" "pgxc.pooler_port = $pooler") >"$work/regress.out" 2>&1 ||
        { could_not regress "the coordinator does not start" "$work/regress.out" && return; }
    PG_CONFIG=$server_bin/pg_config "$PGXC_ROOT/test/regress/run.sh" --host 127.0.0.1 --port "$coordinator" \
        --user postgres --out "$work/regress.results" >"$work/regress.out" 2>&1 || true
    pgxc_stop_servers "$work"
    # A line for each test, in another form from PostgreSQL 16 on.
    passed=$(grep -cE '^(test .* \.\.\. +ok|ok +)' "$work/regress.out" || true)
    failed=$(grep -cE '^(test .* \.\.\. +FAILED|not ok |FAILED )' "$work/regress.out" || true)
    [ "$failed" = 0 ] || tail -n 100 "$work/regress.results/regression.diffs" >&2 2>/dev/null || true
    show_if_failed "$work/regress.out" "$passed $failed 0"
}

stage_cluster() {
    build_dev || { could_not cluster "the build (preset dev) failed" "$work/build-dev.log" && return; }
    make_tree "$work/cluster.log" || { could_not cluster "no server tree" "$work/cluster.log" && return; }
    (cd "$PGXC_ROOT/test/cluster" && TMPDIR=$work PGXC_SERVER_BIN=$server_bin \
        /usr/bin/python3 -m pytest -q -n 3 --dist loadfile --durations 15 --junitxml "$work/cluster.xml") \
        >"$work/cluster.log" 2>&1 || true
    sed -n 's/^told: /    /p' "$work/cluster.log" >&2
    show_if_failed "$work/cluster.log" "$(junit "$work/cluster.xml")" 200
}

# What only computes is done behind the stages that mostly wait for servers: the builds for the last two stages, then
# the fuzz targets. In a session of its own, so that it can be ended as a whole, and yielding to everything else.
start_behind() {
    local part parts=() quoted
    for part in fuzz asan; do
        [[ " ${stages[*]} " != *" $part "* ]] || parts+=("behind_$part")
    done
    [ ${#parts[@]} -gt 0 ] && [ -z "$behind" ] || return 0
    quoted=$(declare -p work fuzz_seconds && declare -f behind_asan behind_fuzz fuzz_one)
    setsid nice -n 19 bash -c ". '$PGXC_ROOT/test/lib/common.sh'
        set +e
        echo 19 2>/dev/null >/proc/self/autogroup
        $quoted
        $(printf '%s; ' "${parts[@]}")" >"$work/behind.log" 2>&1 &
    behind=$!
}
# wait_behind: until all that is done behind has ended.
wait_behind() {
    start_behind
    wait "$behind" || true
}

behind_asan() {
    if pgxc_build asan-ubsan "$work/build-asan.log"; then echo 0 >"$work/asan.built"; else echo 1 >"$work/asan.built"; fi
}

stage_asan() {
    wait_behind
    [ "$(cat "$work/asan.built")" = 0 ] ||
        { could_not asan "the build (preset asan-ubsan) failed" "$work/build-asan.log" && return; }
    (
        cd "$PGXC_ROOT"
        export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1
        ctest --preset asan-ubsan -LE cluster -j "$PGXC_JOBS" --output-junit "$work/asan.xml"
    ) >"$work/asan.log" 2>&1 || true
    show_if_failed "$work/asan.log" "$(junit "$work/asan.xml")"
}

# fuzz_one PROGRAM SECONDS: one target for a while, from its seeds if it has some; its log ends in OK or FAILED.
fuzz_one() {
    local program=$1 seconds=$2 name seeds=() dictionary=()
    name=$(basename "$program")
    mkdir -p "$work/corpus/$name"
    [ ! -d "$PGXC_ROOT/test/fuzz/corpus/$name" ] || seeds=("$PGXC_ROOT/test/fuzz/corpus/$name")
    [ ! -e "$PGXC_ROOT/test/fuzz/$name.dict" ] || dictionary=("-dict=$PGXC_ROOT/test/fuzz/$name.dict")
    if "$program" "-max_total_time=$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        "-artifact_prefix=$work/$name." "${dictionary[@]}" "$work/corpus/$name" "${seeds[@]}" >"$work/$name.log" 2>&1; then
        echo OK >>"$work/$name.log"
    else
        echo FAILED >>"$work/$name.log"
    fi
}

behind_fuzz() {
    local source program seconds
    if pgxc_build fuzz "$work/build-fuzz.log"; then
        for source in "$PGXC_ROOT"/test/fuzz/*_fuzz.cpp; do
            program=$(pgxc_build_dir fuzz)/test/fuzz/$(basename "$source" .cpp)
            while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
            # The smallest inputs are exhausted soon.
            case $source in *scram* | *record*) seconds=$((fuzz_seconds / 4 + 1)) ;; *) seconds=$fuzz_seconds ;; esac
            fuzz_one "$program" "$seconds" &
        done
        wait
        echo 0 >"$work/fuzz.done"
    else
        echo 1 >"$work/fuzz.done"
    fi
}

stage_fuzz() {
    wait_behind
    [ "$(cat "$work/fuzz.done")" = 0 ] ||
        { could_not fuzz "the build (preset fuzz) failed" "$work/build-fuzz.log" && return; }
    local name passed=0 failed=0 source
    for source in "$PGXC_ROOT"/test/fuzz/*_fuzz.cpp; do
        name=$(basename "$source" .cpp)
        if [ "$(tail -n 1 "$work/$name.log")" = OK ]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            warn "    FAILED fuzz target $name; its input is $(ls "$work/$name".*-* 2>/dev/null || echo not written). The end of its log:"
            tail -n 40 "$work/$name.log" >&2
        fi
    done
    echo "$passed $failed 0"
}

stage_tidy() {
    build_dev || { could_not tidy "the build (preset dev) failed" "$work/build-dev.log" && return; }
    local source passed=0 failed=0
    while read -r source; do
        if clang-tidy --quiet -p "$PGXC_BUILD_DIR" "$source" >"$work/tidy.log" 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            warn "    FAILED clang-tidy $source"
            grep -vE '^[0-9]+ warnings' "$work/tidy.log" >&2 || true
        fi
    done < <(find "$PGXC_ROOT/src" -name '*.cpp' | sort)
    echo "$passed $failed 0"
}

run_stage() {
    local name=$1 began=$SECONDS passed failed skipped
    printf '%-8s ' "$name"
    # Not in a subshell: the dev build is remembered for the next stage.
    "stage_$name" >"$work/$name.counts"
    read -r passed failed skipped < <(tail -n 1 "$work/$name.counts")
    if [ $((passed + failed)) -eq 0 ]; then
        warn "    FAILED: the stage $name ran no test"
        failed=1
    fi
    total_passed=$((total_passed + passed))
    total_failed=$((total_failed + failed))
    printf '%5d passed %4d failed %4d skipped %6d s\n' "$passed" "$failed" "$skipped" $((SECONDS - began))
    table+=$(printf '%-8s %6d %6d %7d %7d' "$name" "$passed" "$failed" "$skipped" $((SECONDS - began)))$'\n'
}

packages=("${PGXC_BUILD_PACKAGES[@]}" "${PGXC_TEST_PACKAGES[@]}")
[[ " ${stages[*]} " != *" tidy "* ]] || packages+=("${PGXC_TIDY_PACKAGES[@]}")
pgxc_need_packages "${packages[@]}"

# Servers make and remove files by the thousand, which takes several times as long on a disk.
if [ -z "${TMPDIR:-}" ]; then
    memory=$(pgxc_memory_folder 6)
    [ -z "$memory" ] || export TMPDIR=$memory
fi
work=$(pgxc_temp_dir pgxc_test)
for stage in "${stages[@]}"; do run_stage "$stage"; done

printf '\n%-8s %6s %6s %7s %7s\n%s' stage passed failed skipped seconds "$table"
[ $total_failed -eq 0 ] || say "logs: $work"
say "$total_passed passed, $total_failed failed"
[ $total_failed -eq 0 ]

# shellcheck shell=bash
# shellcheck disable=SC2034  # the lists and results here are used by those who source it
# What demo.sh, test.sh, bench/*.sh and the Python harness have in common. Sourced, never run.
#
# Nothing here writes outside the checkout's build folders and a temporary folder of its own, packages aside:
# servers run from a private copy of the server's files (pgxc_server_tree), as a user who isn't root, on loopback.

PGXC_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
PGXC_JOBS=${PGXC_JOBS:-$(nproc)}
export PGXC_ROOT

PGXC_BUILD_PACKAGES=(g++ cmake ninja-build pkg-config libpq-dev libssl-dev libasio-dev libzydis-dev nlohmann-json3-dev)
PGXC_TEST_PACKAGES=(libgtest-dev clang clang-format libclang-rt-dev python3 python3-pytest python3-pytest-xdist
    python3-pytest-timeout python3-psycopg2 python3-psycopg shellcheck iproute2 openssl)
PGXC_TIDY_PACKAGES=(clang-tidy)
PGXC_BENCH_PACKAGES=(pgbouncer python3 python3-psycopg2)
PGXC_SERVER_MAJOR=15

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    warn "error: $*"
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# pgxc_need_packages NAME...: installs what is missing, or names it and exits 2. The server's own packages are asked
# for only where no server was chosen by PG_CONFIG.
pgxc_need_packages() {
    local name missing=() sudo=()
    [ -n "${PG_CONFIG:-}" ] || set -- "$@" "postgresql-$PGXC_SERVER_MAJOR" "postgresql-server-dev-$PGXC_SERVER_MAJOR"
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! is_root; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            sudo=(sudo -n)
        else
            warn "These packages are missing, and installing them takes root or a sudo without password:"
            warn "    ${missing[*]}"
            warn "Run: apt-get install --no-install-recommends ${missing[*]}"
            exit 2
        fi
    fi
    say "Installing packages: ${missing[*]}"
    pgxc_install_packages "${sudo[@]}" -- "${missing[@]}"
}

# pgxc_install_packages [SUDO...] -- NAME...: apt-get, with starting of services denied as long as it runs (Debian
# starts a server of its own otherwise).
pgxc_install_packages() {
    local sudo=() policy=/usr/sbin/policy-rc.d denied=no log apt
    while [ "$1" != -- ]; do
        sudo+=("$1")
        shift
    done
    shift
    log=$(mktemp)
    apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -y -q -o DPkg::Lock::Timeout=900)
    if [ ! -e "$policy" ]; then
        denied=yes
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod 755 "$policy"
    fi
    local failed=no
    if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } >"$log" 2>&1; then
        failed=yes
    fi
    [ "$denied" = no ] || "${sudo[@]}" rm -f "$policy"
    if [ "$failed" = yes ]; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get could not install: $*"
    fi
    rm -f "$log"
}

# The pg_config of the server to build for and to run: PG_CONFIG, else Debian's server.
pgxc_pg_config() {
    local found=${PG_CONFIG:-/usr/lib/postgresql/$PGXC_SERVER_MAJOR/bin/pg_config}
    [ -x "$found" ] || die "no pg_config at $found: set PG_CONFIG to the pg_config of your server"
    printf '%s\n' "$found"
}

# pgxc_build PRESET LOG [TARGET...]: configures and builds, quietly. One build at a time per build folder.
pgxc_build() {
    local preset=$1 log=$2 target args=()
    shift 2
    for target in "$@"; do args+=(--target "$target"); done
    (
        cd "$PGXC_ROOT" || exit 1
        mkdir -p "$(pgxc_build_dir "$preset")"
        exec 9>"$(pgxc_build_dir "$preset")/.lock"
        flock 9
        local config launcher=()
        config=$(pgxc_pg_config) || exit 1
        ! command -v ccache >/dev/null ||
            launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
        cmake --preset "$preset" -DPG_CONFIG="$config" "${launcher[@]}" &&
            cmake --build --preset "$preset" -j "$PGXC_JOBS" "${args[@]}"
    ) >"$log" 2>&1
}

# The folder of a preset's build (CMakePresets.json).
pgxc_build_dir() {
    case $1 in
    asan-ubsan) printf '%s\n' "$PGXC_ROOT/build-asan" ;;
    *) printf '%s\n' "$PGXC_ROOT/build-$1" ;;
    esac
}

# Who runs servers: the caller, or `postgres` when that is root.
pgxc_server_user() { if is_root; then printf 'postgres\n'; else id -un; fi; }

# as_server COMMAND...: runs it as the server user, with a clean slate of libpq's environment variables.
as_server() {
    local clean=(env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGSERVICE -u PGPASSWORD)
    if is_root; then
        "${clean[@]}" HOME=/var/lib/postgresql setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
    else
        "${clean[@]}" "$@"
    fi
}

# pgxc_temp_dir NAME: a new folder that belongs to the server user and that others can look into.
pgxc_temp_dir() {
    local dir
    dir=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
    chmod 755 "$dir"
    ! is_root || chown postgres: "$dir"
    printf '%s\n' "$dir"
}

# pgxc_memory_folder GB: prints a folder in memory if there is one with so much room, that much memory is available, and
# programs may run there.
pgxc_memory_folder() {
    local folder=/dev/shm need=$(($1 * 1024 * 1024)) free available
    [ "$(stat -f -c %T $folder 2>/dev/null || true)" = tmpfs ] && [ -w $folder ] || return 0
    free=$(df --output=avail -k $folder | tail -n 1)
    available=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
    [ "$free" -ge "$need" ] && [ "${available:-0}" -ge "$need" ] || return 0
    case ,$(findmnt -n -o OPTIONS -T $folder 2>/dev/null || true), in *,noexec,*) return 0 ;; esac
    printf '%s\n' $folder
}

# pgxc_server_tree BUILD_DIR TREE: a private copy of the server with the module of BUILD_DIR installed in it; prints
# its bin folder. PostgreSQL finds its libraries and its share folder relative to the real path of its programs, so
# the programs are copied and everything else is links; nothing of the machine's own server is touched.
pgxc_server_tree() {
    local build=$1 tree=$2 config question dir
    config=$(pgxc_pg_config)
    for question in bindir pkglibdir sharedir; do
        dir=$("$config" --$question)
        mkdir -p "$tree$dir"
        if [ $question = bindir ]; then
            cp -a "$dir/." "$tree$dir/"
        else
            cp -as "$dir/." "$tree$dir/"
        fi
    done
    # A module installed on this machine before must not be written to through a link.
    rm -f "$tree$("$config" --pkglibdir)"/pgxc_ha.so "$tree$("$config" --sharedir)"/extension/pgxc_ha*
    if [ -n "$build" ]; then
        DESTDIR=$tree cmake --install "$build" >"$tree/install.log" 2>&1 ||
            die "installing $build failed: $(tail -n 5 "$tree/install.log")"
    fi
    chmod -R a+rX "$tree"
    printf '%s\n' "$tree$("$config" --bindir)"
}

# pgxc_free_port: a port of 127.0.0.1 where nothing listens, below the range that outgoing connections use. The
# ports already given out by this shell are in PGXC_PORTS_GIVEN.
PGXC_PORTS_GIVEN=" "
pgxc_free_port() {
    local port
    while :; do
        port=$((RANDOM % 12000 + 20000))
        [[ $PGXC_PORTS_GIVEN != *" $port "* ]] || continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    PGXC_PORTS_GIVEN+="$port "
    PGXC_PORT=$port
}

# pgxc_make_server BIN FOLDER NAME PORT [LINE...]: a new server in FOLDER/NAME, with these lines in its postgresql.conf,
# started. No password on loopback.
pgxc_make_server() {
    local bin=$1 work=$2 name=$3 port=$4
    shift 4
    as_server "$bin/initdb" -D "$work/$name" -U postgres -A trust -E UTF8 --locale=C --no-sync \
        >"$work/$name.initdb.log" 2>&1 ||
        die "initdb failed: $(tail -n 5 "$work/$name.initdb.log")"
    printf '%s\n' "port = $port" "listen_addresses = '127.0.0.1'" "unix_socket_directories = '$work'" \
        "dynamic_shared_memory_type = mmap" "$@" \
        >>"$work/$name/postgresql.conf"
    pgxc_start_server "$bin" "$work" "$name"
}
pgxc_start_server() {
    as_server "$1/pg_ctl" start -D "$2/$3" -l "$2/$3.log" -w -t 60 >/dev/null ||
        die "$3 does not start: $(tail -n 5 "$2/$3.log")"
}

# pgxc_server_pids DATA_DIR: the processes that live in it (every PostgreSQL process has it as its folder).
pgxc_server_pids() {
    local data pid
    data=$(readlink -f "$1") || return 0
    for pid in /proc/[0-9]*; do
        [ "$(readlink "$pid/cwd" 2>/dev/null)" != "$data" ] || printf '%s\n' "${pid#/proc/}"
    done
}

# pgxc_stop_servers FOLDER: stops every server whose data directory is in FOLDER, whoever started it (a promotion by
# restart starts servers too), and waits until its processes are gone.
pgxc_stop_servers() {
    local data pid deadline
    for data in "$1"/*/PG_VERSION; do
        [ -e "$data" ] || continue
        data=${data%/PG_VERSION}
        pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null || true)
        if [ -n "$pid" ] && pgxc_server_pids "$data" | grep -qx "$pid"; then
            kill -QUIT "$pid" 2>/dev/null || true
            kill -CONT "$pid" 2>/dev/null || true
        fi
    done
    deadline=$((SECONDS + 20))
    for data in "$1"/*/PG_VERSION; do
        [ -e "$data" ] || continue
        data=${data%/PG_VERSION}
        while [ -n "$(pgxc_server_pids "$data")" ]; do
            if [ $SECONDS -ge $deadline ]; then
                for pid in $(pgxc_server_pids "$data"); do kill -KILL "$pid" 2>/dev/null || true; done
            fi
            sleep 0.05
        done
        # What a killed server leaves: line 7 has key and id of its segment, of which the system has few.
        # shellcheck disable=SC2046  # a list of words
        set -- "$1" $(sed -n 7p "$data/postmaster.pid" 2>/dev/null || true)
        [ $# -lt 3 ] || ipcrm -m "$3" 2>/dev/null || true
    done
}

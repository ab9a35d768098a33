#!/usr/bin/env bash
# Does a fresh Debian with nothing but the checkout build, run and test it?
set -euo pipefail
# shellcheck source=test/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

usage() {
    cat <<'END'
usage: test/fresh_machine.sh [--keep] [--suite NAME] [--user] [COMMAND [ARGUMENT...]]

Makes a minimal Debian with debootstrap in a temporary folder, copies the committed state of this checkout (git
archive HEAD) into it, and runs COMMAND in the checkout there; without one, ./demo.sh and then ./test.sh. Needs root,
debootstrap and git. Packages come from where this machine's apt gets them.

  --keep         leave the folder, and print where it is
  --suite NAME   the Debian release (bookworm)
  --user         run as a normal user with sudo without password, not as root
END
}
keep=no suite=bookworm user=root
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=yes ;;
    --suite) suite=${2:?} && shift ;;
    --user) user=tester ;;
    -h | --help)
        usage
        exit 0
        ;;
    --)
        shift
        break
        ;;
    -*)
        usage >&2
        exit 64
        ;;
    *) break ;;
    esac
    shift
done
is_root || die "this needs root: it makes a file system and runs commands in it"
for program in debootstrap git; do
    command -v $program >/dev/null || die "$program is not installed"
done

root=$(mktemp -d "${TMPDIR:-/tmp}/pgxc_fresh.XXXXXX")
chmod 755 "$root" # the root of a file system that other users must get into
cleanup() {
    local status=$? mounted
    trap - EXIT INT TERM
    for mounted in dev/shm dev/pts dev proc; do
        ! mountpoint -q "$root/$mounted" || umount -l "$root/$mounted"
    done
    if [ $keep = yes ]; then say "left: $root"; else rm -rf --one-file-system "$root"; fi
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The machine's own mirror for the suite, whatever it is; else debootstrap's default.
# shellcheck disable=SC2016  # apt-get expands these
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite="$suite" '$2 == suite { print $1; exit }')
say "== debootstrap $suite${mirror:+ from $mirror}"
debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    rm -f "$root.log"
    die "debootstrap failed"
}
rm -f "$root.log"
if [ -n "$mirror" ]; then
    # The same sources, keys and way to the network as here.
    rm -f "$root/etc/apt/sources.list"
    cp -aL /etc/apt/sources.list* /etc/apt/trusted.gpg.d /etc/apt/keyrings "$root/etc/apt/" 2>/dev/null || true
    cp -aL /etc/apt/auth.conf.d /etc/apt/preferences.d "$root/etc/apt/" 2>/dev/null || true
    # Options of the machine's own, but not those that run programs which aren't there.
    for file in /etc/apt/apt.conf.d/*; do
        [ ! -f "$file" ] || ! grep -q '^Acquire::' "$file" || grep -qE 'Pre-|Post-' "$file" ||
            cp -aL "$file" "$root/etc/apt/apt.conf.d/"
    done
fi
for file in resolv.conf hosts; do cp -L /etc/$file "$root/etc/$file"; done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"

say "== the checkout: $(git -C "$PGXC_ROOT" log -1 --format='%h %s')"
mkdir "$root/checkout"
git -C "$PGXC_ROOT" archive HEAD | tar -x -C "$root/checkout"

in_chroot() {
    chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" ${PGXC_JOBS:+PGXC_JOBS="$PGXC_JOBS"} "$@"
}
as_user=()
if [ $user != root ]; then
    in_chroot sh -c "apt-get update && apt-get install -y --no-install-recommends sudo" >/dev/null 2>&1
    in_chroot useradd -m $user
    echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$user"
    in_chroot chown -R $user: /checkout
    as_user=(sudo -u "$user" -H)
fi
run_there() {
    say "== $*"
    local began=$SECONDS status=0
    in_chroot "${as_user[@]}" sh -c 'cd /checkout && exec "$@"' sh "$@" || status=$?
    say "== exit status $status after $((SECONDS - began)) s"
    return $status
}
if [ $# -gt 0 ]; then
    run_there "$@"
else
    run_there ./demo.sh
    run_there ./test.sh
fi
# A server that was started and left would still have its folder as current directory under the root.
left=$(find /proc/[0-9]*/root -maxdepth 0 -lname "$root" 2>/dev/null | wc -l)
[ "$left" -eq 0 ] || die "$left processes were left running"

#!/usr/bin/env bash
# Builds spine and runs its tests with the PostgreSQL, librdkafka, libmicrohttpd and
# compilers of several Debian releases, each built from scratch in a chroot of its own.
#
#   tools/check-matrix.sh [SUITE...]    bookworm, trixie and sid, if none is named
#
# MIRROR=... names another mirror for the packages. The last line is "N passed, N failed".
set -eu -o pipefail

cd "$(dirname "$0")/.."
mirror=${MIRROR:-}
passed=0
failed=0

say() {
    printf '==> %s\n' "$*"
}

# Makes a Debian in $root, with only two additions: make and the tree.
make_root() {
    debootstrap --variant=minbase --include=make,ca-certificates "$1" "$root" ${mirror:+"$mirror"} >"$work/$1.debootstrap.log" 2>&1 || {
        tail -n 20 "$work/$1.debootstrap.log"
        return 1
    }
    # The Release file of sid on a mirror may have expired.
    echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99valid-until"
    mkdir "$root/spine"
    tools/list-tree.sh |
        tar -c --no-recursion --null -T - | tar -x -C "$root/spine"
}

# When the command ends, its mounts and processes are gone.
in_root() {
    # shellcheck disable=SC2016     # the inner shell expands these
    unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" sh -c '
        mount --rbind /dev "$1/dev" && mount -t tmpfs tmpfs "$1/dev/shm" || exit
        root=$1; shift
        exec chroot "$root" "$@"' sh "$root" \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 "$@"
}

versions() {
    # shellcheck disable=SC2016     # these are for dpkg-query
    in_root dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' 'postgresql-[0-9]*' \
        librdkafka-dev libmicrohttpd-dev libjson-c-dev gcc clang |
        awk '$3 == "installed" && $1 !~ /client/ { printf "%s %s, ", $1, $2 }'
}

try() {
    local suite=$1 log=$work/$1.log p f start=$SECONDS
    root=$work/$suite
    say "$suite"
    : >"$log"
    if make_root "$suite" && in_root make -C /spine check-code >"$log" 2>&1 </dev/null; then
        say "$suite: $(versions)$((SECONDS - start)) s"
    else
        say "$suite: FAILED"
        tail -n 40 "$log"
    fi
    read -r p f < <(awk '/^[0-9]+ passed, [0-9]+ failed$/ { p = $1; f = $3 } END { print p + 0, (f == "" ? 1 : f) }' "$log")
    say "$suite: $p passed, $f failed"
    passed=$((passed + p))
    failed=$((failed + f))
    mkdir -p build/check-matrix
    cp "$log" build/check-matrix
    [ "$f" = 0 ] || cp -R "$root/spine/build/check-failed" "build/check-matrix/$suite" 2>/dev/null || :
    rm -rf "$root"
}

if [ "$(id -u)" != 0 ]; then
    exec sudo MIRROR="$mirror" TMPDIR="${TMPDIR:-/var/tmp}" "tools/${0##*/}" "$@"
fi
tools/deps.sh image
[ $# -gt 0 ] || set -- bookworm trixie sid
work=$(mktemp -d "${TMPDIR:-/var/tmp}/spine-matrix.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
for suite; do
    try "$suite"
done
say 'the logs are in build/check-matrix'
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

#!/usr/bin/env bash
# Builds the machine's PostgreSQL again from Debian's source, with assertions
# enabled, and leaves it in build/assert. A new build is made when the installed version
# changes.
#
#   tools/assert-postgres.sh
#
# A mirror may lack the source of a security update. Then the newest source that the
# mirror has is built; the major version is always the installed one.
set -eu -o pipefail

cd "$(dirname "$0")/.."
built=$PWD/build/assert
log=$PWD/build/assert.log

say() {
    printf '==> %s\n' "$*"
}

# Gives apt private lists: the sources of every package that the machine's apt knows.
prepare_apt() {
    local file
    mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [ ! -e "$file" ] || sed -e 's/^Types:.*/Types: deb-src/' -e 's/^deb\(-src\)\{0,1\}[[:space:]]/deb-src /' \
            "$file" >"$work/sources/${file##*/}"
    done
    apt_options=(
        -q -o Acquire::Retries=3
        -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/sources"
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
    )
    apt-get "${apt_options[@]}" update || say "apt-get update failed for some sources"
}

# Puts the source, with Debian's patches, into $work/source.
get_source() {
    local version versions
    prepare_apt
    versions=$(apt-cache "${apt_options[@]}" showsrc --only-source "$package" | sed -n 's/^Version: //p' | sort -rVu)
    for version in $versions; do
        (cd "$work" && apt-get "${apt_options[@]}" source --download-only --only-source "$package=$version") || continue
        # apt has checked the files
        dpkg-source --no-check -x "$work/${package}_$version.dsc" "$work/source"
        return
    done
    echo "no source of $package was found"
    return 1
}

# The programs find their libraries relative to their own directory, so that the whole
# can be copied.
build() (
    cd "$work/source"

    # only a make that nothing else has started generates PostgreSQL's headers
    unset MAKELEVEL MAKEFLAGS MFLAGS
    ./configure --quiet --prefix=/pgsql "${options[@]}"
    # shellcheck disable=SC2016     # it is the loader that expands $ORIGIN
    local make=(make -s -j "$(nproc)" rpathdir='$$ORIGIN/../lib' DESTDIR="$work/installed")
    "${make[@]}" -C src all
    "${make[@]}" -C src install
    "${make[@]}" -C contrib/postgres_fdw install
)

finish() {
    local rc=$?
    trap - EXIT
    rm -rf "$work"
    [ "$rc" = 0 ] || {
        tail -n 20 "$log" >&2
        echo "assert-postgres: could not build $package; the whole log is in build/assert.log" >&2
    }
    exit "$rc"
}

tools/deps.sh assert
version=$("$(tools/deps.sh --pg-config)" --version)
major=${version#PostgreSQL }
package=postgresql-${major%%[!0-9]*}
options=(--enable-cassert --enable-debug --enable-tap-tests --with-icu --without-readline
    CFLAGS='-O2 -fno-omit-frame-pointer')
made_for="$version ${options[*]}"
[ "$made_for" != "$(cat "$built/made-for" 2>/dev/null)" ] || exit 0

say "building $package with assertions, which takes some minutes"
rm -rf "$built"
mkdir -p build
: >"$log"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/spine-assert.XXXXXX")
trap finish EXIT
trap 'exit 130' HUP INT TERM
chmod 755 "$work"       # apt works there as a user of its own
{
    get_source
    build
} >"$log" 2>&1 </dev/null
mv "$work/installed/pgsql" "$built"
echo "$made_for" >"$built/made-for"
say "$("$built/bin/pg_config" --version) is in build/assert"

#!/bin/sh
# Makes a private installation of the machine's PostgreSQL under DIR, so that
# spine can be installed and tested without writing to the machine's own
# directories. Prints the path of the private pg_config.
#
#   tools/private-postgres.sh DIR
#
# PostgreSQL is relocatable: its programs find the other directories relative to
# their own. So the programs are copied, because they would follow a link back.
# The two directories into which an extension is installed are real ones. Everything
# else is links. The layout below DIR is the machine's:
# DIR/usr/lib/postgresql/15/bin and so on.
set -eu

die() {
    echo "private-postgres: $*" >&2
    exit 1
}

# Links every entry of a directory into another one, except for spine's: a spine
# that is installed on the machine is not the one under test.
link_entries() {
    mkdir -p "$2"
    for entry in "$1"/*; do
        name=${entry##*/}
        case $name in spine*) continue ;; esac
        [ -e "$2/$name" ] || [ ! -e "$entry" ] || ln -s "$entry" "$2/$name"
    done
}

# Links a directory, or its entries if the copy already has that directory.
link_directory() {
    if [ -d "$dir$1" ]; then
        link_entries "$1" "$dir$1"
    elif [ -d "$1" ]; then
        mkdir -p "$dir${1%/*}"
        ln -s "$1" "$dir$1"
    fi
}

[ $# = 1 ] || die "usage: tools/private-postgres.sh DIR"
mkdir -p "$1"
dir=$(cd "$1" && pwd -P)
[ "$dir" != / ] || die "not into /"

system=$("$(dirname "$0")"/deps.sh --pg-config)
bindir=$("$system" --bindir) || die "cannot run $system; \"make deps\" installs it"
sharedir=$("$system" --sharedir)
pkglibdir=$("$system" --pkglibdir)
[ -x "$bindir/postgres" ] || die "no server in $bindir; \"make deps\" installs it"
[ -e "$("$system" --pgxs)" ] || die "$system has no PGXS; \"make deps\" installs it"

# A minor upgrade or a new contrib module makes a new copy necessary.
made_from=$("$system" --configure --version &&
    LC_ALL=C ls -l --time-style=full-iso "$bindir" "$pkglibdir" "$sharedir/extension")
private=$dir$bindir/pg_config

if [ "$made_from" != "$(cat "$dir/made-from" 2>/dev/null)" ]; then
    rm -rf "${dir:?}"/*
    mkdir -p "$dir$bindir"
    cp -R "$bindir/." "$dir$bindir"
    link_entries "$pkglibdir" "$dir$pkglibdir"
    link_entries "$sharedir/extension" "$dir$sharedir/extension"
    link_entries "$sharedir" "$dir$sharedir"
    link_directory "$("$system" --libdir)"
    link_directory "$("$system" --includedir)"
    link_directory "$("$system" --pkgincludedir)"
    link_directory "$("$system" --includedir-server)"
    echo "$made_from" >"$dir/made-from"
fi

for what in bindir sharedir pkglibdir includedir-server pgxs; do
    path=$("$private" "--$what")
    case $path in
        "$dir"/*) ;;
        *) die "the copy would still use $path ($what)" ;;
    esac
    [ -e "$path" ] || die "the copy lacks $path ($what)"
done
echo "$private"

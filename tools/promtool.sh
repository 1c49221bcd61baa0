#!/bin/sh
# Puts promtool, Prometheus' own checker, into DIR and prints its path.
#
#   tools/promtool.sh DIR
#
# An installed promtool is used. Otherwise it is taken out of Debian's package, without
# installing the package: that would leave a Prometheus server running on the machine.
set -eu

[ $# = 1 ] || { echo "usage: tools/promtool.sh DIR" >&2; exit 2; }
command -v promtool && exit 0

mkdir -p "$1"
cd "$1"
if [ ! -x "$PWD/usr/bin/promtool" ]; then
    # newer Debian releases have a package of its own
    package=promtool
    apt-cache show "$package" >/dev/null 2>&1 || package=prometheus
    apt-get -q -o Acquire::Retries=3 download "$package" >&2
    dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x ./usr/bin/promtool
    rm -f "$package"_*.deb
fi
echo "$PWD/usr/bin/promtool"

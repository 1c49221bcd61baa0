#!/bin/sh
# Puts promtool, Prometheus' own checker, into DIR and prints its path.
#
#   tools/promtool.sh DIR
#
# One that is installed is used. Else it is taken out of Debian's package, which
# is not installed: that would leave a Prometheus server running on the machine.
set -eu

[ $# = 1 ] || { echo "usage: tools/promtool.sh DIR" >&2; exit 2; }
command -v promtool && exit 0

mkdir -p "$1"
cd "$1"
if [ ! -x "$PWD/usr/bin/promtool" ]; then
    apt-get -q -o Acquire::Retries=3 download prometheus >&2
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    rm -f prometheus_*.deb
fi
echo "$PWD/usr/bin/promtool"

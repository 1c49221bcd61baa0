#!/bin/sh
# Makes a Python environment with these packages, unless it already exists.
#
#   tools/venv.sh DIRECTORY PACKAGE==VERSION...
set -eu
venv=$1
shift

[ "$(cat "$venv/installed" 2>/dev/null)" != "$*" ] || exit 0
echo "==> installing $*"
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-cache-dir install --no-compile "$@" || {
    echo "venv: pip could not install $*; is PyPI reachable?" >&2
    exit 1
}
echo "$*" >"$venv/installed"

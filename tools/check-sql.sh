#!/bin/sh
# Looks through the extension's scripts for what lets a role run its code with the
# rights of whoever installs them, with pgspot. It stays in build/tools, for the next
# run.
set -eu
cd "$(dirname "$0")/.."

venv=build/tools/pgspot
tools/venv.sh "$venv" pgspot==0.9.4 pglast==7.21

bad=0
for script in sql/*.sql; do
    ignore=
    # CREATE OR REPLACE in a step: since 14.5 PostgreSQL refuses to replace in it what
    # is not the extension's.
    case $script in
        *--*--*) ignore="--ignore PS002" ;;
    esac
    echo "==> $script"
    # shellcheck disable=SC2086
    "$venv/bin/pgspot" $ignore "$script" || bad=1
done
exit "$bad"

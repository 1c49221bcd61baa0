#!/bin/sh
# Scans the extension's scripts with pgspot, for statements that would let a role run
# its code with the rights of the person who installs them. pgspot stays in build/tools
# for the next run.
set -eu
cd "$(dirname "$0")/.."

venv=build/tools/pgspot
tools/venv.sh "$venv" pgspot==0.9.4 pglast==7.21

bad=0
echo "==> sql/parts"
"$venv/bin/pgspot" --append sql/parts/*.sql || bad=1
for step in sql/spine--*--*.sql; do
    echo "==> $step"
    # CREATE OR REPLACE is safe in an upgrade script: since 14.5 PostgreSQL refuses to
    # replace an object there that does not belong to the extension.
    "$venv/bin/pgspot" --ignore PS002 --ignore PS015 "$step" || bad=1
done
exit "$bad"

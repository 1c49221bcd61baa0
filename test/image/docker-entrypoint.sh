#!/usr/bin/env bash
# The parts of the official image's entrypoint that the image needs, as documented there.
# Arguments that begin with "-" go to the server. An empty PGDATA gets a cluster, with
# POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB. The scripts in
# /docker-entrypoint-initdb.d run once, on a server without TCP.
set -eu -o pipefail

case ${1:-} in -*) set -- postgres "$@" ;; esac

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    export POSTGRES_USER=${POSTGRES_USER:-postgres}
    export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
    mkdir -p "$PGDATA"
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
    printf '\nhost all all all %s\n' scram-sha-256 >>"$PGDATA/pg_hba.conf"
    arguments=("${@:2}" -c listen_addresses=)
    pg_ctl -w start -o "$(printf '%q ' "${arguments[@]}")"
    [ "$POSTGRES_DB" = postgres ] ||
        psql --username "$POSTGRES_USER" --dbname postgres -qc "CREATE DATABASE \"$POSTGRES_DB\""
    for script in /docker-entrypoint-initdb.d/*; do
        echo "$0: running $script"
        "$script"
    done
    pg_ctl -w -m fast stop
fi
[ "$1" != postgres ] || set -- "$@" -c "listen_addresses=*"
exec "$@"

#!/bin/sh
# Runs once, when the database server of the image makes its first database
# (/docker-entrypoint-initdb.d): the extension in it, and the role that
# spine-http may read with.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
    --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-$POSTGRES_USER}" <<'SQL'
CREATE EXTENSION spine;
CREATE ROLE spine_http LOGIN;
GRANT SELECT ON events, current_orders, spine_order_totals TO spine_http;
GRANT EXECUTE ON FUNCTION spine_readiness(), spine_metrics_text() TO spine_http;
SQL

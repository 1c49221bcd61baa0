#!/bin/sh
# Runs once, from /docker-entrypoint-initdb.d, when the image's server makes its
# first database. Creates the extension there, and the role that spine-http reads
# with.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
    --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-$POSTGRES_USER}" <<'SQL'
CREATE EXTENSION spine;
CREATE ROLE spine_http LOGIN;
GRANT SELECT ON events, current_orders, spine_order_totals, spine_order_sums,
    spine_order_counts, spine_order_changes TO spine_http;
GRANT EXECUTE ON FUNCTION spine_readiness(), spine_metrics_text() TO spine_http;
SQL

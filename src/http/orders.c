/*
 * orders.c
 *		What the page shows: the newest orders, and the totals of the largest tenants.
 *		No other C file of spine-http knows what the rows are.
 */
#include "endpoints.h"

/* json_agg is qualified, because a user's json_agg for exactly this type would be preferred. */
static const DbStatement orders_statement = {
	"orders", DB_WITH_ETAG("coalesce(pg_catalog.json_agg(o), '[]')::text", "spine_orders($1::text, $2::text, $3::integer) o", "$4"),
	3, true, 256 * 1024
};

static const DbStatement stats_statement = {
	"stats", DB_WITH_ETAG("coalesce(pg_catalog.json_agg(s), '[]')::text", "spine_stats_summary($1::text, $2::text, $3::integer) s", "$4"),
	3, true, 256 * 1024
};

const Endpoint endpoint_rows = {
	"/orders", "the newest orders [tenant=, status=, limit=1..1000 (100)]", &orders_statement,
	CONTENT_JSON, "no-cache", 3,
	{{"tenant", PARAMETER_TEXT}, {"status", PARAMETER_TEXT}, {"limit", PARAMETER_LIMIT}}
};

const Endpoint endpoint_totals = {
	"/stats", "orders and revenue of the largest tenants [tenant=, prefix=, limit=1..1000 (100)]", &stats_statement,
	CONTENT_JSON, "no-cache", 3,
	{{"tenant", PARAMETER_TEXT}, {"prefix", PARAMETER_TEXT}, {"limit", PARAMETER_LIMIT}}
};

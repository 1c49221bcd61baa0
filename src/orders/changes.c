/*
 * changes.c
 *		The newest orders that a statement has written, in spine_order_changes.
 *
 * Its SQL does not depend on the search_path: every name is qualified, operators too.
 */
#include "orders/changes.h"

#include "access/xact.h"
#include "apply/statement.h"
#include "catalog/pg_type.h"
#include "lib/binaryheap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/timestamp.h"

#define MAX_NEWEST	1000

struct SpineChanges
{
	binaryheap *newest;			/* the oldest of them is the first */
};

typedef struct Order
{
	TimestampTz updated_at;
	Datum		tenant;
	Datum		order_id;
} Order;

static int
compare_times(Datum a, Datum b, void *arg)
{
	TimestampTz x = ((Order *) DatumGetPointer(a))->updated_at;
	TimestampTz y = ((Order *) DatumGetPointer(b))->updated_at;

	return x == y ? 0 : x < y ? 1 : -1;
}

SpineChanges *
spine_changes_make(void)
{
	SpineChanges *changes = palloc(sizeof(SpineChanges));

	changes->newest = binaryheap_allocate(MAX_NEWEST, compare_times, NULL);
	return changes;
}

void
spine_changes_add(SpineChanges *changes, const SpineOrder *written)
{
	bool		is_full = changes->newest->bh_size == MAX_NEWEST;
	Order	   *order;

	if (!is_full)
		order = palloc(sizeof(Order));
	else
	{
		order = (Order *) DatumGetPointer(binaryheap_first(changes->newest));
		if (written->updated_at <= order->updated_at)
			return;
		pfree(DatumGetPointer(order->tenant));
		pfree(DatumGetPointer(order->order_id));
	}

	order->updated_at = written->updated_at;
	order->tenant = datumCopy(PointerGetDatum(written->tenant), false, -1);
	order->order_id = datumCopy(PointerGetDatum(written->order_id), false, -1);
	if (is_full)
		binaryheap_replace_first(changes->newest, PointerGetDatum(order));
	else
		binaryheap_add(changes->newest, PointerGetDatum(order));
}

/*
 * Rows are only added to the changes, and removed when later ones list enough orders.  Rows
 * that another session removes are left to it, if that is not an error.
 */
static void
cut_changes(const char *schema)
{
	int			rc;

	if (IsolationUsesXactSnapshot())
		return;
	rc = SPI_execute(psprintf("DELETE FROM %1$s.spine_order_changes"
						  " WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
						  " SELECT c.ctid FROM %1$s.spine_order_changes c"
						  " WHERE (c.newest, c.id) OPERATOR(pg_catalog.<) ("
						  " SELECT k.newest, k.id"
						  " FROM (SELECT newest, id, pg_catalog.sum(pg_catalog.cardinality(order_ids))"
						  " OVER (ORDER BY newest DESC, id DESC) AS orders"
						  " FROM %1$s.spine_order_changes) k"
						  " WHERE k.orders OPERATOR(pg_catalog.>=) 10000"
						  " ORDER BY k.newest DESC, k.id DESC LIMIT 1)"
						  " FOR UPDATE SKIP LOCKED))", schema), false, 0);
	if (rc != SPI_OK_DELETE)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
}

void
spine_changes_write(const SpineChanges *changes, const char *schema)
{
	static SpineStatement statement;
	Oid			types[] = {TIMESTAMPTZOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID};
	char		nulls[] = "     ";
	Datum		args[5];
	int			n = changes->newest->bh_size;
	Datum	   *columns[3];
	TimestampTz newest = DT_NOBEGIN;
	bool		isnull;
	SPIPlanPtr	plan;
	int			rc;

	if (n == 0)
		return;
	for (int i = 0; i < 3; i++)
		columns[i] = palloc(n * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		const Order *order = (Order *) DatumGetPointer(changes->newest->bh_nodes[i]);

		columns[0][i] = order->tenant;
		columns[1][i] = order->order_id;
		columns[2][i] = TimestampTzGetDatum(order->updated_at);
		newest = Max(newest, order->updated_at);
	}
	args[0] = TimestampTzGetDatum(newest);
	args[1] = PointerGetDatum(construct_array(columns[0], n, TEXTOID, -1, false, TYPALIGN_INT));
	args[2] = PointerGetDatum(construct_array(columns[1], n, TEXTOID, -1, false, TYPALIGN_INT));
	args[3] = PointerGetDatum(construct_array(columns[2], n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[4] = columns[2][0];
	if (n < MAX_NEWEST)
		nulls[4] = 'n';

	plan = spine_statement_prepare(&statement,
								   psprintf("INSERT INTO %s.spine_order_changes (newest, tenants, order_ids, updated_at, since)"
											" VALUES ($1, $2, $3, $4, $5) RETURNING id", schema),
								   lengthof(args), types);
	rc = SPI_execute_plan(plan, args, nulls, false, 0);
	if (rc != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
	if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) % 256 == 0)
		cut_changes(schema);
}

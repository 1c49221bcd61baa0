/*
 * changes.c
 *		The newest orders that a statement has written, in spine_order_changes.
 *
 * Its SQL does not depend on the search_path: every name is qualified, operators too.
 */
#include "orders/changes.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/binaryheap.h"
#include "orders/total_table.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
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
void
spine_changes_cut(Oid namespace)
{
	const char *schema;
	int			rc;

	if (IsolationUsesXactSnapshot())
		return;
	SPI_connect();
	schema = quote_identifier(get_namespace_name(namespace));
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
	SPI_finish();
}

/* The table, and its columns. */
enum
{
	NEWEST,
	ID,
	TENANTS,
	ORDER_IDS,
	UPDATED_AT,
	SINCE,
	NCOLUMNS
};

static const SpineTotalColumn columns[NCOLUMNS] = {
	[NEWEST] = {.name = "newest", .type = TIMESTAMPTZOID},
	[ID] = {.name = "id", .type = INT8OID, .takes_default = true},
	[TENANTS] = {.name = "tenants", .type = TEXTARRAYOID},
	[ORDER_IDS] = {.name = "order_ids", .type = TEXTARRAYOID},
	[UPDATED_AT] = {.name = "updated_at", .type = TIMESTAMPTZARRAYOID},
	[SINCE] = {.name = "since", .type = TIMESTAMPTZOID},
};

static const SpineTotalShape shape = {2, NCOLUMNS, columns};

static void
make_row(Datum *row, const binaryheap *orders)
{
	int			n = orders->bh_size;
	Datum	   *tenants = palloc(n * sizeof(Datum));
	Datum	   *order_ids = palloc(n * sizeof(Datum));
	Datum	   *times = palloc(n * sizeof(Datum));
	TimestampTz newest = DT_NOBEGIN;

	for (int i = 0; i < n; i++)
	{
		const Order *order = (Order *) DatumGetPointer(orders->bh_nodes[i]);

		tenants[i] = order->tenant;
		order_ids[i] = order->order_id;
		times[i] = TimestampTzGetDatum(order->updated_at);
		newest = Max(newest, order->updated_at);
	}
	row[NEWEST] = TimestampTzGetDatum(newest);
	row[TENANTS] = PointerGetDatum(construct_array(tenants, n, TEXTOID, -1, false, TYPALIGN_INT));
	row[ORDER_IDS] = PointerGetDatum(construct_array(order_ids, n, TEXTOID, -1, false, TYPALIGN_INT));
	row[UPDATED_AT] = PointerGetDatum(construct_array(times, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	row[SINCE] = times[0];
}

bool
spine_changes_write(const SpineChanges *changes, Relation relation)
{
	bool		nulls[NCOLUMNS] = {false};
	Datum		row[NCOLUMNS];
	SpineTotalTable *table;
	int64		id;

	if (changes->newest->bh_size == 0)
		return false;
	nulls[SINCE] = changes->newest->bh_size < MAX_NEWEST;
	make_row(row, changes->newest);
	table = spine_total_table_open(relation, &shape);
	id = DatumGetInt64(spine_total_table_insert(table, row, nulls)[ID]);
	spine_total_table_close(table);

	/* that reads all that is kept, 10000 rows if statements write single orders */
	return id % Max(256, 4096 / changes->newest->bh_size) == 0;
}

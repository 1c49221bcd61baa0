/*
 * totals.c
 *		The trigger function that keeps the totals of current_orders, and the list of the
 *		newest orders.
 *
 * It adds up the transition tables and writes the sums, each table by one statement.  It
 * runs with the rights of the extension's owner, and with the search_path of whoever
 * changes orders.  So every name in its SQL is qualified, operators too.
 *
 * A session counts in rows of its own.  Each transaction that counts makes a version of
 * such a row.  While somebody has an old snapshot, no version can be removed, and the index
 * leads each transaction through all versions before its own.  So a session begins new rows
 * after some of its transactions, if their versions must stay.  When they need not stay any
 * more, the session adds up its rows.
 */
#include "compat.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "apply/statement.h"
#include "catalog/namespace.h"
#include "catalog/own_tables.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/binaryheap.h"
#include "nodes/makefuncs.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define TRANSACTIONS	500		/* that count in the same rows, even if all their versions stay */
#define NUMBERS			(1 << 18)	/* more than there can be sessions */
#define MAX_GENERATION	(PG_INT32_MAX / NUMBERS - 1)

static int	generation;
static int	ntransactions;		/* since the generation was last looked at */
static TransactionId first_counted = InvalidTransactionId;	/* of these transactions */
static TransactionId last_counted = InvalidTransactionId;	/* the last of them */
static bool adds_up;			/* the session is to add up its rows */
static TransactionId added_up_by = InvalidTransactionId;

PG_FUNCTION_INFO_V1(spine_session_number);
PG_FUNCTION_INFO_V1(spine_count_orders);

/* Once in each transaction that has changed something. */
static void
count_transaction(void)
{
	TransactionId xid = GetTopTransactionIdIfAny();

	if (!TransactionIdIsValid(xid) || xid == last_counted)
		return;
	last_counted = xid;
	if (TransactionIdIsValid(added_up_by))
	{
		adds_up = !TransactionIdDidCommit(added_up_by);
		added_up_by = InvalidTransactionId;
	}
	if (!TransactionIdIsValid(first_counted))
		first_counted = xid;
	if (++ntransactions < TRANSACTIONS)
		return;

	if (TransactionIdPrecedes(GetOldestNonRemovableTransactionId(NULL), first_counted))
		generation = Min(generation + 1, MAX_GENERATION);
	else if (generation > 0)
	{
		generation = 0;
		adds_up = true;
	}
	ntransactions = 0;
	first_counted = xid;
}

/*
 * A number that no other session has at the same time; a later session may have it.  A
 * session has several numbers, one after the other, which are the same modulo NUMBERS.
 */
static int32
session_number(void)
{
	count_transaction();
	return generation * NUMBERS + MyProcNumber;
}

Datum
spine_session_number(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(session_number());
}

/* Is it time for the session to add up its rows? */
static bool
is_time_to_add_up(void)
{
	count_transaction();
	if (!adds_up || TransactionIdIsValid(added_up_by))
		return false;
	added_up_by = last_counted;
	return true;
}

/*
 * Sums, by what they are of: tenant, currency and status.  What a table does not tell apart
 * is NULL.
 */
#define NPARTS		3

typedef struct SumKey
{
	const text *parts[NPARTS];
} SumKey;

typedef struct Sum
{
	SumKey		key;
	uint32		hash;
	char		status;			/* the hash table's */
	int64		orders;
	int128		amount;
	TimestampTz newest_new;		/* of the new rows */
	TimestampTz newest_old;		/* of the old rows */
} Sum;

static uint32
hash_of(const SumKey *key)
{
	uint32		hash = 0;

	for (int i = 0; i < NPARTS; i++)
	{
		const text *part = key->parts[i];

		if (part)
			hash = hash_combine(hash, hash_bytes((const unsigned char *) VARDATA_ANY(part),
												 VARSIZE_ANY_EXHDR(part)));
	}
	return hash;
}

/* In the order of the tables' keys, which are COLLATE "C". */
static int
compare_keys(const SumKey *a, const SumKey *b)
{
	for (int i = 0; i < NPARTS; i++)
	{
		const text *x = a->parts[i];
		const text *y = b->parts[i];
		size_t		x_len,
					y_len;
		int			order;

		if (x == NULL)
			continue;
		x_len = VARSIZE_ANY_EXHDR(x);
		y_len = VARSIZE_ANY_EXHDR(y);
		order = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(x_len, y_len));
		if (order != 0)
			return order;
		if (x_len != y_len)
			return x_len < y_len ? -1 : 1;
	}
	return 0;
}

#define SH_PREFIX			sums
#define SH_ELEMENT_TYPE		Sum
#define SH_KEY_TYPE			SumKey
#define SH_KEY				key
#define SH_HASH_KEY(tb, k)	hash_of(&(k))
#define SH_EQUAL(tb, a, b)	(compare_keys(&(a), &(b)) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)	(a)->hash
#define SH_SCOPE			static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static int
compare_sums(const void *a, const void *b)
{
	return compare_keys(&(*(Sum *const *) a)->key, &(*(Sum *const *) b)->key);
}

static bool
changes_nothing(const Sum *sum)
{
	/* if the old rows were as new, what they were counted in says so */
	return sum->orders == 0 && sum->amount == 0 && sum->newest_new <= sum->newest_old;
}

/* Its parts are not copied. */
static Sum *
find_sum(sums_hash *sums, const text *tenant, const text *currency, const text *status, bool *found)
{
	SumKey		key = {{tenant, currency, status}};
	Sum		   *sum = sums_insert(sums, key, found);

	if (!*found)
	{
		sum->orders = 0;
		sum->amount = 0;
		sum->newest_new = DT_NOBEGIN;
		sum->newest_old = DT_NOBEGIN;
	}
	return sum;
}

/* The columns of current_orders that are read. */
enum
{
	TENANT, CURRENCY, STATUS, ORDER_ID, AMOUNT_CENTS, UPDATED_AT, NCOLUMNS
};

static const struct
{
	const char *name;
	Oid			type;
}			order_columns[NCOLUMNS] = {
	[TENANT] = {"tenant", TEXTOID},
	[CURRENCY] = {"currency", TEXTOID},
	[STATUS] = {"status", TEXTOID},
	[ORDER_ID] = {"order_id", TEXTOID},
	[AMOUNT_CENTS] = {"amount_cents", INT8OID},
	[UPDATED_AT] = {"updated_at", TIMESTAMPTZOID},
};

/* The newest orders that the statement has written: the oldest of them comes first. */
#define MAX_NEWEST	1000

typedef struct Order
{
	TimestampTz updated_at;
	Datum		tenant;
	Datum		order_id;
} Order;

static int
compare_orders(Datum a, Datum b, void *arg)
{
	TimestampTz x = ((Order *) DatumGetPointer(a))->updated_at;
	TimestampTz y = ((Order *) DatumGetPointer(b))->updated_at;

	return x == y ? 0 : x < y ? 1 : -1;
}

/* What a call adds up.  All memory is in the call's context, of SPI. */
typedef struct Count
{
	AttrNumber	columns[NCOLUMNS];
	MemoryContext row_context;	/* for one row */
	sums_hash  *totals;			/* per tenant, currency and status */
	binaryheap *newest;
} Count;

static void
find_columns(Count *count, Relation orders)
{
	TupleDesc	desc = RelationGetDescr(orders);

	for (int i = 0; i < NCOLUMNS; i++)
	{
		int			attnum = SPI_fnumber(desc, order_columns[i].name);
		Oid			type = attnum > 0 ? getBaseType(TupleDescAttr(desc, attnum - 1)->atttypid) : InvalidOid;

		if (type != order_columns[i].type && !(type == VARCHAROID && order_columns[i].type == TEXTOID))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("table %s must have a column \"%s\" of type %s",
							spine_table_name(RelationGetRelid(orders)), order_columns[i].name,
							format_type_be(order_columns[i].type))));
		count->columns[i] = attnum;
	}
}

static Datum
column_of(Count *count, TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, count->columns[column], &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"%s\" of an order must not be null", order_columns[column].name)));
	return value;
}

static const text *
text_of(Count *count, TupleTableSlot *slot, int column)
{
	return DatumGetTextPP(column_of(count, slot, column));
}

static const text *
copy_text(const text *value)
{
	return (const text *) DatumGetPointer(datumCopy(PointerGetDatum(value), false, -1));
}

/* Adds a row to the sum that it belongs to: once, or, if it is no more, minus once. */
static void
add_row(Count *count, TupleTableSlot *slot, bool is_new)
{
	MemoryContext old_context = MemoryContextSwitchTo(count->row_context);
	const text *tenant = text_of(count, slot, TENANT);
	const text *currency = text_of(count, slot, CURRENCY);
	const text *status = text_of(count, slot, STATUS);
	int64		amount = DatumGetInt64(column_of(count, slot, AMOUNT_CENTS));
	TimestampTz updated_at = DatumGetTimestampTz(column_of(count, slot, UPDATED_AT));
	bool		found;
	Sum		   *sum;

	MemoryContextSwitchTo(old_context);
	sum = find_sum(count->totals, tenant, currency, status, &found);
	if (!found)
		for (int i = 0; i < NPARTS; i++)
			sum->key.parts[i] = copy_text(sum->key.parts[i]);

	if (is_new)
	{
		sum->orders++;
		sum->amount += amount;
		sum->newest_new = Max(sum->newest_new, updated_at);
	}
	else
	{
		sum->orders--;
		sum->amount -= amount;
		sum->newest_old = Max(sum->newest_old, updated_at);
	}
}

/* Is it one of the newest? */
static void
list_order(Count *count, TupleTableSlot *slot)
{
	TimestampTz updated_at = DatumGetTimestampTz(column_of(count, slot, UPDATED_AT));
	bool		is_full = count->newest->bh_size == MAX_NEWEST;
	Order	   *order;

	if (!is_full)
		order = palloc(sizeof(Order));
	else
	{
		order = (Order *) DatumGetPointer(binaryheap_first(count->newest));
		if (updated_at <= order->updated_at)
			return;
		pfree(DatumGetPointer(order->tenant));
		pfree(DatumGetPointer(order->order_id));
	}

	order->updated_at = updated_at;
	order->tenant = PointerGetDatum(copy_text(text_of(count, slot, TENANT)));
	order->order_id = PointerGetDatum(copy_text(text_of(count, slot, ORDER_ID)));
	if (is_full)
		binaryheap_replace_first(count->newest, PointerGetDatum(order));
	else
		binaryheap_add(count->newest, PointerGetDatum(order));
}

/* table: a transition table, or NULL. */
static void
add_rows(Count *count, Relation orders, Tuplestorestate *table, bool are_new)
{
	TupleTableSlot *slot;

	if (table == NULL)
		return;
	slot = MakeSingleTupleTableSlot(RelationGetDescr(orders), &TTSOpsMinimalTuple);
	/* other triggers read the table too */
	tuplestore_select_read_pointer(table, tuplestore_alloc_read_pointer(table, EXEC_FLAG_REWIND));
	tuplestore_rescan(table);
	while (tuplestore_gettupleslot(table, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		add_row(count, slot, are_new);
		if (are_new)
			list_order(count, slot);
		MemoryContextReset(count->row_context);
	}
	ExecDropSingleTupleTableSlot(slot);
}

static Datum
numeric_of(int128 value)
{
	const int64 base = INT64CONST(1000000000000000000);
	char		text[64];

	if (value == (int64) value)
		return NumericGetDatum(int64_to_numeric((int64) value));

	/* two orders of magnitude of bigint are enough for as many orders as there can be */
	snprintf(text, sizeof(text), INT64_FORMAT "%018lld", (int64) (value / base),
			 (long long) Abs((int64) (value % base)));
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

static Datum
array_of(Datum *values, int n, Oid type)
{
	switch (type)
	{
		case TEXTOID:
			return PointerGetDatum(construct_array(values, n, type, -1, false, TYPALIGN_INT));
		case NUMERICOID:
			return PointerGetDatum(construct_array(values, n, type, -1, false, TYPALIGN_INT));
		default:
			return PointerGetDatum(construct_array(values, n, type, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}
}

static void
execute(SpineStatement *kept, const char *query, int nargs, Oid *types, Datum *values,
		const char *nulls, int expected)
{
	int			rc = SPI_execute_plan(spine_statement_prepare(kept, query, nargs, types), values, nulls, false, 0);

	if (rc != expected)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
}

/* The statements that add sums to a table: of all of them, with the same arguments. */
#define NARGS		7
#define SLICE		10000		/* sums in one statement */

static void
write_slice(SpineStatement *kept, const char *query, Sum **sums, int n)
{
	Oid			types[NARGS] = {INT4OID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID,
	NUMERICARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		args[NARGS];
	char		nulls[NARGS];
	Datum	   *values = palloc(n * sizeof(Datum));

	memset(nulls, ' ', sizeof(nulls));
	args[0] = Int32GetDatum(session_number());
	for (int part = 0; part < NPARTS; part++)
	{
		if (sums[0]->key.parts[part] == NULL)
		{
			args[1 + part] = (Datum) 0;
			nulls[1 + part] = 'n';
			continue;
		}
		for (int i = 0; i < n; i++)
			values[i] = PointerGetDatum(sums[i]->key.parts[part]);
		args[1 + part] = array_of(values, n, TEXTOID);
	}
	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(sums[i]->orders);
	args[4] = array_of(values, n, INT8OID);
	for (int i = 0; i < n; i++)
		values[i] = numeric_of(sums[i]->amount);
	args[5] = array_of(values, n, NUMERICOID);
	for (int i = 0; i < n; i++)
		values[i] = TimestampTzGetDatum(Max(sums[i]->newest_new, sums[i]->newest_old));
	args[6] = array_of(values, n, TIMESTAMPTZOID);

	execute(kept, query, NARGS, types, args, nulls, SPI_OK_INSERT);
}

/* Writes the sums, or those that change something; returns how many. */
static int
write_sums(SpineStatement *kept, const char *query, sums_hash *sums, bool all)
{
	Sum		  **sorted = palloc_extended(Max(sums->members, 1) * sizeof(Sum *), MCXT_ALLOC_HUGE);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine totals", ALLOCSET_DEFAULT_SIZES);
	sums_iterator iterator;
	Sum		   *sum;
	int			n = 0;

	sums_start_iterate(sums, &iterator);
	while ((sum = sums_iterate(sums, &iterator)) != NULL)
		if (all || !changes_nothing(sum))
			sorted[n++] = sum;
	qsort(sorted, n, sizeof(Sum *), compare_sums);

	for (int i = 0; i < n; i += SLICE)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);

		write_slice(kept, query, sorted + i, Min(SLICE, n - i));
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	return n;
}

static void
write_totals(const Count *count, const char *schema)
{
	static SpineStatement totals_statement;
	static SpineStatement sums_statement;
	static SpineStatement counts_statement;
	sums_hash  *sums = sums_create(CurrentMemoryContext, 8, NULL);
	sums_hash  *counts = sums_create(CurrentMemoryContext, count->totals->members, NULL);
	sums_iterator iterator;
	Sum		   *total;
	bool		has_counts;

	sums_start_iterate(count->totals, &iterator);
	while ((total = sums_iterate(count->totals, &iterator)) != NULL)
	{
		bool		found;
		Sum		   *sum = find_sum(sums, NULL, total->key.parts[CURRENCY], total->key.parts[STATUS], &found);

		sum->orders += total->orders;
		sum->amount += total->amount;
		find_sum(counts, total->key.parts[TENANT], NULL, NULL, &found)->orders += total->orders;
	}

	write_sums(&totals_statement,
			   psprintf("INSERT INTO %s.spine_order_totals AS t"
						" SELECT pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), $1,"
						" pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7)"
						" ON CONFLICT (tenant, currency, status, session) DO UPDATE"
						" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
						" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents,"
						" newest = greatest(t.newest, EXCLUDED.newest)", schema),
			   count->totals, false);
	has_counts = write_sums(&counts_statement,
							psprintf("INSERT INTO %s.spine_order_counts AS t"
									 " SELECT pg_catalog.unnest($2), $1, pg_catalog.unnest($5)"
									 " ON CONFLICT (tenant, session) DO UPDATE"
									 " SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders", schema),
							counts, false) > 0;

	/* every session that has counts has sums: that is how its counts are found */
	write_sums(&sums_statement,
			   psprintf("INSERT INTO %s.spine_order_sums AS t"
						" SELECT pg_catalog.unnest($3), pg_catalog.unnest($4), $1,"
						" pg_catalog.unnest($5), pg_catalog.unnest($6)"
						" ON CONFLICT (currency, status, session) DO UPDATE"
						" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
						" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents", schema),
			   sums, has_counts);
}

/* For a statement that is seldom run. */
static void
execute_once(const char *query, int expected)
{
	int			rc = SPI_execute(query, false, 0);

	if (rc != expected)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
}

/*
 * Rows are only added to the changes, and removed when later ones list enough orders.  Rows
 * that another session removes are left to it, if that is not an error.
 */
static void
cut_changes(const char *schema)
{
	if (IsolationUsesXactSnapshot())
		return;
	execute_once(psprintf("DELETE FROM %1$s.spine_order_changes"
						  " WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
						  " SELECT c.ctid FROM %1$s.spine_order_changes c"
						  " WHERE (c.newest, c.id) OPERATOR(pg_catalog.<) ("
						  " SELECT k.newest, k.id"
						  " FROM (SELECT newest, id, pg_catalog.sum(pg_catalog.cardinality(order_ids))"
						  " OVER (ORDER BY newest DESC, id DESC) AS orders"
						  " FROM %1$s.spine_order_changes) k"
						  " WHERE k.orders OPERATOR(pg_catalog.>=) 10000"
						  " ORDER BY k.newest DESC, k.id DESC LIMIT 1)"
						  " FOR UPDATE SKIP LOCKED))", schema), SPI_OK_DELETE);
}

static void
write_changes(const Count *count, const char *schema)
{
	static SpineStatement statement;
	Oid			types[] = {TIMESTAMPTZOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID};
	char		nulls[] = "     ";
	Datum		args[5];
	int			n = count->newest->bh_size;
	Datum	   *columns[3];
	TimestampTz newest = DT_NOBEGIN;
	bool		isnull;

	for (int i = 0; i < 3; i++)
		columns[i] = palloc(n * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		const Order *order = (Order *) DatumGetPointer(count->newest->bh_nodes[i]);

		columns[0][i] = order->tenant;
		columns[1][i] = order->order_id;
		columns[2][i] = TimestampTzGetDatum(order->updated_at);
		newest = Max(newest, order->updated_at);
	}
	args[0] = TimestampTzGetDatum(newest);
	args[1] = array_of(columns[0], n, TEXTOID);
	args[2] = array_of(columns[1], n, TEXTOID);
	args[3] = array_of(columns[2], n, TIMESTAMPTZOID);
	args[4] = columns[2][0];
	if (n < MAX_NEWEST)
		nulls[4] = 'n';

	execute(&statement,
			psprintf("INSERT INTO %s.spine_order_changes (newest, tenants, order_ids, updated_at, since)"
					 " VALUES ($1, $2, $3, $4, $5) RETURNING id", schema),
			lengthof(args), types, args, nulls, SPI_OK_INSERT_RETURNING);
	if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) % 256 == 0)
		cut_changes(schema);
}

/* The rows of the session that it has begun while old snapshots were there: into one each. */
static void
add_up(const char *schema)
{
	static const char *const statements[] = {
		"WITH mine AS (DELETE FROM %1$s.spine_order_totals"
		" WHERE session OPERATOR(pg_catalog.>) %3$d AND session OPERATOR(pg_catalog.%%) %4$d OPERATOR(pg_catalog.=) %2$d"
		" RETURNING *)"
		" INSERT INTO %1$s.spine_order_totals AS t"
		" SELECT m.tenant, m.currency, m.status, %2$d, pg_catalog.sum(m.orders), pg_catalog.sum(m.amount_cents), pg_catalog.max(m.newest)"
		" FROM mine m GROUP BY 1, 2, 3"
		" ON CONFLICT (tenant, currency, status, session) DO UPDATE"
		" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
		" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents,"
		" newest = greatest(t.newest, EXCLUDED.newest)",

		"WITH mine AS (DELETE FROM %1$s.spine_order_sums"
		" WHERE session OPERATOR(pg_catalog.>) %3$d AND session OPERATOR(pg_catalog.%%) %4$d OPERATOR(pg_catalog.=) %2$d"
		" RETURNING *)"
		" INSERT INTO %1$s.spine_order_sums AS t"
		" SELECT m.currency, m.status, %2$d, pg_catalog.sum(m.orders), pg_catalog.sum(m.amount_cents)"
		" FROM mine m GROUP BY 1, 2"
		" ON CONFLICT (currency, status, session) DO UPDATE"
		" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
		" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents",

		"WITH mine AS (DELETE FROM %1$s.spine_order_counts"
		" WHERE session OPERATOR(pg_catalog.>) %3$d AND session OPERATOR(pg_catalog.%%) %4$d OPERATOR(pg_catalog.=) %2$d"
		" RETURNING *)"
		" INSERT INTO %1$s.spine_order_counts AS t"
		" SELECT m.tenant, %2$d, pg_catalog.sum(m.orders)"
		" FROM mine m GROUP BY 1"
		" ON CONFLICT (tenant, session) DO UPDATE"
		" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders",
	};

	for (int i = 0; i < (int) lengthof(statements); i++)
		execute_once(psprintf(statements[i], schema, session_number(), NUMBERS - 1, NUMBERS), SPI_OK_INSERT);
}

static const char *const tables[] = {
	"spine_order_totals", "spine_order_sums", "spine_order_counts", "spine_order_changes"
};

static void
empty_tables(const char *schema)
{
	/* an older snapshot would not show all rows to delete */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot truncate current_orders in a transaction with isolation level %s",
						GetConfigOption("transaction_isolation", false, false)),
				 errhint("Use a transaction with isolation level READ COMMITTED.")));
	for (int i = 0; i < (int) lengthof(tables); i++)
		execute_once(psprintf("DELETE FROM %s.%s", schema, tables[i]), SPI_OK_DELETE);
}

/*
 * Nobody else's code runs with our rights: no table has triggers but our own.  Each is
 * locked before that is looked at, so that nobody adds one afterwards.
 */
static void
check_tables(char *schema)
{
	for (int i = 0; i < (int) lengthof(tables); i++)
	{
		Relation	rel = table_openrv(makeRangeVar(schema, pstrdup(tables[i]), -1), RowExclusiveLock);

		if (rel->trigdesc)
			spine_own_tables_check(RelationGetRelid(rel));
		table_close(rel, NoLock);
	}
}

static bool
is_own_trigger(const TriggerData *trigger, Oid namespace)
{
	TriggerEvent event = trigger->tg_event;
	const char *name = TRIGGER_FIRED_BY_INSERT(event) ? "spine_count_inserted" :
		TRIGGER_FIRED_BY_UPDATE(event) ? "spine_count_updated" :
		TRIGGER_FIRED_BY_DELETE(event) ? "spine_count_deleted" : "spine_count_truncated";
	bool		has_new = TRIGGER_FIRED_BY_INSERT(event) || TRIGGER_FIRED_BY_UPDATE(event);
	bool		has_old = TRIGGER_FIRED_BY_DELETE(event) || TRIGGER_FIRED_BY_UPDATE(event);

	return RelationGetRelid(trigger->tg_relation) == get_relname_relid("current_orders", namespace) &&
		strcmp(trigger->tg_trigger->tgname, name) == 0 &&
		TRIGGER_FIRED_FOR_STATEMENT(event) && TRIGGER_FIRED_AFTER(event) &&
		has_new == (trigger->tg_newtable != NULL) && has_old == (trigger->tg_oldtable != NULL);
}

static bool
is_empty(Tuplestorestate *table)
{
	return table == NULL || tuplestore_tuple_count(table) == 0;
}

static void
count_rows(const TriggerData *trigger, const char *schema)
{
	Relation	orders = trigger->tg_relation;
	Count		count = {.row_context = AllocSetContextCreate(CurrentMemoryContext, "spine order",
															  ALLOCSET_SMALL_SIZES)};

	if (is_time_to_add_up())
		add_up(schema);
	find_columns(&count, orders);
	count.totals = sums_create(CurrentMemoryContext, 8, NULL);
	count.newest = binaryheap_allocate(MAX_NEWEST, compare_orders, NULL);
	add_rows(&count, orders, trigger->tg_newtable, true);
	add_rows(&count, orders, trigger->tg_oldtable, false);
	write_totals(&count, schema);
	if (!binaryheap_empty(count.newest))
		write_changes(&count, schema);
}

/* The trigger function of current_orders. */
Datum
spine_count_orders(PG_FUNCTION_ARGS)
{
	const TriggerData *trigger = (const TriggerData *) fcinfo->context;
	bool		is_truncate;
	Oid			namespace;
	char	   *name;
	const char *schema;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("spine_count_orders must be called as a trigger")));

	namespace = get_func_namespace(fcinfo->flinfo->fn_oid);
	if (!is_own_trigger(trigger, namespace))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" of table %s is not one of spine's own and must not run spine_count_orders",
						trigger->tg_trigger->tgname,
						spine_table_name(RelationGetRelid(trigger->tg_relation))),
				 errhint("Drop the trigger.")));

	is_truncate = TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event);
	if (!is_truncate && is_empty(trigger->tg_newtable) && is_empty(trigger->tg_oldtable))
		return PointerGetDatum(NULL);

	SPI_connect();
	name = get_namespace_name(namespace);
	schema = quote_identifier(name);
	check_tables(name);
	if (is_truncate)
		empty_tables(schema);
	else
		count_rows(trigger, schema);
	SPI_finish();
	return PointerGetDatum(NULL);
}

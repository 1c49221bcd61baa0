/*
 * totals.c
 *		The trigger function of current_orders, which keeps the totals and the list of the
 *		newest orders.
 *
 * It runs with the rights of the extension's owner: a role that may change orders need not
 * have the right to change the totals.
 */
#include "compat.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/own_tables.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "orders/changes.h"
#include "orders/session.h"
#include "orders/sums.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(spine_count_orders);

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

static void
find_columns(AttrNumber *columns, Relation orders)
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
		columns[i] = attnum;
	}
}

static Datum
column_of(const AttrNumber *columns, TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, columns[column], &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"%s\" of an order must not be null", order_columns[column].name)));
	return value;
}

static const text *
text_of(const AttrNumber *columns, TupleTableSlot *slot, int column)
{
	return DatumGetTextPP(column_of(columns, slot, column));
}

/* table: a transition table, or NULL. */
static void
read_orders(Relation orders, Tuplestorestate *table, bool are_new, SpineSums *sums, SpineChanges *changes)
{
	AttrNumber	columns[NCOLUMNS];
	MemoryContext context;
	TupleTableSlot *slot;

	if (table == NULL)
		return;
	find_columns(columns, orders);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(orders), &TTSOpsMinimalTuple);
	context = AllocSetContextCreate(CurrentMemoryContext, "spine order", ALLOCSET_SMALL_SIZES);

	/* other triggers read the table too */
	tuplestore_select_read_pointer(table, tuplestore_alloc_read_pointer(table, EXEC_FLAG_REWIND));
	tuplestore_rescan(table);
	while (tuplestore_gettupleslot(table, true, false, slot))
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);
		SpineOrder	order = {
			.tenant = text_of(columns, slot, TENANT),
			.order_id = text_of(columns, slot, ORDER_ID),
			.status = text_of(columns, slot, STATUS),
			.currency = text_of(columns, slot, CURRENCY),
			.amount_cents = DatumGetInt64(column_of(columns, slot, AMOUNT_CENTS)),
			.updated_at = DatumGetTimestampTz(column_of(columns, slot, UPDATED_AT)),
		};

		MemoryContextSwitchTo(old_context);
		CHECK_FOR_INTERRUPTS();
		spine_sums_add(sums, &order, are_new);
		if (are_new)
			spine_changes_add(changes, &order);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
}

/* The tables that the triggers write. */
enum
{
	TOTALS, SUMS, COUNTS, CHANGES, NTABLES
};

static const char *const tables[NTABLES] = {
	[TOTALS] = "spine_order_totals",
	[SUMS] = "spine_order_sums",
	[COUNTS] = "spine_order_counts",
	[CHANGES] = "spine_order_changes",
};

/*
 * Nobody else's code runs with our rights: no table has triggers but our own.  Each is
 * locked before that is looked at, so that nobody adds one afterwards.
 */
static void
open_tables(Relation *relations, Oid namespace)
{
	for (int i = 0; i < NTABLES; i++)
	{
		Oid			table = get_relname_relid(tables[i], namespace);

		if (!OidIsValid(table))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table %s does not exist",
							quote_qualified_identifier(get_namespace_name(namespace), tables[i]))));
		relations[i] = table_open(table, RowExclusiveLock);
		if (relations[i]->trigdesc)
			spine_own_tables_check(table);
	}
}

/* The locks are kept. */
static void
close_tables(Relation *relations)
{
	for (int i = 0; i < NTABLES; i++)
		table_close(relations[i], NoLock);
}

static void
empty_tables(Oid namespace)
{
	const char *schema;

	/* an older snapshot would not show all rows to delete */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot truncate current_orders in a transaction with isolation level %s",
						GetConfigOption("transaction_isolation", false, false)),
				 errhint("Use a transaction with isolation level READ COMMITTED.")));
	SPI_connect();
	schema = quote_identifier(get_namespace_name(namespace));
	for (int i = 0; i < NTABLES; i++)
	{
		int			rc = SPI_execute(psprintf("DELETE FROM %s.%s", schema, tables[i]), false, 0);

		if (rc != SPI_OK_DELETE)
			elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	}
	SPI_finish();
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

/* Returns whether it is time to cut the changes. */
static bool
write_tables(const SpineSums *sums, const SpineChanges *changes, Relation *relations)
{
	bool		is_time_to_cut;

	/* sees what this transaction has written, and what others have until now */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	spine_sums_write(sums, relations[TOTALS], relations[SUMS], relations[COUNTS]);
	is_time_to_cut = spine_changes_write(changes, relations[CHANGES]);
	PopActiveSnapshot();
	CommandCounterIncrement();
	return is_time_to_cut;
}

static void
count_orders(const TriggerData *trigger, Oid namespace, Relation *relations)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine orders", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	SpineSums  *sums = spine_sums_make();
	SpineChanges *changes = spine_changes_make();

	spine_session_add_up(namespace);
	read_orders(trigger->tg_relation, trigger->tg_newtable, true, sums, changes);
	read_orders(trigger->tg_relation, trigger->tg_oldtable, false, sums, changes);
	if (write_tables(sums, changes, relations))
		spine_changes_cut(namespace);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

/* The trigger function of current_orders. */
Datum
spine_count_orders(PG_FUNCTION_ARGS)
{
	const TriggerData *trigger = (const TriggerData *) fcinfo->context;
	bool		is_truncate;
	Oid			namespace;
	Relation	relations[NTABLES];

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

	open_tables(relations, namespace);
	if (is_truncate)
		empty_tables(namespace);
	else
		count_orders(trigger, namespace, relations);
	close_tables(relations);
	return PointerGetDatum(NULL);
}

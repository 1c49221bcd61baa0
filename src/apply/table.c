/*
 * table.c
 *		Reads the description of a sink's target from the system catalog.
 *
 * A target is a table, or a view that PostgreSQL itself makes writable.  Such a view has the
 * defaults of the table below it, but an INSERT that names a column does not use them; so
 * they are looked up.
 */
#include "apply/table.h"

#include "access/relation.h"
#include "access/xact.h"
#include "apply/view.h"
#include "catalog/own_tables.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteHandler.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(spine_check_target);

/*
 * An identity column has its sequence as default.  No default names a column; if pg_get_expr
 * were told the table, it would look at all pairs of the table's columns each time.
 */
static const char *const columns_query =
"SELECT c.relowner, a.attnum, a.attname::pg_catalog.text, a.atttypid, a.atttypmod, a.attcollation,"
" a.attgenerated <> '', a.attidentity = 'a',"
" CASE WHEN a.attidentity <> '' THEN"
"  pg_catalog.format('pg_catalog.nextval(%L)', pg_catalog.pg_get_serial_sequence("
"   c.oid::pg_catalog.regclass::pg_catalog.text, a.attname))"
" WHEN a.attgenerated = '' THEN"
"  coalesce(pg_catalog.pg_get_expr(d.adbin, 0),"
"           pg_catalog.pg_get_expr(t.typdefaultbin, 0),"
"           pg_catalog.quote_literal(t.typdefault)) END,"
" NOT a.attnotnull OR EXISTS (SELECT FROM pg_catalog.pg_trigger b"
"  WHERE (b.tgrelid = c.oid OR b.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)))"
"   AND b.tgtype & 7 = 7 AND b.tgenabled <> 'D')"	/* BEFORE INSERT ... FOR EACH ROW */
" FROM pg_catalog.pg_class c"
" JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
" JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
" LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum"
" WHERE c.oid = $1"
" ORDER BY a.attnum";

static Datum
binary_value(HeapTuple tuple, int column)
{
	bool		isnull;

	return SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, &isnull);
}

pg_noreturn static void
refuse_missing(Oid target)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("the target of a sink does not exist any more"),
			 errdetail("In spine_sinks, its \"target\" is %u.", target),
			 errhint("Create the table again and set \"target\" in spine_sinks, or delete the sink.")));
}

/* A view must be one that PostgreSQL makes writable, and nobody's code does. */
static void
check_view(Relation view, const Query *query)
{
	const char *reason = view_query_is_auto_updatable((Query *) query, true);
	const TriggerDesc *triggers = view->trigdesc;

	if (triggers && (triggers->trig_insert_instead_row || triggers->trig_update_instead_row))
		reason = "It has an INSTEAD OF trigger.";
	else if (view->rd_rules->numLocks > 1)
		reason = "It has a rule.";
	if (reason)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("view %s cannot be a target: PostgreSQL does not insert into it by itself",
						spine_table_name(RelationGetRelid(view))),
				 errdetail_internal("%s", reason),
				 errhint("Name a table.")));
}

/* Raises an error unless it is a table, or a view that PostgreSQL makes writable. */
static void
check_relation(Oid target)
{
	Relation	relation = try_relation_open(target, AccessShareLock);

	if (relation == NULL)
		refuse_missing(target);
	if (relation->rd_rel->relkind == RELKIND_VIEW)
		check_view(relation, get_view_query(relation));
	else if (relation->rd_rel->relkind != RELKIND_RELATION &&
			 relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s cannot be a target: it is neither a table nor a view", spine_table_name(target)),
				 errhint("Name a table, a partitioned table, or a view of one table.")));
	relation_close(relation, NoLock);
}

/* spine_check_target(target regclass) */
Datum
spine_check_target(PG_FUNCTION_ARGS)
{
	for (Oid target = PG_GETARG_OID(0); OidIsValid(target); target = spine_view_below(target))
		check_relation(target);
	PG_RETURN_VOID();
}

/* What the catalog says of the relation itself. */
static SpineTable *
read_relation(Oid oid)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(oid)};
	SpineTable *table;

	SPI_execute_with_args(columns_query, 1, types, args, NULL, false, 0);
	MemoryContextSwitchTo(context);		/* SPI leaves its own behind */
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table %s has no columns", spine_table_name(oid))));

	table = palloc0(sizeof(SpineTable));
	table->name = spine_table_name(oid);
	table->owner = DatumGetObjectId(binary_value(SPI_tuptable->vals[0], 1));
	table->ncolumns = SPI_processed;
	table->columns = palloc0(SPI_processed * sizeof(SpineTableColumn));
	for (int i = 0; i < table->ncolumns; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		SpineTableColumn *column = &table->columns[i];

		column->number = DatumGetInt16(binary_value(tuple, 2));
		column->name = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 3);
		column->type = DatumGetObjectId(binary_value(tuple, 4));
		column->typmod = DatumGetInt32(binary_value(tuple, 5));
		column->collation = DatumGetObjectId(binary_value(tuple, 6));
		column->is_generated = DatumGetBool(binary_value(tuple, 7));
		column->is_identity = DatumGetBool(binary_value(tuple, 8));
		column->default_expr = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 9);
		column->takes_null = DatumGetBool(binary_value(tuple, 10));
	}
	SPI_freetuptable(SPI_tuptable);
	return table;
}

/* Adds to a view's column what is known of its column below. */
static void
merge_below(SpineTableColumn *column, const SpineTable *below, AttrNumber number)
{
	column->is_generated = true;
	for (int i = 0; i < below->ncolumns; i++)
	{
		const SpineTableColumn *from = &below->columns[i];

		if (from->number != number)
			continue;
		column->is_generated = from->is_generated;
		column->is_identity = from->is_identity;
		column->takes_null = from->takes_null;
		if (column->default_expr == NULL)
			column->default_expr = from->default_expr;
	}
}

SpineTable *
spine_table_look_up(Oid target)
{
	SpineTable *table;
	SpineTable *below;
	Oid			below_oid;

	Assert(IsTransactionState());
	check_stack_depth();
	check_relation(target);
	table = read_relation(target);
	below_oid = spine_view_below(target);
	if (OidIsValid(below_oid))
	{
		below = spine_table_look_up(below_oid);
		for (int i = 0; i < table->ncolumns; i++)
			merge_below(&table->columns[i], below, spine_view_column_below(target, table->columns[i].number));
	}
	return table;
}

const SpineTableColumn *
spine_table_find_column(const SpineTable *table, const char *name)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (strcmp(table->columns[i].name, name) == 0)
			return &table->columns[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table %s does not exist", name, table->name),
			 errhint("Add the column, or take it out of \"columns\" in spine_sinks.")));
}

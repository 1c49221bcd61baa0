/*
 * table.c
 *		Reads the description of a table from the system catalog.
 */
#include "apply/table.h"

#include "access/xact.h"
#include "catalog/own_tables.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"

/*
 * An identity column that may be written has its sequence as default.  No default names
 * a column; if pg_get_expr were told the table, it would look at all pairs of the table's
 * columns each time.
 */
static const char *const columns_query =
"SELECT c.relowner, a.attname::pg_catalog.text, a.atttypid, a.atttypmod, a.attcollation,"
" a.attgenerated <> '' OR a.attidentity = 'a',"
" CASE WHEN a.attidentity = 'd' THEN"
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
" WHERE c.oid = $1 AND c.relkind IN ('r', 'p', 'v')"
" ORDER BY a.attnum";

static Datum
binary_value(HeapTuple tuple, int column)
{
	bool		isnull;

	return SPI_getbinval(tuple, SPI_tuptable->tupdesc, column, &isnull);
}

SpineTable *
spine_table_look_up(Oid oid)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(oid)};
	SpineTable *table;

	Assert(IsTransactionState());
	SPI_execute_with_args(columns_query, 1, types, args, NULL, false, 0);
	MemoryContextSwitchTo(context);		/* SPI leaves its own behind */
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("target with OID %u of a sink does not exist, or is not a table", oid),
				 errhint("Create the table again and set \"target\" in spine_sinks, or delete the sink.")));

	table = palloc0(sizeof(SpineTable));
	table->name = spine_table_name(oid);
	table->owner = DatumGetObjectId(binary_value(SPI_tuptable->vals[0], 1));
	table->ncolumns = SPI_processed;
	table->columns = palloc0(SPI_processed * sizeof(SpineTableColumn));
	for (int i = 0; i < table->ncolumns; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		SpineTableColumn *column = &table->columns[i];

		column->name = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2);
		column->type = DatumGetObjectId(binary_value(tuple, 3));
		column->typmod = DatumGetInt32(binary_value(tuple, 4));
		column->collation = DatumGetObjectId(binary_value(tuple, 5));
		column->is_generated = DatumGetBool(binary_value(tuple, 6));
		column->default_expr = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 7);
		column->takes_null = DatumGetBool(binary_value(tuple, 8));
	}
	SPI_freetuptable(SPI_tuptable);
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

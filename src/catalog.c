/*
 * catalog.c
 *		Reads the tables spine_pipelines and spine_sinks, and tells the others
 *		when they change.
 */
#include "catalog.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "settings.h"
#include "shared.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"


PG_FUNCTION_INFO_V1(spine_catalog_changed);

/* The row of pg_extension; false: the extension is not there. */
static bool
find_extension(FormData_pg_extension *found)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("spine"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		memcpy(found, GETSTRUCT(tuple), offsetof(FormData_pg_extension, extrelocatable));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

char *
spine_extension_schema(void)
{
	FormData_pg_extension extension;
	char	   *name;

	if (!find_extension(&extension))
		return NULL;
	name = get_namespace_name(extension.extnamespace);
	return name ? pstrdup(quote_identifier(name)) : NULL;
}

Oid
spine_extension_table(const char *name)
{
	FormData_pg_extension extension;
	Oid			table = InvalidOid;

	if (find_extension(&extension))
		table = get_relname_relid(name, extension.extnamespace);
	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the extension spine has no table %s", name)));
	return table;
}

bool
spine_owns_extension(void)
{
	FormData_pg_extension extension;

	return find_extension(&extension) && has_privs_of_role(GetUserId(), extension.extowner);
}

/* Column `column` (from 1) of row `row` as text in the caller's context, or NULL. */
static char *
text_value(uint64 row, int column, MemoryContext context)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

static Datum
binary_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* A text[] of the row as C strings; returns how many. */
static int
string_list(uint64 row, int column, MemoryContext context, char ***strings)
{
	bool		isnull;
	Datum		array = binary_value(row, column, &isnull);
	Datum	   *elements;
	int			n;

	*strings = NULL;
	if (isnull)
		return 0;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &n);
	*strings = MemoryContextAllocZero(context, Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		(*strings)[i] = MemoryContextStrdup(context, TextDatumGetCString(elements[i]));
	return n;
}

static void
read_sink(SpineSink *sink, uint64 row, MemoryContext context)
{
	bool		isnull;
	char	   *mode = text_value(row, 2, context);
	char	  **names;
	char	  **sources;

	sink->target = DatumGetObjectId(binary_value(row, 1, &isnull));
	sink->mode = strcmp(mode, "upsert") == 0 ? SPINE_UPSERT : SPINE_APPEND;
	sink->nkeys = string_list(row, 3, context, &sink->keys);
	sink->version = text_value(row, 4, context);

	sink->ncolumns = string_list(row, 5, context, &names);
	(void) string_list(row, 6, context, &sources);
	sink->columns = MemoryContextAllocZero(context, Max(sink->ncolumns, 1) * sizeof(SpineColumnMap));
	for (int i = 0; i < sink->ncolumns; i++)
	{
		sink->columns[i].column = names[i];
		sink->columns[i].source = sources[i];
	}
}

SpinePipeline *
spine_load_pipeline(const char *schema, const NameData *name)
{
	Oid			types[1] = {NAMEOID};
	Datum		args[1] = {NameGetDatum(name)};
	MemoryContext context;
	SpinePipeline *pipeline;
	bool		isnull;
	char	   *query;

	query = psprintf("SELECT topic, owner::pg_catalog.oid, start = 'latest'"
					 " FROM %s.spine_pipelines WHERE name = $1 AND enabled", schema);
	SPI_execute_with_args(query, 1, types, args, NULL, true, 1);
	if (SPI_processed == 0)
		return NULL;

	/* below SPI's until it is whole, so that an error frees it */
	context = AllocSetContextCreate(CurrentMemoryContext, "spine pipeline", ALLOCSET_SMALL_SIZES);
	pipeline = MemoryContextAllocZero(context, sizeof(SpinePipeline));
	pipeline->context = context;
	pipeline->name = *name;
	pipeline->topic = text_value(0, 1, context);
	if (pipeline->topic == NULL)
		pipeline->topic = MemoryContextStrdup(context, spine_topic);
	pipeline->owner = DatumGetObjectId(binary_value(0, 2, &isnull));
	pipeline->starts_at_latest = DatumGetBool(binary_value(0, 3, &isnull));

	query = psprintf("SELECT s.target::pg_catalog.oid, s.mode, s.key::pg_catalog.text[], s.version,"
					 " (SELECT pg_catalog.array_agg(c.key ORDER BY c.key)"
					 "  FROM pg_catalog.jsonb_each_text(s.columns) c),"
					 " (SELECT pg_catalog.array_agg(coalesce(c.value, c.key) ORDER BY c.key)"
					 "  FROM pg_catalog.jsonb_each_text(s.columns) c)"
					 " FROM %s.spine_sinks s WHERE s.pipeline = $1 ORDER BY s.mode, s.target", schema);
	SPI_execute_with_args(query, 1, types, args, NULL, true, 0);
	pipeline->nsinks = SPI_processed;
	pipeline->sinks = MemoryContextAllocZero(context, Max(SPI_processed, 1) * sizeof(SpineSink));
	for (uint64 i = 0; i < SPI_processed; i++)
		read_sink(&pipeline->sinks[i], i, context);

	MemoryContextSetParent(context, TopMemoryContext);
	return pipeline;
}

/*
 * Was the catalog changed in this transaction?  The others are told once it is
 * committed, not before: they would still read the old rows.
 */
static bool catalog_changed = false;

static void
tell_after_commit(XactEvent event, void *arg)
{
	if (!catalog_changed)
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			spine_request_probe(MyDatabaseId);
			catalog_changed = false;
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has changed the catalog of spine")));
			break;
		case XACT_EVENT_ABORT:
			catalog_changed = false;
			break;
		default:
			break;
	}
}

Datum
spine_catalog_changed(PG_FUNCTION_ARGS)
{
	static bool registered = false;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("spine_catalog_changed: not called by trigger manager")));

	if (!registered)
	{
		RegisterXactCallback(tell_after_commit, NULL);
		registered = true;
	}
	catalog_changed = true;
	PG_RETURN_POINTER(NULL);
}

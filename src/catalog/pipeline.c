/*
 * pipeline.c
 *		Reads the tables spine_pipelines and spine_sinks, and says which topic a pipeline
 *		reads.
 */
#include "catalog/pipeline.h"

#include "access/xact.h"
#include "catalog/mapping.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(spine_pipeline_topic);

char	   *spine_topic = NULL;

static bool
check_topic(char **newval, void **extra, GucSource source)
{
	static const char legal[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t		len = strlen(*newval);

	if (len >= 1 && len <= 249 && strspn(*newval, legal) == len &&
		strcmp(*newval, ".") != 0 && strcmp(*newval, "..") != 0)
		return true;

	GUC_check_errdetail("A topic name has 1 to 249 ASCII letters, digits, \".\", \"_\" and \"-\".");
	return false;
}

void
spine_pipeline_settings_init(void)
{
	DefineCustomStringVariable("spine.topic",
							   "The topic that spine_produce writes to and that pipelines without a topic read.",
							   NULL,
							   &spine_topic, "events",
							   PGC_SUSET, 0,
							   check_topic, NULL, NULL);
}

/* Column `column` (from 1) of row `row` as text, or NULL. */
static char *
text_value(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static Datum
binary_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* A text[] of the row as C strings; returns how many. */
static int
string_list(uint64 row, int column, char ***strings)
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
	*strings = palloc0(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		(*strings)[i] = TextDatumGetCString(elements[i]);
	return n;
}

static void
read_sink(SpineSinkDefinition *sink, uint64 row)
{
	bool		isnull;
	Datum		columns;

	sink->target = DatumGetObjectId(binary_value(row, 1, &isnull));
	sink->mode = text_value(row, 2);
	sink->nkeys = string_list(row, 3, &sink->keys);
	sink->version = text_value(row, 4);

	columns = binary_value(row, 5, &isnull);
	if (!isnull)
		sink->mappings = spine_mapping_read(DatumGetJsonbP(columns), &sink->nmappings);
	sink->filter = text_value(row, 6);
}

const char *
spine_pipeline_topic_or_default(const char *topic)
{
	return topic ? topic : spine_topic;
}

Datum
spine_pipeline_topic(PG_FUNCTION_ARGS)
{
	const char *topic = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text(spine_pipeline_topic_or_default(topic)));
}

/* condition: on spine_pipelines p */
static SpinePipeline *
load(const char *schema, const NameData *name, const char *condition)
{
	Oid			types[1] = {NAMEOID};
	Datum		args[1] = {NameGetDatum(name)};
	MemoryContext context;
	MemoryContext old_context;
	SpinePipeline *pipeline;
	bool		isnull;
	char	   *query;

	Assert(IsTransactionState());

	/* until ALTER EXTENSION UPDATE, the tables may be without the columns taken by to_jsonb */
	query = psprintf("SELECT p.topic, p.owner::pg_catalog.oid, p.start = 'latest',"
					 " pg_catalog.to_jsonb(p) ->> 'server'"
					 " FROM %s.spine_pipelines p WHERE p.name = $1 AND %s", schema, condition);
	SPI_execute_with_args(query, 1, types, args, NULL, true, 1);
	if (SPI_processed == 0)
		return NULL;

	/* below SPI's until it is whole, so that an error frees it */
	context = AllocSetContextCreate(CurrentMemoryContext, "spine pipeline", ALLOCSET_SMALL_SIZES);
	pipeline = MemoryContextAllocZero(context, sizeof(SpinePipeline));
	pipeline->context = context;
	pipeline->name = *name;
	pipeline->topic = MemoryContextStrdup(context, spine_pipeline_topic_or_default(text_value(0, 1)));
	pipeline->owner = DatumGetObjectId(binary_value(0, 2, &isnull));
	pipeline->starts_at_latest = DatumGetBool(binary_value(0, 3, &isnull));
	if (text_value(0, 4))
		pipeline->server = MemoryContextStrdup(context, text_value(0, 4));

	query = psprintf("SELECT s.target::pg_catalog.oid, s.mode, s.key::pg_catalog.text[], s.version,"
					 " s.columns, pg_catalog.to_jsonb(s) ->> 'filter'"
					 " FROM %s.spine_sinks s WHERE s.pipeline = $1"
					 " ORDER BY (pg_catalog.to_jsonb(s) ->> 'ordinal')::integer, s.mode, s.target", schema);
	SPI_execute_with_args(query, 1, types, args, NULL, true, 0);
	old_context = MemoryContextSwitchTo(context);
	pipeline->nsinks = SPI_processed;
	pipeline->sinks = palloc0(Max(SPI_processed, 1) * sizeof(SpineSinkDefinition));
	for (uint64 i = 0; i < SPI_processed; i++)
		read_sink(&pipeline->sinks[i], i);
	MemoryContextSwitchTo(old_context);

	MemoryContextSetParent(context, TopMemoryContext);
	return pipeline;
}

SpinePipeline *
spine_pipeline_load(const char *schema, const NameData *name)
{
	return load(schema, name, "p.enabled");
}

SpinePipeline *
spine_pipeline_load_any(const char *schema, const NameData *name)
{
	return load(schema, name, "true");
}

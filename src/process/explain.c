/*
 * explain.c
 *		spine_explain: what becomes of a pipeline's records, as text.
 */
#include "compat.h"

#include "apply/plan.h"
#include "apply/role.h"
#include "catalog/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "process/own_pipeline.h"
#include "process/settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(spine_explain);

/* Where a column's values come from.  place NULL: from the key of its name. */
static void
explain_column(const SpineSink *sink, const SpineColumn *column, const char *place, StringInfo text)
{
	if (column->source == SPINE_FROM_EXPRESSION)
	{
		spine_projection_explain(sink->projection, column->expression, text);
		return;
	}
	appendStringInfo(text, "  column %s: from %s\n", quote_identifier(column->name),
					 place ? place : column->name);
}

/* How the sink's rows are written; NULL: by its statement. */
static const char *
explain_writer(SpineSink *sink)
{
	SpineRole	saved;
	SpineSinkWriter *writer;
	const char *result;

	spine_role_assume(&saved, sink->run_as);
	writer = sink->kind->begin ? sink->kind->begin(sink) : NULL;
	result = writer ? sink->kind->explain(writer) : NULL;
	spine_role_resume(&saved);
	return result;
}

static void
explain_sink(SpineSink *sink, const SpineSinkDefinition *definition, StringInfo text)
{
	const char *rows;

	appendStringInfo(text, "sink %s: %s, as role %s\n", sink->table_name, sink->kind->mode,
					 quote_identifier(GetUserNameFromId(sink->run_as, false)));
	if (sink->projection)
		spine_projection_explain(sink->projection, -1, text);
	for (int i = 0; i < sink->ncolumns; i++)
		explain_column(sink, &sink->columns[i],
					   definition->mappings ? definition->mappings[i].place : NULL, text);
	rows = explain_writer(sink);
	if (rows)
		appendStringInfo(text, "  rows: %s\n", rows);
	appendStringInfo(text, "  statement: %s\n", sink->sql[SPINE_SINK_PLAIN]);
}

/* spine_explain(pipeline name) */
Datum
spine_explain(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StringInfoData text;
	SpinePipeline *pipeline;
	SpinePlan  *plan;
	bool		isnull = false;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	initStringInfo(&text);
	SPI_connect();
	/* making a plan locks the tables that it is about */
	pipeline = spine_own_pipeline_load(spine_extension_schema(), PG_GETARG_NAME(0), "explain");
	plan = spine_plan_make(pipeline, (size_t) spine_max_record_memory_kb * 1024);
	MemoryContextSetParent(plan->context, CurrentMemoryContext);
	for (int i = 0; i < plan->nsinks; i++)
		explain_sink(&plan->sinks[i], &pipeline->sinks[i], &text);
	SPI_finish();

	for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n"))
	{
		Datum		value = CStringGetTextDatum(line);

		tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
	}
	return (Datum) 0;
}

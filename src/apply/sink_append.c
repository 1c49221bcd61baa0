/*
 * sink_append.c
 *		Sinks of mode "append": each event is a new row.
 *
 * With a key, a row that is there already can be recognized, and skipped.  That costs twice
 * as much as a plain INSERT, so it is done only when the plain one has found such a row.
 * Without a key nothing says which rows are the same.
 *
 * Rows are written as they come, without a statement, if PostgreSQL would do nothing else with
 * a plain INSERT than write them.
 */
#include "apply/sink.h"

#include "apply/plain_statement.h"
#include "apply/rows.h"
#include "apply/table_insert.h"
#include "utils/memutils.h"
#include "utils/rls.h"

struct SpineSinkWriter
{
	const SpineSink *sink;

	/* of one row, by column */
	Datum	   *values;
	bool	   *nulls;
	bool	   *missing;
};

static void
write_statement(StringInfo sql, const SpineSink *sink, SpineSinkStatement which, const bool *left_out)
{
	if (which != SPINE_SINK_PLAIN && which != SPINE_SINK_SKIP_EXISTING)
		return;
	spine_sink_append_insert(sql, sink, left_out);
	if (which == SPINE_SINK_PLAIN || sink->nkeys == 0)
		return;
	appendStringInfoString(sql, " ON CONFLICT (");
	spine_sink_append_keys(sql, sink);
	appendStringInfoString(sql, ") DO NOTHING");
}

/* Finds out whether the rows can be written without a statement. */
static void
find_target(SpineSink *sink)
{
	AttrNumber *columns = palloc(sink->ncolumns * sizeof(AttrNumber));
	MemoryContext old_context;
	Oid			arbiter;

	for (int i = 0; i < sink->ncolumns; i++)
		columns[i] = sink->columns[i].number;
	if (spine_statement_is_plain(sink, &arbiter))
	{
		old_context = MemoryContextSwitchTo(sink->context);
		sink->target = spine_row_target_make(sink->table, columns, sink->ncolumns);
		MemoryContextSwitchTo(old_context);
	}
	sink->knows_target = true;
}

static SpineSinkWriter *
begin(SpineSink *sink)
{
	SpineSinkWriter *writer;

	if (!sink->knows_target)
		find_target(sink);

	/* row security may begin to apply to a role without a change of the table */
	if (sink->target == NULL || check_enable_rls(sink->table, InvalidOid, true) == RLS_ENABLED)
		return NULL;
	writer = palloc(sizeof(SpineSinkWriter));
	writer->sink = sink;
	writer->values = palloc(sink->ncolumns * sizeof(Datum));
	writer->nulls = palloc(sink->ncolumns * sizeof(bool));
	writer->missing = palloc(sink->ncolumns * sizeof(bool));
	return writer;
}

static void
add(SpineSinkWriter *writer, const SpineEvent *events, size_t n, SpineApplyCounts *counts)
{
	const SpineSink *sink = writer->sink;
	SpineRows	rows = {.events = events, .nevents = n};
	SpineTableInsert *insert;
	MemoryContext row_context;
	MemoryContext old_context;

	spine_rows_compute(sink, &rows);
	counts->nfiltered += rows.nfiltered;
	if (rows.nevents == 0)
		return;
	insert = spine_table_insert_begin(sink->target);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(row_context);
	for (size_t i = 0; i < rows.nevents; i++)
	{
		spine_rows_make_row(sink, &rows, i, writer->values, writer->nulls, writer->missing);
		spine_table_insert_add(insert, writer->values, writer->nulls, writer->missing);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old_context);
	spine_table_insert_end(insert);
}

/* All rows are written. */
static void
finish(SpineSinkWriter *writer, SpineApplyCounts *counts)
{
}

static const char *
explain(const SpineSinkWriter *writer)
{
	return "as COPY writes them; by the statement if one is refused";
}

const SpineSinkKind spine_sink_append = {
	.mode = "append",
	.write_statement = write_statement,
	.begin = begin,
	.add = add,
	.finish = finish,
	.explain = explain
};

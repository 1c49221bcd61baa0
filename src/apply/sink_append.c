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

#include "access/table.h"
#include "apply/rows.h"
#include "executor/spi.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
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

/*
 * Is it a plan that writes the rows of a batch into the table, and does nothing else?  Other
 * extensions plan for tables whose rows they keep elsewhere: Citus and TimescaleDB, for two.
 */
static bool
is_plain(const PlannedStmt *statement, Oid table)
{
	const ModifyTable *modify = (const ModifyTable *) statement->planTree;
	const Plan *source;

	if (!IsA(modify, ModifyTable) || modify->operation != CMD_INSERT ||
		modify->withCheckOptionLists != NIL || list_length(modify->resultRelations) != 1 ||
		rt_fetch(linitial_int(modify->resultRelations), statement->rtable)->relid != table)
		return false;
	source = outerPlan(modify);
	if (IsA(source, SubqueryScan))
		source = ((const SubqueryScan *) source)->subplan;
	return IsA(source, NamedTuplestoreScan);
}

/* Asks the planner. */
static bool
is_planned_plainly(SpineSink *sink)
{
	EphemeralNamedRelationData relation = {
		.md = {
			.name = SPINE_ROWS,
			.tupdesc = sink->row_type,
			.enrtype = ENR_NAMED_TUPLESTORE
		}
	};
	SpineStatement *statement = &sink->statements[SPINE_SINK_PLAIN];
	CachedPlan *plan;
	bool		result;

	SPI_connect();
	if (SPI_register_relation(&relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of a batch");
	plan = SPI_plan_get_cached_plan(spine_statement_prepare(statement, sink->sql[SPINE_SINK_PLAIN], 0, NULL));
	result = plan && list_length(plan->stmt_list) == 1 &&
		is_plain(linitial_node(PlannedStmt, plan->stmt_list), sink->table);
	if (plan)
		ReleaseCachedPlan(plan, CurrentResourceOwner);
	SPI_finish();
	return result;
}

/* Has the table what only the planner knows to do? */
static bool
needs_statement(const SpineSink *sink)
{
	Relation	table = table_open(sink->table, NoLock);
	bool		result = table->rd_rules != NULL || table->rd_rel->relkind == RELKIND_VIEW;

	for (int i = 0; i < RelationGetNumberOfAttributes(table) && !result; i++)
	{
		char		generated = TupleDescAttr(RelationGetDescr(table), i)->attgenerated;

		result = generated && generated != ATTRIBUTE_GENERATED_STORED;
	}
	table_close(table, NoLock);
	return result;
}

/* Finds out whether the rows can be written without a statement. */
static void
find_target(SpineSink *sink)
{
	AttrNumber *columns = palloc(sink->ncolumns * sizeof(AttrNumber));
	MemoryContext old_context;

	for (int i = 0; i < sink->ncolumns; i++)
		columns[i] = sink->columns[i].number;
	if (!needs_statement(sink) && is_planned_plainly(sink))
	{
		spine_statement_free(&sink->statements[SPINE_SINK_PLAIN]);
		old_context = MemoryContextSwitchTo(sink->context);
		sink->target = spine_insert_target_make(sink->table, columns, sink->ncolumns);
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

const SpineSinkKind spine_sink_append = {
	.mode = "append",
	.write_statement = write_statement,
	.begin = begin,
	.add = add,
	.finish = finish
};

/*
 * apply.c
 *		Runs the statements of a plan's sinks, each as the role that the sink runs as.
 *
 * Code that is attached to a sink's table, such as a trigger or a domain's check, runs as
 * that role too, and nothing that it sets outlives the statement.
 */
#include "apply/apply.h"

#include "access/xact.h"
#include "apply/lookup.h"
#include "apply/role.h"
#include "apply/rows.h"
#include "commands/trigger.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

bool
spine_apply_begin(const SpinePlan *plan)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);

	Assert(IsTransactionState());
	AfterTriggerSetState(immediate);

	for (int i = 0; i < plan->nsinks; i++)
	{
		ListCell   *cell;

		foreach(cell, plan->sinks[i].relations)
			LockRelationOid(lfirst_oid(cell), RowExclusiveLock);
		if (plan->sinks[i].projection)
			spine_projection_lock(plan->sinks[i].projection);
	}
	if (!spine_plan_is_current(plan))
		return false;
	spine_trust_check(plan->trust);
	return true;
}

/* Returns how many rows the statement wrote. */
static uint64
run_statement(SpineSink *sink, SpineSinkStatement which, const char *sql, Tuplestorestate *rows)
{
	bool		is_partial = which == SPINE_SINK_UPDATE_PARTIAL || which == SPINE_SINK_INSERT_PARTIAL;
	EphemeralNamedRelationData relation = {
		.md = {
			.name = SPINE_ROWS,
			.tupdesc = sink->row_type,
			.enrtype = ENR_NAMED_TUPLESTORE,
			.enrtuples = is_partial ? 1 : tuplestore_tuple_count(rows)
		},
		.reldata = rows
	};
	SPIPlanPtr	plan;
	uint64		nwritten;
	int			result;

	/* a connection of its own, so that an error ends the name as well */
	SPI_connect();
	if (SPI_register_relation(&relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of a batch");
	plan = spine_statement_prepare(&sink->statements[which], sql, 0, NULL);
	if (is_partial)
		spine_lookup_plan(plan);
	result = SPI_execute_plan(plan, NULL, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	nwritten = SPI_processed;
	SPI_finish();
	return nwritten;
}

void
spine_apply_convert(const SpinePlan *plan, const SpineSink *sink, const SpineEvent *events,
					size_t n, size_t *at, bool *looking_up)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine convert",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	SpineRole	saved;

	spine_trust_guard(plan->trust, context);
	spine_role_assume(&saved, sink->run_as);
	spine_rows_convert(sink, events, n, at, looking_up);
	spine_role_resume(&saved);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

/* Returns how many rows the statements of a sink wrote. */
static uint64
run_statements(SpineSink *sink, SpineSinkStatement which, const SpineStoredRows *rows)
{
	const char *sql = sink->sql[which];
	uint64		nwritten = 0;

	if (rows->left_out)
	{
		StringInfoData buf;

		initStringInfo(&buf);
		sink->kind->write_statement(&buf, sink, which, rows->left_out);
		sql = buf.data;
	}
	if (tuplestore_tuple_count(rows->whole) > 0)
		nwritten += run_statement(sink, which, sql, rows->whole);
	for (int i = SPINE_SINK_UPDATE_PARTIAL; i <= SPINE_SINK_INSERT_PARTIAL && rows->partial; i++)
	{
		if (sink->sql[i][0] != '\0')
			nwritten += run_statement(sink, i, sink->sql[i], rows->partial);
	}
	return nwritten;
}

static void
apply_sink(SpinePlan *plan, SpineSink *sink, const SpineEvent *events, size_t n,
		   SpineSinkStatement which, SpineApplyCounts *counts)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine apply",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	SpineRole	saved;
	SpineStoredRows rows;
	uint64		nwritten;

	spine_trust_guard(plan->trust, context);
	spine_role_assume(&saved, sink->run_as);
	rows = spine_rows_make(sink, events, n);
	nwritten = run_statements(sink, which, &rows);
	tuplestore_end(rows.whole);
	if (rows.partial)
		tuplestore_end(rows.partial);
	spine_role_resume(&saved);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);

	if (sink->kind->updates_rows)
		counts->nupserts += nwritten;
	counts->nfiltered += rows.nfiltered;
}

SpineApplyCounts
spine_apply(SpinePlan *plan, const SpineEvent *events, size_t n, SpineSinkStatement which)
{
	SpineApplyCounts counts = {0};

	Assert(IsTransactionState());
	for (int i = 0; i < plan->nsinks; i++)
		apply_sink(plan, &plan->sinks[i], events, n, which, &counts);
	return counts;
}

/* --------------------------------------------------------------------------
 * Piece by piece
 * -------------------------------------------------------------------------- */

struct SpineApplying
{
	SpinePlan  *plan;
	MemoryContext context;		/* of the writers */
	MemoryContext call_context; /* of one call of a writer */
	SpineSinkWriter **writers;	/* by sink; NULL: it takes statements */
	SpineApplyCounts counts;
};

/* Before a call of a sink's writer.  Returns the caller's memory context. */
static MemoryContext
enter_writer(SpineApplying *applying, const SpineSink *sink, MemoryContext context, SpineRole *saved)
{
	spine_trust_guard(applying->plan->trust, applying->call_context);
	spine_role_assume(saved, sink->run_as);
	return MemoryContextSwitchTo(context);
}

static void
leave_writer(SpineApplying *applying, MemoryContext old_context, SpineRole *saved)
{
	spine_role_resume(saved);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(applying->call_context);
}

SpineApplying *
spine_apply_start(SpinePlan *plan)
{
	SpineApplying *applying = palloc0(sizeof(SpineApplying));

	Assert(IsTransactionState());
	applying->plan = plan;
	applying->context = AllocSetContextCreate(CurrentMemoryContext, "spine writers", ALLOCSET_DEFAULT_SIZES);
	applying->call_context = AllocSetContextCreate(CurrentMemoryContext, "spine apply", ALLOCSET_DEFAULT_SIZES);
	applying->writers = palloc0(plan->nsinks * sizeof(SpineSinkWriter *));
	for (int i = 0; i < plan->nsinks; i++)
	{
		SpineSink  *sink = &plan->sinks[i];
		SpineRole	saved;
		MemoryContext old_context;

		if (sink->kind->begin == NULL)
			continue;
		old_context = enter_writer(applying, sink, applying->context, &saved);
		applying->writers[i] = sink->kind->begin(sink);
		leave_writer(applying, old_context, &saved);
	}
	return applying;
}

void
spine_apply_add(SpineApplying *applying, const SpineEvent *events, size_t n)
{
	for (int i = 0; i < applying->plan->nsinks; i++)
	{
		SpineSink  *sink = &applying->plan->sinks[i];
		SpineRole	saved;
		MemoryContext old_context;

		if (applying->writers[i] == NULL)
		{
			apply_sink(applying->plan, sink, events, n, SPINE_SINK_PLAIN, &applying->counts);
			continue;
		}
		old_context = enter_writer(applying, sink, applying->call_context, &saved);
		sink->kind->add(applying->writers[i], events, n, &applying->counts);
		leave_writer(applying, old_context, &saved);
	}
}

size_t
spine_apply_held(const SpineApplying *applying)
{
	size_t		held = 0;

	for (int i = 0; i < applying->plan->nsinks; i++)
	{
		const SpineSinkKind *kind = applying->plan->sinks[i].kind;

		if (applying->writers[i] && kind->held)
			held += kind->held(applying->writers[i]);
	}
	return held;
}

SpineApplyCounts
spine_apply_finish(SpineApplying *applying)
{
	SpineApplyCounts counts;

	for (int i = 0; i < applying->plan->nsinks; i++)
	{
		SpineSink  *sink = &applying->plan->sinks[i];
		SpineRole	saved;
		MemoryContext old_context;

		if (applying->writers[i] == NULL)
			continue;
		old_context = enter_writer(applying, sink, applying->call_context, &saved);
		sink->kind->finish(applying->writers[i], &applying->counts);
		leave_writer(applying, old_context, &saved);
	}
	counts = applying->counts;
	MemoryContextDelete(applying->call_context);
	MemoryContextDelete(applying->context);
	pfree(applying->writers);
	pfree(applying);
	return counts;
}

/*
 * apply.c
 *		Runs the statements of a plan's sinks, each as the role that the sink runs as.
 *
 * Code that is attached to a sink's table, such as a trigger or a domain's check, runs as
 * that role too, and nothing that it sets outlives the statement.
 */
#include "apply/apply.h"

#include "access/xact.h"
#include "apply/role.h"
#include "apply/rows.h"
#include "apply/write.h"
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

static void
apply_sink(SpinePlan *plan, SpineSink *sink, const SpineEvent *events, size_t n,
		   SpineSinkStatement which, SpineApplyCounts *counts)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine apply",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	SpineRole	saved;

	spine_trust_guard(plan->trust, context);
	spine_role_assume(&saved, sink->run_as);
	spine_write_events(sink, which, events, n, counts);
	spine_role_resume(&saved);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
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

bool
spine_apply_updates_at_once(const SpineApplying *applying)
{
	for (int i = 0; i < applying->plan->nsinks; i++)
	{
		if (applying->writers[i] == NULL && applying->plan->sinks[i].kind->updates_rows)
			return true;
	}
	return false;
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

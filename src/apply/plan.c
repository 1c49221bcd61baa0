/*
 * plan.c
 *		Makes the plans of pipelines, says whether they are up to date, and frees them.
 */
#include "apply/plan.h"

#include "access/table.h"
#include "access/xact.h"
#include "apply/postpone.h"
#include "apply/role.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* The plan's memory is about to go. */
static void
release(void *arg)
{
	SpinePlan  *plan = arg;

	for (int i = 0; i < plan->nsinks; i++)
		spine_sink_release(&plan->sinks[i]);
	if (plan->format)
		plan->format->free(plan->decoder);
}

static void
make_sinks(SpinePlan *plan, const SpinePipeline *pipeline)
{
	SpineTrustedTable *tables = palloc(pipeline->nsinks * sizeof(SpineTrustedTable));

	plan->sinks = palloc0(pipeline->nsinks * sizeof(SpineSink));
	for (int i = 0; i < pipeline->nsinks; i++)
	{
		SpineSink  *sink = &plan->sinks[i];

		spine_sink_make(sink, pipeline, &pipeline->sinks[i], &plan->fields,
						plan->max_record_memory);
		tables[i] = (SpineTrustedTable) {sink->table, sink->run_as};
	}
	plan->nsinks = pipeline->nsinks;
	plan->trust = spine_trust_make(tables, plan->nsinks);
}

/* Also those of columns that no record gives: a domain has a default. */
static void
watch_types(SpineWatch *watch, Oid table)
{
	Relation	relation = table_open(table, NoLock);

	for (int i = 0; i < RelationGetNumberOfAttributes(relation); i++)
	{
		const FormData_pg_attribute *column = TupleDescAttr(RelationGetDescr(relation), i);

		if (!column->attisdropped)
			spine_watch_type(watch, column->atttypid);
	}
	table_close(relation, NoLock);
}

static void
watch_sinks(SpinePlan *plan)
{
	for (int i = 0; i < plan->nsinks; i++)
	{
		const SpineSink *sink = &plan->sinks[i];
		const ListCell *cell;

		foreach(cell, sink->relations)
			spine_watch_relation(plan->watch, lfirst_oid(cell));
		watch_types(plan->watch, sink->table);
		if (sink->projection)
			spine_projection_watch(sink->projection, plan->watch);
	}
	spine_watch_complete(plan->watch);
}

/* After the sinks: they say which fields. */
static void
make_decoder(SpinePlan *plan)
{
	plan->format = spine_format_find("json");
	plan->decoder = plan->format->compile(plan->fields.specs, plan->fields.n);
	if (plan->decoder == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("The decoder of pipeline \"%s\" could not be made.", NameStr(plan->pipeline))));
}

SpinePlan *
spine_plan_make(const SpinePipeline *pipeline, size_t max_record_memory)
{
	MemoryContext context;
	MemoryContext old_context;
	MemoryContextCallback *callback;
	SpinePlan  *plan;
	int			level;

	Assert(IsTransactionState());
	if (pipeline->nsinks == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" has no sinks", NameStr(pipeline->name)),
				 errhint("Give it a target with spine_add_sink.")));

	/* below the caller's context until it is whole, so that an error frees it */
	context = AllocSetContextCreate(CurrentMemoryContext, "spine plan", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	plan = palloc0(sizeof(SpinePlan));
	plan->context = context;
	plan->pipeline = pipeline->name;
	plan->max_record_memory = max_record_memory;
	callback = palloc(sizeof(MemoryContextCallback));
	*callback = (MemoryContextCallback) {.func = release, .arg = plan};
	MemoryContextRegisterResetCallback(context, callback);

	plan->watch = spine_watch_begin();
	level = spine_role_fix_settings();
	make_sinks(plan, pipeline);
	make_decoder(plan);
	spine_postpone_find(plan);
	spine_role_restore_settings(level);
	watch_sinks(plan);

	MemoryContextSwitchTo(old_context);
	MemoryContextSetParent(context, TopMemoryContext);
	return plan;
}

void
spine_plan_free(SpinePlan *plan)
{
	if (plan)
		MemoryContextDelete(plan->context);
}

bool
spine_plan_is_current(const SpinePlan *plan)
{
	Assert(IsTransactionState());
	for (int i = 0; i < plan->nsinks; i++)
	{
		if (!spine_sink_is_current(&plan->sinks[i]))
			return false;
	}
	return !plan->watch->is_stale;
}

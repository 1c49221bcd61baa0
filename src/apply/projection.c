/*
 * projection.c
 *		Plans a sink's SQL expressions, and computes them event by event.
 *
 * The planner is given SELECT filter, expression, ... FROM record, which is what it takes to
 * plan sub-SELECTs.  The executor prepares that plan, but reads no rows: each event is put
 * into a slot, and each expression is evaluated by itself.  So the expressions of an event
 * that does not pass the filter are not evaluated, and an error names its column.
 */
#include "apply/projection.h"

#include "access/xact.h"
#include "apply/expression.h"
#include "apply/record_row.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteManip.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

typedef struct Expression
{
	const char *text;			/* the user's */
	const char *column;			/* NULL: the filter */
	Node	   *analysed;		/* until it is planned */
	Expr	   *planned;
	Bitmapset  *needed;			/* columns of the record, as attribute numbers */
	Bitmapset  *added;			/* those that no expression before it needs */
	bool		looks_up;		/* rows of tables, perhaps in a function */
	int16		len;			/* of its type */
	bool		byval;
} Expression;

struct SpineProjection
{
	MemoryContext context;
	SpineRecordRow *row;
	TupleDesc	row_type;
	Expression *filter;			/* NULL: none */
	int			n;
	Expression **expressions;
	PlannedStmt *plan;			/* without a target list: it is in the expressions */
};

struct SpineProjectionRun
{
	const SpineProjection *projection;
	QueryDesc  *query;
	ExprContext *context;		/* reset for each event */
	TupleTableSlot *slot;		/* the record */
	ExprState  *filter;
	ExprState **expressions;
	const Expression *current;	/* for errors */
	bool	   *looking_up;		/* the same for the caller */
};

/* --------------------------------------------------------------------------
 * From texts to a plan
 * -------------------------------------------------------------------------- */

SpineProjection *
spine_projection_make(SpineFieldList *fields, size_t max_record_memory)
{
	SpineProjection *projection = palloc0(sizeof(SpineProjection));

	projection->context = CurrentMemoryContext;
	projection->row = spine_record_row_make(fields, max_record_memory);
	return projection;
}

int
spine_projection_count(const SpineProjection *projection)
{
	return projection->n;
}

int
spine_projection_add(SpineProjection *projection, const char *text, const SpineTableColumn *column)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine expression",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	Expression *expression;
	Bitmapset  *needed;
	Node	   *analysed;

	analysed = spine_expression_analyse(text, column, spine_record_row_type(projection->row));
	analysed = spine_record_row_take_fields(projection->row, analysed, &needed);
	MemoryContextSwitchTo(projection->context);
	expression = palloc0(sizeof(Expression));
	expression->text = pstrdup(text);
	expression->column = column ? pstrdup(column->name) : NULL;
	expression->analysed = copyObject(analysed);
	expression->needed = bms_copy(needed);
	expression->looks_up = spine_expression_looks_up(analysed);
	get_typlenbyval(exprType(expression->analysed), &expression->len, &expression->byval);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);

	if (column == NULL)
	{
		projection->filter = expression;
		return -1;
	}
	projection->expressions = projection->expressions ?
		repalloc(projection->expressions, (projection->n + 1) * sizeof(Expression *)) :
		MemoryContextAlloc(projection->context, sizeof(Expression *));
	projection->expressions[projection->n] = expression;
	return projection->n++;
}

/* The filter and then the others; NULL behind the last. */
static Expression *
nth_expression(const SpineProjection *projection, int i)
{
	if (projection->filter && i-- == 0)
		return projection->filter;
	return i < projection->n ? projection->expressions[i] : NULL;
}

static void
expression_error_context(void *arg)
{
	const Expression *const *current = arg;

	if (*current)
		spine_expression_name_in_error((*current)->column);
}

/*
 * The planner computes what is constant, which may fail, and does not say for which
 * expression.
 */
static void
check_constants(const SpineProjection *projection)
{
	const Expression *current = NULL;
	ErrorContextCallback callback = {error_context_stack, expression_error_context, &current};

	error_context_stack = &callback;
	for (int i = 0; (current = nth_expression(projection, i)) != NULL; i++)
		(void) eval_const_expressions(NULL, copyObject(current->analysed));
	error_context_stack = callback.previous;
}

/* SELECT filter, expression, ... FROM record */
static Query *
make_query(SpineProjection *projection)
{
	ParseState *pstate = make_parsestate(NULL);
	Query	   *query = makeNode(Query);
	RangeTblRef *from = makeNode(RangeTblRef);
	Expression *expression;

	pstate->p_queryEnv = spine_expression_environment(projection->row_type, NULL);
	(void) addRangeTableEntryForENR(pstate, makeRangeVar(NULL, SPINE_RECORD_RELATION, -1), true);
	from->rtindex = SPINE_RECORD_INDEX;
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->rtable = pstate->p_rtable;
	query->jointree = makeFromExpr(list_make1(from), NULL);
	for (int i = 0; (expression = nth_expression(projection, i)) != NULL; i++)
		query->targetList = lappend(query->targetList,
									makeTargetEntry((Expr *) expression->analysed, i + 1, NULL, false));
	query->hasSubLinks = checkExprHasSubLink((Node *) query->targetList);
	free_parsestate(pstate);
	return query;
}

void
spine_projection_plan(SpineProjection *projection)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine expression",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(projection->context);
	PlannedStmt *plan;
	Expression *expression;
	Bitmapset  *made = NULL;

	Assert(IsTransactionState());
	projection->row_type = spine_record_row_type(projection->row);
	MemoryContextSwitchTo(context);
	check_constants(projection);
	plan = pg_plan_query(linitial_node(Query, pg_rewrite_query(make_query(projection))),
						 "", 0, NULL);
	if (!IsA(plan->planTree, NamedTuplestoreScan))
		elog(ERROR, "unexpected plan of a sink's expressions");

	MemoryContextSwitchTo(projection->context);
	projection->plan = copyObject(plan);
	projection->plan->jitFlags = 0; /* it would be compiled for each batch */
	for (int i = 0; (expression = nth_expression(projection, i)) != NULL; i++)
	{
		expression->planned = list_nth_node(TargetEntry, projection->plan->planTree->targetlist, i)->expr;
		expression->analysed = NULL;
		expression->added = bms_difference(expression->needed, made);
		made = bms_add_members(made, expression->needed);
	}
	projection->plan->planTree->targetlist = NIL;
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

/* --------------------------------------------------------------------------
 * What the plan depends on
 * -------------------------------------------------------------------------- */

void
spine_projection_lock(const SpineProjection *projection)
{
	ListCell   *cell;

	foreach(cell, projection->plan->rtable)
	{
		const RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (OidIsValid(entry->relid) && entry->rellockmode != NoLock)
			LockRelationOid(entry->relid, entry->rellockmode);
	}
}

bool
spine_projection_looks_up(const SpineProjection *projection)
{
	const Expression *expression;

	for (int i = 0; projection && (expression = nth_expression(projection, i)) != NULL; i++)
	{
		if (expression->looks_up)
			return true;
	}
	return false;
}

void
spine_projection_watch(const SpineProjection *projection, SpineWatch *watch)
{
	const ListCell *cell;

	foreach(cell, projection->plan->relationOids)
		spine_watch_relation(watch, lfirst_oid(cell));
	foreach(cell, projection->plan->invalItems)
	{
		const PlanInvalItem *item = lfirst_node(PlanInvalItem, cell);

		/* a change of any function makes every plan stale */
		if (item->cacheId == TYPEOID)
			spine_watch_type_entry(watch, item->hashValue);
	}
}

/* What it reads of the record; columns that are jsonb of a whole part, or the others. */
static void
explain_needed(const SpineProjection *projection, const Expression *expression, bool whole,
			   const char *what, StringInfo text)
{
	const char *separator = what;
	int			attribute = -1;

	while ((attribute = bms_next_member(expression->needed, attribute)) >= 0)
	{
		if (spine_record_row_is_whole(attribute) != whole)
			continue;
		appendStringInfo(text, "%s%s", separator, spine_record_row_column(projection->row, attribute));
		separator = ", ";
	}
}

void
spine_projection_explain(const SpineProjection *projection, int index, StringInfo text)
{
	const Expression *expression = index < 0 ? projection->filter : projection->expressions[index];

	if (expression == NULL)
		return;
	if (expression->column)
		appendStringInfo(text, "  column %s: ", quote_identifier(expression->column));
	else
		appendStringInfoString(text, "  filter: ");
	appendStringInfoString(text, expression->text);
	explain_needed(projection, expression, false, "\n   takes ", text);
	explain_needed(projection, expression, true, "\n   makes jsonb of ", text);
	appendStringInfoChar(text, '\n');
}

/* --------------------------------------------------------------------------
 * Computing
 * -------------------------------------------------------------------------- */

SpineProjectionRun *
spine_projection_begin(SpineProjection *projection, bool *looking_up)
{
	SpineProjectionRun *run = palloc0(sizeof(SpineProjectionRun));
	ErrorContextCallback callback = {error_context_stack, expression_error_context, &run->current};
	PlanState  *state;
	MemoryContext old_context;

	Assert(IsTransactionState());
	run->projection = projection;
	run->looking_up = looking_up;

	/* what earlier sinks have written is seen */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	run->query = CreateQueryDesc(projection->plan, "", GetActiveSnapshot(), InvalidSnapshot,
								 None_Receiver, NULL,
								 spine_expression_environment(projection->row_type,
															  tuplestore_begin_heap(false, false, work_mem)),
								 0);
	ExecutorStart(run->query, 0);

	state = run->query->planstate;
	state->scanops = &TTSOpsVirtual;	/* of our slot */
	run->context = state->ps_ExprContext;
	old_context = MemoryContextSwitchTo(run->query->estate->es_query_cxt);
	run->slot = MakeSingleTupleTableSlot(projection->row_type, &TTSOpsVirtual);
	run->context->ecxt_scantuple = run->slot;
	error_context_stack = &callback;
	run->current = projection->filter;
	if (projection->filter)
		run->filter = ExecInitExpr(projection->filter->planned, state);
	run->expressions = palloc(Max(projection->n, 1) * sizeof(ExprState *));
	for (int i = 0; i < projection->n; i++)
	{
		run->current = projection->expressions[i];
		run->expressions[i] = ExecInitExpr(run->current->planned, state);
	}
	run->current = NULL;
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old_context);
	return run;
}

/* Makes the columns of the record that the expression needs, and those before it did not. */
static void
fill_slot(SpineProjectionRun *run, const SpineEvent *event)
{
	int			attribute = -1;

	while ((attribute = bms_next_member(run->current->added, attribute)) >= 0)
		run->slot->tts_values[attribute - 1] =
			spine_record_row_value(run->projection->row, attribute, event,
								   &run->slot->tts_isnull[attribute - 1]);
}

static Datum
evaluate(SpineProjectionRun *run, const Expression *expression, ExprState *state,
		 const SpineEvent *event, bool *isnull)
{
	run->current = expression;
	*run->looking_up = expression->looks_up;
	fill_slot(run, event);
	return ExecEvalExpr(state, run->context, isnull);
}

/* Keys are compared by their bytes, so nothing stays compressed or out of line. */
static Datum
copy_value(const Expression *expression, Datum value)
{
	if (expression->len == -1)
		return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	return datumCopy(value, expression->byval, expression->len);
}

bool
spine_projection_compute(SpineProjectionRun *run, const SpineEvent *event, Datum *values, bool *nulls)
{
	const SpineProjection *projection = run->projection;
	ErrorContextCallback callback = {error_context_stack, expression_error_context, &run->current};
	MemoryContext old_context = MemoryContextSwitchTo(run->context->ecxt_per_tuple_memory);
	bool		passes = true;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	error_context_stack = &callback;
	ResetExprContext(run->context);
	ExecStoreVirtualTuple(ExecClearTuple(run->slot));

	if (run->filter)
		passes = DatumGetBool(evaluate(run, projection->filter, run->filter, event, &isnull)) && !isnull;
	for (int i = 0; i < projection->n && passes; i++)
	{
		Datum		value = evaluate(run, projection->expressions[i], run->expressions[i], event, &nulls[i]);

		if (nulls[i])
			continue;
		MemoryContextSwitchTo(old_context);
		values[i] = copy_value(projection->expressions[i], value);
		MemoryContextSwitchTo(run->context->ecxt_per_tuple_memory);
	}
	run->current = NULL;
	*run->looking_up = false;
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old_context);
	return passes;
}

void
spine_projection_end(SpineProjectionRun *run)
{
	ExecDropSingleTupleTableSlot(run->slot);
	ExecutorFinish(run->query);
	ExecutorEnd(run->query);
	FreeQueryDesc(run->query);
	PopActiveSnapshot();
}

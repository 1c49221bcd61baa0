/*
 * postpone.c
 *		Could anybody notice that a sink's rows are written late?
 *
 * Within a transaction only code can that is run for the sinks: an expression that looks rows
 * up, a foreign key, a trigger, the check of a table or domain, a policy, a rule.  Foreign keys
 * say which tables they read.  Of other code that is known only if it is PostgreSQL's own or
 * this extension's, or immutable.  Where it is not known, no sink is written late.
 *
 * If there is but one sink, its own code runs when its rows are written, as in a batch
 * of all its events.
 */
#include "apply/postpone.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "apply/expression.h"
#include "catalog/extension.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "nodes/nodes.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"

/* A trigger of a foreign key that changes rows, whose triggers run then. */
static bool
cascades(Oid function)
{
	return function == F_RI_FKEY_CASCADE_UPD || function == F_RI_FKEY_SETNULL_UPD ||
		function == F_RI_FKEY_SETDEFAULT_UPD;
}

static bool
has_unknown_trigger(const TriggerDesc *triggers)
{
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Oid			function = triggers->triggers[i].tgfoid;

		if (function < FirstNormalObjectId ? cascades(function) :
			!spine_extension_has(ProcedureRelationId, function))
			return true;
	}
	return false;
}

/* Types that may be domains inside have checks that may be anything. */
static bool
may_have_checks(Oid type)
{
	char		kind;

	if (OidIsValid(get_element_type(type)))
		type = get_element_type(type);
	kind = get_typtype(type);
	return kind == TYPTYPE_DOMAIN || kind == TYPTYPE_COMPOSITE ||
		(type >= FirstNormalObjectId && (kind == TYPTYPE_RANGE || kind == TYPTYPE_MULTIRANGE));
}

static bool
has_unknown_check(TupleDesc columns)
{
	const TupleConstr *constraints = columns->constr;

	for (int i = 0; i < columns->natts; i++)
	{
		const FormData_pg_attribute *column = TupleDescAttr(columns, i);

		if (!column->attisdropped && may_have_checks(column->atttypid))
			return true;
	}
	for (int i = 0; constraints && i < constraints->num_check; i++)
	{
		if (spine_expression_looks_up(stringToNode(constraints->check[i].ccbin)))
			return true;
	}
	for (int i = 0; constraints && i < constraints->num_defval; i++)
	{
		if (spine_expression_looks_up(stringToNode(constraints->defval[i].adbin)))
			return true;
	}
	return false;
}

/* Does the table run code that might read other tables, other than for foreign keys? */
static bool
runs_unknown_code(Relation table)
{
	return table->rd_rel->relkind == RELKIND_VIEW || table->rd_rules != NULL ||
		table->rd_rel->relrowsecurity || has_unknown_trigger(table->trigdesc) ||
		has_unknown_check(RelationGetDescr(table));
}

/* What is known of the tables of one sink. */
typedef struct Tables
{
	List	   *own;			/* the target, what is below it, and partitions */
	List	   *referenced;		/* by foreign keys of these */
	bool		run_unknown_code;
} Tables;

/* Partitions are locked only for a moment; work on an old one must not hold up the pipeline. */
static void
look_at(Tables *tables, Oid oid)
{
	Relation	table;
	const ListCell *cell;

	if (!ConditionalLockRelationOid(oid, AccessShareLock))
	{
		tables->run_unknown_code = true;
		return;
	}
	table = try_relation_open(oid, NoLock);
	if (table)
	{
		tables->run_unknown_code |= runs_unknown_code(table);
		foreach(cell, RelationGetFKeyList(table))
			tables->referenced = lappend_oid(tables->referenced,
											 ((const ForeignKeyCacheInfo *) lfirst(cell))->confrelid);
		relation_close(table, NoLock);
	}
	UnlockRelationOid(oid, AccessShareLock);
}

static Tables
find_tables(const SpinePlan *plan, const SpineSink *sink)
{
	Tables		tables = {.own = list_copy(sink->relations)};
	const ListCell *cell;

	tables.own = list_concat_unique_oid(tables.own,
										find_all_inheritors(llast_oid(sink->relations), NoLock, NULL));
	foreach(cell, tables.own)
	{
		MemoryContext old_context = MemoryContextSwitchTo(plan->context);

		spine_watch_relation(plan->watch, lfirst_oid(cell));
		MemoryContextSwitchTo(old_context);
		look_at(&tables, lfirst_oid(cell));
	}
	return tables;
}

static bool
have_common(const List *a, const List *b)
{
	const ListCell *cell;

	foreach(cell, a)
	{
		if (list_member_oid(b, lfirst_oid(cell)))
			return true;
	}
	return false;
}

/* Foreign keys within the sink's own tables count, as the rows may need several statements. */
static bool
depends(const Tables *tables, int i, int j)
{
	return have_common(tables[i].own, tables[j].referenced) ||
		have_common(tables[j].own, tables[i].referenced) ||
		(i != j && have_common(tables[i].own, tables[j].own));
}

void
spine_postpone_find(SpinePlan *plan)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine postpone",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	Tables	   *tables = palloc0(plan->nsinks * sizeof(Tables));
	bool		run_unknown_code = false;

	Assert(IsTransactionState());
	for (int i = 0; i < plan->nsinks && !run_unknown_code; i++)
	{
		const SpineSink *sink = &plan->sinks[i];

		tables[i] = find_tables(plan, sink);
		run_unknown_code = spine_projection_looks_up(sink->projection) ||
			(plan->nsinks > 1 && tables[i].run_unknown_code);
	}
	for (int i = 0; i < plan->nsinks && !run_unknown_code; i++)
	{
		SpineSink  *sink = &plan->sinks[i];

		sink->may_be_written_late = true;
		for (int j = 0; j < plan->nsinks && sink->may_be_written_late; j++)
			sink->may_be_written_late = !depends(tables, i, j);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

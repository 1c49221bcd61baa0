/*
 * plain_statement.c
 *		Asks the planner what a sink's statement does.
 */
#include "apply/plain_statement.h"

#include "access/table.h"
#include "access/xact.h"
#include "apply/rows.h"
#include "executor/spi.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "utils/plancache.h"
#include "utils/rel.h"

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
is_planned_plainly(SpineSink *sink, Oid *arbiter)
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
	const PlannedStmt *planned;
	bool		result = false;

	SPI_connect();
	if (SPI_register_relation(&relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of a batch");
	plan = SPI_plan_get_cached_plan(spine_statement_prepare(statement, sink->sql[SPINE_SINK_PLAIN], 0, NULL));
	if (plan && list_length(plan->stmt_list) == 1)
	{
		planned = linitial_node(PlannedStmt, plan->stmt_list);
		result = is_plain(planned, sink->table);
		if (result && list_length(((const ModifyTable *) planned->planTree)->arbiterIndexes) == 1)
			*arbiter = linitial_oid(((const ModifyTable *) planned->planTree)->arbiterIndexes);
	}
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

bool
spine_statement_is_plain(SpineSink *sink, Oid *arbiter)
{
	Assert(IsTransactionState());
	*arbiter = InvalidOid;
	if (needs_statement(sink) || !is_planned_plainly(sink, arbiter))
		return false;

	/* it will hardly be run */
	spine_statement_free(&sink->statements[SPINE_SINK_PLAIN]);
	return true;
}

/*
 * table_row.c
 *		Completes the rows of a table with the defaults of what they lack.
 */
#include "apply/table_row.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* A domain may refuse null. */
static Node *
null_of_domain(Form_pg_attribute attribute)
{
	int32		typmod = attribute->atttypmod;
	Oid			base_type = getBaseTypeAndTypmod(attribute->atttypid, &typmod);
	Const	   *null = makeNullConst(base_type, typmod, attribute->attcollation);

	return coerce_to_domain((Node *) null, base_type, typmod, attribute->atttypid,
							COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1, false);
}

/* What a column takes that has no value; NULL: null. */
static Expr *
plan_default(Relation relation, int attribute)
{
	Form_pg_attribute form = TupleDescAttr(RelationGetDescr(relation), attribute);
	Node	   *expr;

	if (form->attisdropped || form->attgenerated)
		return NULL;
	expr = build_column_default(relation, attribute + 1);
	if (expr == NULL && get_typtype(form->atttypid) == TYPTYPE_DOMAIN)
		expr = null_of_domain(form);
	return expr ? expression_planner((Expr *) expr) : NULL;
}

SpineRowTarget *
spine_row_target_make(Oid table, const AttrNumber *columns, int ncolumns)
{
	SpineRowTarget *target = palloc0(sizeof(SpineRowTarget));
	Relation	relation = table_open(table, NoLock);

	Assert(IsTransactionState());
	target->table = table;
	target->nattributes = RelationGetNumberOfAttributes(relation);
	target->columns = palloc(target->nattributes * sizeof(int));
	target->defaults = palloc(target->nattributes * sizeof(Expr *));
	for (int i = 0; i < target->nattributes; i++)
	{
		target->columns[i] = -1;
		target->defaults[i] = plan_default(relation, i);
		if (contain_volatile_functions_not_nextval((Node *) target->defaults[i]))
			target->may_look_at_table = true;
	}
	for (int i = 0; i < ncolumns; i++)
	{
		target->columns[columns[i] - 1] = i;
		target->written = bms_add_member(target->written, columns[i] - FirstLowInvalidHeapAttributeNumber);
	}
	table_close(relation, NoLock);
	return target;
}

void
spine_row_target_open(const SpineRowTarget *target, EState *estate, const SpineRights *rights)
{
	RangeTblEntry *entry = makeNode(RangeTblEntry);
	List	   *entries = list_make1(entry);
	List	   *permissions = NIL;
	SpinePermissions *permission;

	entry->rtekind = RTE_RELATION;
	entry->relid = target->table;
	entry->relkind = get_rel_relkind(target->table);
	entry->rellockmode = RowExclusiveLock;
	permission = spine_add_permissions(&permissions, entry);
	permission->requiredPerms = ACL_INSERT | (rights->updated ? ACL_UPDATE : 0) | (rights->selected ? ACL_SELECT : 0);
	permission->insertedCols = bms_copy(rights->inserted);
	permission->updatedCols = bms_copy(rights->updated);
	permission->selectedCols = bms_copy(rights->selected);
	spine_check_permissions(entries, permissions);
	spine_init_range_table(estate, entries, permissions);
}

SpineRowMaker
spine_row_maker(const SpineRowTarget *target, EState *estate)
{
	return (SpineRowMaker) {
		.target = target,
		.estate = estate,
		.defaults = MemoryContextAllocZero(estate->es_query_cxt, target->nattributes * sizeof(ExprState *))
	};
}

static Datum
default_value(SpineRowMaker *maker, int attribute, bool *isnull)
{
	Expr	   *expr = maker->target->defaults[attribute];

	*isnull = true;
	if (expr == NULL)
		return (Datum) 0;
	if (maker->defaults[attribute] == NULL)
		maker->defaults[attribute] = ExecInitExpr(expr, NULL);
	return ExecEvalExprSwitchContext(maker->defaults[attribute],
									 GetPerTupleExprContext(maker->estate), isnull);
}

void
spine_row_make(SpineRowMaker *maker, TupleTableSlot *slot, const Datum *values, const bool *nulls,
			   const bool *missing)
{
	const SpineRowTarget *target = maker->target;

	ExecClearTuple(slot);
	for (int i = 0; i < target->nattributes; i++)
	{
		int			column = target->columns[i];

		if (column < 0 || missing[column])
			slot->tts_values[i] = default_value(maker, i, &slot->tts_isnull[i]);
		else
		{
			slot->tts_values[i] = values[column];
			slot->tts_isnull[i] = nulls[column];
		}
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = target->table;
}

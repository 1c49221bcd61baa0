/*
 * view.c
 *		Looks through views that can be updated.
 *
 * Such a view shows the columns of one relation.  PostgreSQL itself turns a statement on the
 * view into one on that relation, which may be a view again.
 */
#include "apply/view.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "nodes/parsenodes.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* The entry of the one relation that the query of a view reads, or NULL. */
static RangeTblEntry *
only_relation(Relation view)
{
	Query	   *query = get_view_query(view);
	List	   *from = query->jointree->fromlist;
	RangeTblEntry *entry;

	if (list_length(from) != 1 || !IsA(linitial(from), RangeTblRef))
		return NULL;
	entry = rt_fetch(linitial_node(RangeTblRef, from)->rtindex, query->rtable);
	return entry->rtekind == RTE_RELATION ? entry : NULL;
}

Oid
spine_view_below(Oid view)
{
	Relation	relation = try_relation_open(view, AccessShareLock);
	RangeTblEntry *entry;
	Oid			below = InvalidOid;

	Assert(IsTransactionState());
	if (relation == NULL)
		return InvalidOid;
	if (relation->rd_rel->relkind == RELKIND_VIEW)
	{
		entry = only_relation(relation);
		below = entry ? entry->relid : InvalidOid;
	}
	relation_close(relation, NoLock);
	return below;
}

List *
spine_view_relations(Oid target, int lockmode)
{
	List	   *relations = NIL;

	while (OidIsValid(target))
	{
		LockRelationOid(target, lockmode);
		relations = lappend_oid(relations, target);
		target = get_rel_relkind(target) == RELKIND_VIEW ? spine_view_below(target) : InvalidOid;
	}
	return relations;
}

AttrNumber
spine_view_column_below(Oid view, AttrNumber column)
{
	Relation	relation = relation_open(view, AccessShareLock);
	TargetEntry *target = get_tle_by_resno(get_view_query(relation)->targetList, column);
	AttrNumber	below = InvalidAttrNumber;

	if (target && IsA(target->expr, Var) && ((Var *) target->expr)->varattno > 0)
		below = ((Var *) target->expr)->varattno;
	relation_close(relation, NoLock);
	return below;
}

AttrNumber
spine_view_table_column(const List *relations, AttrNumber column)
{
	Assert(IsTransactionState());
	for (int i = 0; i < list_length(relations) - 1 && column != InvalidAttrNumber; i++)
		column = spine_view_column_below(list_nth_oid(relations, i), column);
	return column;
}

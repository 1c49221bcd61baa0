/*
 * total_table.c
 *		Writes rows of the tables of totals without statements.
 *
 * Each statement that writes orders writes a few rows of these tables.  If it writes few
 * orders, statements for them would be most of its work.  So the rows are written as those
 * of a subscription are, by the executor's functions for logical replication.  These compute
 * generated columns, look at checks, and maintain all indexes: somebody may have added some.
 */
#include "orders/total_table.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/own_tables.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

struct SpineTotalTable
{
	const SpineTotalShape *shape;
	Relation	relation;
	Oid			key_index;
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *found;
	TupleTableSlot *row;		/* to look for, or to write */
};

static bool
has_columns(Relation relation, const SpineTotalShape *shape)
{
	TupleDesc	type = RelationGetDescr(relation);

	if (type->natts < shape->ncolumns)
		return false;
	for (int i = 0; i < shape->ncolumns; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(type, i);

		if (attribute->attisdropped || attribute->atttypid != shape->columns[i].type ||
			strcmp(NameStr(attribute->attname), shape->columns[i].name) != 0)
			return false;
	}
	return true;
}

static bool
has_key(Relation relation, const SpineTotalShape *shape)
{
	Bitmapset  *key = RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_PRIMARY_KEY);

	if (bms_num_members(key) != shape->nkeys)
		return false;
	for (int i = 0; i < shape->nkeys; i++)
	{
		if (!bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber, key))
			return false;
	}
	return true;
}

static void
check_shape(Relation relation, const SpineTotalShape *shape)
{
	if (!has_columns(relation, shape) || !has_key(relation, shape))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the columns of table %s, or its primary key, are not those that spine has made",
						spine_table_name(RelationGetRelid(relation)))));
}

SpineTotalTable *
spine_total_table_open(Relation relation, const SpineTotalShape *shape)
{
	EState	   *estate;
	MemoryContext old_context;
	SpineTotalTable *table;

	Assert(ActiveSnapshotSet());
	PreventCommandIfReadOnly("INSERT");
	check_shape(relation, shape);

	estate = CreateExecutorState();
	estate->es_snapshot = GetActiveSnapshot();
	old_context = MemoryContextSwitchTo(estate->es_query_cxt);
	table = palloc(sizeof(SpineTotalTable));
	table->shape = shape;
	table->relation = relation;
	table->key_index = spine_primary_key(relation);
	table->estate = estate;
	table->found = table_slot_create(relation, &estate->es_tupleTable);
	table->row = ExecInitExtraTupleSlot(estate, RelationGetDescr(relation), &TTSOpsVirtual);
	table->result = makeNode(ResultRelInfo);
	InitResultRelInfo(table->result, relation, 0, NULL, 0);
	table->result->ri_TrigDesc = NULL;
	ExecOpenIndices(table->result, false);
	MemoryContextSwitchTo(old_context);
	return table;
}

void
spine_total_table_close(SpineTotalTable *table)
{
	EState	   *estate = table->estate;

	ExecCloseIndices(table->result);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}

/* The total would not be that of the transaction's snapshot. */
static void
check_visible(const SpineTotalTable *table)
{
	if (IsolationUsesXactSnapshot() &&
		!table_tuple_satisfies_snapshot(table->relation, table->found, table->estate->es_snapshot))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
}

const Datum *
spine_total_table_find(SpineTotalTable *table, const Datum *key)
{
	TupleTableSlot *row = table->row;
	MemoryContext old_context;
	bool		is_found;

	ResetPerTupleExprContext(table->estate);
	ExecClearTuple(row);
	memcpy(row->tts_values, key, table->shape->nkeys * sizeof(Datum));
	memset(row->tts_isnull, false, table->shape->nkeys * sizeof(bool));

	old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	is_found = RelationFindReplTupleByIndex(table->relation, table->key_index, LockTupleNoKeyExclusive,
											row, table->found);
	MemoryContextSwitchTo(old_context);
	if (!is_found)
		return NULL;
	check_visible(table);
	slot_getallattrs(table->found);
	return table->found->tts_values;
}

void
spine_total_table_update(SpineTotalTable *table, const Datum *values)
{
	const SpineTotalShape *shape = table->shape;
	TupleTableSlot *row = table->row;
	int			natts = row->tts_tupleDescriptor->natts;
	MemoryContext old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));

	ExecClearTuple(row);
	memcpy(row->tts_values, table->found->tts_values, natts * sizeof(Datum));
	memcpy(row->tts_isnull, table->found->tts_isnull, natts * sizeof(bool));
	for (int i = shape->nkeys; i < shape->ncolumns; i++)
		row->tts_values[i] = values[i];
	ExecStoreVirtualTuple(row);
	ExecSimpleRelationUpdate(table->result, table->estate, NULL, table->found, row);
	MemoryContextSwitchTo(old_context);
}

/*
 * The last default that was used, which is that of an identity column.  PostgreSQL keeps no
 * cache of what belongs to which sequence.
 */
static struct
{
	Oid			table;			/* InvalidOid: none */
	int			attribute;
	MemoryContext context;		/* NULL: never was one */
	Node	   *expr;			/* may be NULL */
}			kept_default;

static void
forget_default(Datum arg, Oid table)
{
	if (!OidIsValid(table) || table == kept_default.table)
		kept_default.table = InvalidOid;
}

static void
keep_default(Relation relation, int attribute)
{
	MemoryContext old_context;
	Node	   *expr;

	if (kept_default.context == NULL)
	{
		kept_default.context = AllocSetContextCreate(TopMemoryContext, "spine default", ALLOCSET_SMALL_SIZES);
		CacheRegisterRelcacheCallback(forget_default, (Datum) 0);
	}
	kept_default.table = InvalidOid;
	MemoryContextReset(kept_default.context);

	/* the lock on the table keeps it as it is meanwhile */
	expr = build_column_default(relation, attribute + 1);
	old_context = MemoryContextSwitchTo(kept_default.context);
	kept_default.expr = copyObject(expr);
	MemoryContextSwitchTo(old_context);
	kept_default.table = RelationGetRelid(relation);
	kept_default.attribute = attribute;
}

static const Node *
find_default(Relation relation, int attribute)
{
	Form_pg_attribute form = TupleDescAttr(RelationGetDescr(relation), attribute);

	if (form->attisdropped || form->attgenerated)
		return NULL;
	if (kept_default.table != RelationGetRelid(relation) || kept_default.attribute != attribute)
		keep_default(relation, attribute);
	return kept_default.expr;
}

static Datum
default_value(SpineTotalTable *table, int attribute, bool *isnull)
{
	const Node *expr = find_default(table->relation, attribute);

	*isnull = true;
	return expr == NULL ? (Datum) 0 :
		ExecEvalExpr(ExecPrepareExpr((Expr *) unconstify(Node *, expr), table->estate),
					 GetPerTupleExprContext(table->estate), isnull);
}

const Datum *
spine_total_table_insert(SpineTotalTable *table, const Datum *values, const bool *nulls)
{
	const SpineTotalShape *shape = table->shape;
	TupleTableSlot *row = table->row;
	MemoryContext old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));

	ExecClearTuple(row);
	for (int i = 0; i < row->tts_tupleDescriptor->natts; i++)
	{
		if (i >= shape->ncolumns || shape->columns[i].takes_default)
			row->tts_values[i] = default_value(table, i, &row->tts_isnull[i]);
		else
		{
			row->tts_values[i] = values[i];
			row->tts_isnull[i] = nulls && nulls[i];
		}
	}
	ExecStoreVirtualTuple(row);
	ExecSimpleRelationInsert(table->result, table->estate, row);
	MemoryContextSwitchTo(old_context);
	return row->tts_values;
}

/*
 * conflict.c
 *		Finds out which keys and columns of a target suit INSERT ... ON CONFLICT.
 */
#include "apply/conflict.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "apply/view.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "nodes/nodes.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"
#include "utils/typcache.h"

/* --------------------------------------------------------------------------
 * Keys
 * -------------------------------------------------------------------------- */

/* Does the index take the same values for equal as the column's type and collation do? */
static bool
has_equality_of_column(Relation index, int i, Form_pg_attribute column)
{
	TypeCacheEntry *type = lookup_type_cache(getBaseType(column->atttypid), TYPECACHE_EQ_OPR);
	Oid			collation = index->rd_indcollation[i];

	if (get_op_opfamily_strategy(type->eq_opr, index->rd_opfamily[i]) != BTEqualStrategyNumber)
		return false;
	return collation == column->attcollation ||
		(get_collation_isdeterministic(collation) && get_collation_isdeterministic(column->attcollation));
}

/* The columns of an index that ON CONFLICT can use to tell rows apart; NULL: it cannot. */
static Bitmapset *
index_columns(Relation table, Relation index)
{
	Form_pg_index form = index->rd_index;
	Bitmapset  *columns = NULL;

	if (!form->indisunique || !form->indimmediate || !form->indisvalid ||
		RelationGetIndexExpressions(index) != NIL || RelationGetIndexPredicate(index) != NIL)
		return NULL;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	column = form->indkey.values[i];

		if (!has_equality_of_column(index, i, TupleDescAttr(RelationGetDescr(table), column - 1)))
			return NULL;
		columns = bms_add_member(columns, column);
	}
	return columns;
}

static bool
has_unique_index(Relation table, const Bitmapset *key)
{
	bool		found = false;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(table))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		found = bms_equal(key, index_columns(table, index));
		index_close(index, NoLock);
		if (found)
			break;
	}
	return found;
}

void
spine_conflict_check_key(const List *relations, const char *target_name, char **keys, int nkeys)
{
	Relation	table = table_open(llast_oid(relations), AccessShareLock);
	Bitmapset  *columns = NULL;
	StringInfoData names;

	Assert(IsTransactionState());
	initStringInfo(&names);
	for (int i = 0; i < nkeys; i++)
	{
		AttrNumber	column = get_attnum(linitial_oid(relations), keys[i]);

		column = spine_view_table_column(relations, column);
		if (column > 0)
			columns = bms_add_member(columns, column);
		appendStringInfo(&names, "%s%s", i ? ", " : "", quote_identifier(keys[i]));
	}
	if (bms_num_members(columns) != nkeys || !has_unique_index(table, columns))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("table %s has no unique index on the key (%s)", target_name, names.data),
				 errdetail("A partial index, an index on expressions and a deferrable constraint do not count."),
				 errhint("Create the index, or change \"key\" in spine_sinks.")));
	table_close(table, NoLock);
}

/* The name of the target's column that shows this column of the table, or NULL. */
static char *
name_in_target(const List *relations, AttrNumber table_column)
{
	Relation	target = relation_open(linitial_oid(relations), AccessShareLock);
	char	   *name = NULL;

	for (AttrNumber i = 1; i <= RelationGetNumberOfAttributes(target) && name == NULL; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(target), i - 1);

		if (!column->attisdropped && spine_view_table_column(relations, i) == table_column)
			name = pstrdup(NameStr(column->attname));
	}
	relation_close(target, NoLock);
	return name;
}

/* False: a column of the primary key is not among the target's. */
static bool
read_primary_key(Relation index, const List *relations, char ***keys, int *nkeys)
{
	*nkeys = index->rd_index->indnkeyatts;
	*keys = palloc(*nkeys * sizeof(char *));
	for (int i = 0; i < *nkeys; i++)
	{
		(*keys)[i] = name_in_target(relations, index->rd_index->indkey.values[i]);
		if ((*keys)[i] == NULL)
			return false;
	}
	return true;
}

char	  **
spine_conflict_primary_key(const List *relations, const char *target_name, int *nkeys)
{
	Relation	table = table_open(llast_oid(relations), AccessShareLock);
	char	  **keys = NULL;
	bool		found = false;
	ListCell   *cell;

	Assert(IsTransactionState());
	foreach(cell, RelationGetIndexList(table))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		found = index->rd_index->indisprimary && index_columns(table, index) != NULL &&
			read_primary_key(index, relations, &keys, nkeys);
		index_close(index, NoLock);
		if (found)
			break;
	}
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("table %s has no primary key to recognize rows by", target_name),
				 errdetail("A deferrable primary key does not count."),
				 errhint("Add a primary key, or name the columns of another unique index in \"key\" in spine_sinks.")));
	table_close(table, NoLock);
	return keys;
}

/* --------------------------------------------------------------------------
 * Columns
 * -------------------------------------------------------------------------- */

/* Does something compute with all columns of a row before the conflict is found? */
static bool
looks_at_whole_rows(Relation table)
{
	TupleDesc	columns = RelationGetDescr(table);

	for (int i = 0; i < columns->natts; i++)
	{
		if (TupleDescAttr(columns, i)->attgenerated)
			return true;
	}
	return table->rd_rel->relrowsecurity ||
		(table->trigdesc && table->trigdesc->trig_insert_before_row);
}

static bool
is_checked(Relation table, AttrNumber column)
{
	TupleConstr *constraints = RelationGetDescr(table)->constr;
	Bitmapset  *columns = NULL;

	for (int i = 0; constraints && i < constraints->num_check; i++)
		pull_varattnos(stringToNode(constraints->check[i].ccbin), 1, &columns);
	return bms_is_member(column - FirstLowInvalidHeapAttributeNumber, columns) ||
		bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns);
}

bool
spine_conflict_can_leave_out(const List *relations, const char *column_name)
{
	Relation	table;
	Form_pg_attribute column;
	bool		result;

	Assert(IsTransactionState());

	/* a partition may have constraints of its own */
	if (list_length(relations) > 1 || get_rel_relkind(linitial_oid(relations)) != RELKIND_RELATION)
		return false;
	table = table_open(linitial_oid(relations), AccessShareLock);
	column = TupleDescAttr(RelationGetDescr(table),
						   get_attnum(RelationGetRelid(table), column_name) - 1);
	result = (!column->attnotnull || column->atthasdef || column->attidentity) &&
		get_typtype(column->atttypid) != TYPTYPE_DOMAIN &&
		!looks_at_whole_rows(table) && !is_checked(table, column->attnum);
	table_close(table, NoLock);
	return result;
}

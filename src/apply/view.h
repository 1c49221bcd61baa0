/*
 * view.h
 *		What is below a view that can be updated: the relation whose rows it shows.
 */
#ifndef SPINE_VIEW_H
#define SPINE_VIEW_H

#include "compat.h"

#include "access/attnum.h"
#include "nodes/pg_list.h"

/*
 * The relation below a view, or InvalidOid if there is not exactly one.  In a transaction that
 * has locked the view, or locks nothing and takes what the caches say.
 */
extern Oid	spine_view_below(Oid view);

/*
 * The target itself, the views below it, and last the table.  They are locked in this mode as
 * they are found.  In a transaction.
 */
extern List *spine_view_relations(Oid target, int lockmode);

/* The column of relations' last that this column of their first is, or InvalidAttrNumber. */
extern AttrNumber spine_view_table_column(const List *relations, AttrNumber column);

#endif							/* SPINE_VIEW_H */

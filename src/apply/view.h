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
 * The relation below a view; InvalidOid if there is not exactly one, or the relation is no
 * view.  Keeps AccessShareLock on the view.  In a transaction.
 */
extern Oid	spine_view_below(Oid view);

/* The number of the column below this column of a view; InvalidAttrNumber: it is an expression. */
extern AttrNumber spine_view_column_below(Oid view, AttrNumber column);

/*
 * The target itself, the views below it, and last the table.  They are locked in this mode as
 * they are found.  In a transaction.
 */
extern List *spine_view_relations(Oid target, int lockmode);

/* The column of relations' last that this column of their first is, or InvalidAttrNumber. */
extern AttrNumber spine_view_table_column(const List *relations, AttrNumber column);

#endif							/* SPINE_VIEW_H */

/*
 * conflict.h
 *		What INSERT ... ON CONFLICT needs of a target: a unique index on the key, and rows that
 *		can be proposed although a column has no value yet.
 */
#ifndef SPINE_CONFLICT_H
#define SPINE_CONFLICT_H

#include "compat.h"

#include "nodes/pg_list.h"

/*
 * The columns of the target's primary key; a view's is that of its table.  relations: see
 * view.h.  Raises an error (structural) if there is none.  In a transaction.
 */
extern char **spine_conflict_primary_key(const List *relations, const char *target_name, int *nkeys);

/*
 * Raises an error (structural) unless a unique index has exactly these columns, and takes the
 * same values for equal as the columns' types do.  In a transaction.
 */
extern void spine_conflict_check_key(const List *relations, const char *target_name,
									 char **keys, int nkeys);

/*
 * May a column be missing from a row that is proposed?  A row that is there already would
 * keep its own value, but what looks at the proposed row before that is known sees the
 * column's default.  So the answer is no if something might refuse it.
 */
extern bool spine_conflict_can_leave_out(const List *relations, const char *column);

#endif							/* SPINE_CONFLICT_H */

/*
 * table_insert.h
 *		Rows into a table the way COPY takes them: without a statement, but with all that
 *		the executor does for one (privileges, indexes, constraints, generated columns,
 *		triggers, partitions).
 *
 * Rules and row security are the planner's work: such tables need a statement.
 */
#ifndef SPINE_TABLE_INSERT_H
#define SPINE_TABLE_INSERT_H

#include "compat.h"

#include "access/attnum.h"

/* What can be known of a table before a transaction: it is kept from insert to insert. */
typedef struct SpineInsertTarget SpineInsertTarget;

/* Rows on their way into the table, as one statement would write them. */
typedef struct SpineTableInsert SpineTableInsert;

/*
 * The target of inserts that give these columns (NULL is allowed for n = 0).  In the current
 * memory context.  In a transaction, as the role that the inserts are made as, with a lock on
 * the table.
 */
extern SpineInsertTarget *spine_insert_target_make(Oid table, const AttrNumber *columns, int ncolumns);

/*
 * Begins an insert, which lives in the current memory context.  It sees what was written
 * before.  The privileges of the current role are checked, and the statement's BEFORE triggers
 * are fired.  In a transaction that holds RowExclusiveLock on the table.  After an error, the
 * end of the (sub)transaction cleans up.
 */
extern SpineTableInsert *spine_table_insert_begin(const SpineInsertTarget *target);

/*
 * Adds a row: its values by column of the target; they need not last.  A column that is
 * missing takes its default.
 */
extern void spine_table_insert_add(SpineTableInsert *insert, const Datum *values,
								   const bool *nulls, const bool *missing);

/* All rows are in the table, and its AFTER triggers are fired. */
extern void spine_table_insert_end(SpineTableInsert *insert);

#endif							/* SPINE_TABLE_INSERT_H */

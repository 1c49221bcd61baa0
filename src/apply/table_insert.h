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

#include "apply/table_row.h"
#include "compat.h"

/* Rows on their way into the table, as one statement would write them. */
typedef struct SpineTableInsert SpineTableInsert;

/*
 * Begins an insert, which lives in the current memory context.  It sees what was written
 * before.  The privileges of the current role are checked, and the statement's BEFORE triggers
 * are fired.  In a transaction that holds RowExclusiveLock on the table.  After an error, the
 * end of the (sub)transaction cleans up.
 */
extern SpineTableInsert *spine_table_insert_begin(const SpineRowTarget *target);

/*
 * Adds a row: its values by column of the target; they need not last.  A column that is
 * missing takes its default.
 */
extern void spine_table_insert_add(SpineTableInsert *insert, const Datum *values,
								   const bool *nulls, const bool *missing);

/* All rows are in the table, and its AFTER triggers are fired. */
extern void spine_table_insert_end(SpineTableInsert *insert);

#endif							/* SPINE_TABLE_INSERT_H */

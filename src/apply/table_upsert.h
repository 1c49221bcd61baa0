/*
 * table_upsert.h
 *		Rows into a table as INSERT ... ON CONFLICT DO UPDATE writes them: without a statement,
 *		but with all that the executor does for one (privileges, locks, indexes, constraints,
 *		generated columns, triggers).
 *
 * Rules, row security, views and partitioned tables are the planner's work, and BEFORE ROW
 * triggers may change what the row is: such tables need the statement.
 */
#ifndef SPINE_TABLE_UPSERT_H
#define SPINE_TABLE_UPSERT_H

#include "apply/sink.h"

/* Rows on their way into the table, as one statement would write them. */
typedef struct SpineTableUpsert SpineTableUpsert;

/*
 * The target of upserts into the table of a sink whose statement is plain (plain_statement.h)
 * and finds rows in the index `arbiter`; NULL if the table needs the statement.  Versions must
 * compare as integers.  In the sink's memory context.  In a transaction, as the role that the
 * rows are written as, with a lock on the table.
 */
extern SpineUpsertTarget *spine_upsert_target_make(const SpineSink *sink, Oid arbiter);

/*
 * Begins an upsert, which lives in the current memory context.  It sees what was written
 * before.  The rows lack the columns that are left out (by column of the sink; NULL: none).  The
 * privileges of the current role are checked, and the statement's BEFORE triggers are
 * fired.  In a READ COMMITTED transaction that holds RowExclusiveLock on the table.  After an error,
 * the end of the (sub)transaction cleans up.
 */
extern SpineTableUpsert *spine_table_upsert_begin(const SpineUpsertTarget *target, const bool *left_out);

/*
 * Writes a row, unless the one with its key is newer or the same: its values by column of the
 * sink; they need not last.  No key and no version is null, and no key comes twice.  Waits for
 * transactions that write the same key.
 */
extern void spine_table_upsert_add(SpineTableUpsert *upsert, const Datum *values, const bool *nulls);

/* All rows are in the table, and its AFTER triggers are fired.  Returns how many were written. */
extern uint64 spine_table_upsert_end(SpineTableUpsert *upsert);

#endif							/* SPINE_TABLE_UPSERT_H */

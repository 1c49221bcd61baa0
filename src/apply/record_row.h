/*
 * record_row.h
 *		A record as the row that SQL expressions see: its columns, and the fields that are
 *		decoded so that they need no jsonb of the whole record.
 */
#ifndef SPINE_RECORD_ROW_H
#define SPINE_RECORD_ROW_H

#include "apply/column.h"

#include "access/tupdesc.h"
#include "event/event.h"
#include "nodes/bitmapset.h"
#include "nodes/nodes.h"

/* The row as the expressions of one sink use it. */
typedef struct SpineRecordRow SpineRecordRow;

/*
 * In the current memory context.  What the row needs of each record will be added to
 * `fields`.  max_record_memory: as in plan.h.
 */
extern SpineRecordRow *spine_record_row_make(SpineFieldList *fields, size_t max_record_memory);

/* Its type: the columns that a user knows, and those of fields that were added. */
extern TupleDesc spine_record_row_type(const SpineRecordRow *row);

/*
 * Replaces value->'a'->>'b' and the like in an analysed expression by columns of their own,
 * whose values are decoded fields.  Sets *needed to the columns that the result reads, as
 * attribute numbers.  The result is in the current memory context.
 */
extern Node *spine_record_row_take_fields(SpineRecordRow *row, Node *expr, Bitmapset **needed);

/* A column as SQL, such as value->'a'->>'b'; palloc'ed. */
extern char *spine_record_row_column(const SpineRecordRow *row, int attribute);

/* Is this column one that makes jsonb of a whole key, value or set of headers? */
extern bool spine_record_row_is_whole(int attribute);

/*
 * The value of a column, in the current memory context.  Raises an error when the record's
 * bytes do not fit.  With the settings of role.h.
 */
extern Datum spine_record_row_value(const SpineRecordRow *row, int attribute,
									const SpineEvent *event, bool *isnull);

#endif							/* SPINE_RECORD_ROW_H */

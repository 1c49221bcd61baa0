/*
 * kept_rows.h
 *		The newest row of each key, over the pieces of a transaction.
 */
#ifndef SPINE_KEPT_ROWS_H
#define SPINE_KEPT_ROWS_H

#include "apply/rows.h"

typedef struct SpineKeptRows SpineKeptRows;

/*
 * Can rows of this sink be kept?  Keys must be equal if their bytes are, versions must
 * compare as integers, and what an event lacks must be known before its row is made.
 */
extern bool spine_kept_rows_suit(const SpineSink *sink);

/* Nothing is kept yet.  In the current memory context. */
extern SpineKeptRows *spine_kept_rows_make(SpineSink *sink);

/*
 * Takes rows->events, in log order, which spine_rows_compute has been given: converts all
 * their values, and keeps the newest row of each key.  False: nothing is taken, since not
 * all rows lack the same columns, or the statement would have to name these.  Raises an
 * error for the first value that does not fit.  As spine_rows_make; the current memory
 * context is to be reset soon.
 */
extern bool spine_kept_rows_add(SpineKeptRows *kept, SpineRows *rows);

/* How many bytes are kept, about. */
extern size_t spine_kept_rows_size(const SpineKeptRows *kept);

/*
 * Writes the rows, and keeps none afterwards.  directly: to the sink's upsert_target, without
 * the statement.  As spine_write_rows.
 */
extern void spine_kept_rows_write(SpineKeptRows *kept, bool directly, SpineApplyCounts *counts);

#endif							/* SPINE_KEPT_ROWS_H */

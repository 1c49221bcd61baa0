/*
 * apply.h
 *		One statement per sink and batch.
 */
#ifndef SPINE_APPLY_H
#define SPINE_APPLY_H

#include "apply/target.h"

/*
 * Locks the targets against ALTER TABLE and makes deferred constraints check
 * at once, so that a refused record is refused while the batch can still find
 * it.  Returns false when the plan does not hold any more; raises an error when
 * the targets are not to be written to (trust.h).  First thing in the transaction.
 */
extern bool spine_apply_begin(const SpinePlan *plan);

/*
 * Converts the values of events[*at..n-1] for a target, without applying them, and
 * raises an error for the first that does not fit: *at is that event then, and n
 * otherwise.  In a transaction.
 */
extern void spine_convert(const SpineTarget *target, const SpineEvent *events, size_t n,
						  size_t *at);

/*
 * Applies events[0..n-1], in log order, to every target.  skip_existing: rows
 * of an append sink with a key that are there already are left alone; otherwise they
 * raise a unique violation, which is the faster way when there are none.  In a
 * transaction with SPI; raises whatever the database says, and what spine_convert
 * would.  Returns how many rows the sinks in mode upsert have written.
 */
extern uint64 spine_apply(SpinePlan *plan, const SpineEvent *events, size_t n,
						  bool skip_existing);

#endif							/* SPINE_APPLY_H */

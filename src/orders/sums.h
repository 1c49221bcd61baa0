/*
 * sums.h
 *		The sums over the orders that a statement has changed, in spine_order_totals,
 *		spine_order_sums and spine_order_counts.
 */
#ifndef SPINE_SUMS_H
#define SPINE_SUMS_H

#include "compat.h"

#include "datatype/timestamp.h"
#include "utils/relcache.h"

/* A row of current_orders. */
typedef struct SpineOrder
{
	const text *tenant;
	const text *order_id;
	const text *status;
	const text *currency;
	int64		amount_cents;
	TimestampTz updated_at;
} SpineOrder;

typedef struct SpineSums SpineSums;

/* Nothing is added up yet.  Its memory is in the context that is current at each call. */
extern SpineSums *spine_sums_make(void);

/* Adds a row as it is now, or subtracts one as it was.  The order is copied. */
extern void spine_sums_add(SpineSums *sums, const SpineOrder *order, bool is_new);

/*
 * Writes them into spine_order_totals, spine_order_sums and spine_order_counts.  With an
 * active snapshot, and locks on the tables for writing.
 */
extern void spine_sums_write(const SpineSums *all, Relation totals, Relation sums, Relation counts);

#endif							/* SPINE_SUMS_H */

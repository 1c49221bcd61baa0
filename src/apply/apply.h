/*
 * apply.h
 *		Writes events to the sinks of a plan, one sink after another.
 */
#ifndef SPINE_APPLY_H
#define SPINE_APPLY_H

#include "apply/plan.h"

typedef enum SpineApplyOutcome
{
	SPINE_APPLIED,
	SPINE_PLAN_OUTDATED,		/* a table has changed: make the plan again */
	SPINE_TABLE_AT_FAULT,		/* the records are not to blame */
	SPINE_TOO_MANY_REFUSALS		/* for one transaction */
} SpineApplyOutcome;

/*
 * Locks the sinks' tables against ALTER TABLE, and makes deferred constraints check at
 * once until the transaction ends, so that a record is refused while it can still be
 * found.  Returns false if the plan is outdated; raises an error if the tables must not be
 * written to (trust.h).  In a transaction, before the following.
 */
extern bool spine_apply_begin(const SpinePlan *plan);

/*
 * Converts the values of events[*at..n-1] for a sink, without applying them.  Raises an
 * error for the first event that does not fit: *at is that event then, and n otherwise.
 * *looking_up: see spine_rows_convert.
 */
extern void spine_apply_convert(const SpinePlan *plan, const SpineSink *sink,
								const SpineEvent *events, size_t n, size_t *at,
								bool *looking_up);

/*
 * Applies events[0..n-1], in log order, to every sink.  With SPI.  Raises what the
 * database says, and what spine_apply_convert would.
 */
extern SpineApplyCounts spine_apply(SpinePlan *plan, const SpineEvent *events, size_t n,
									SpineSinkStatement which);

/*
 * The sinks of a plan while events are added to them, piece by piece, in one transaction.
 * Lives in the memory context of its start.  An error leaves it to the end of the
 * transaction.
 */
typedef struct SpineApplying SpineApplying;

/* After spine_apply_begin. */
extern SpineApplying *spine_apply_start(SpinePlan *plan);

/*
 * Applies events[0..n-1], in log order, behind those added before.  Of sinks that update
 * rows it may keep the rows in memory until the finish; the events need not last.  Raises
 * what spine_apply would with SPINE_SINK_PLAIN.
 */
extern void spine_apply_add(SpineApplying *applying, const SpineEvent *events, size_t n);

/* About how many bytes of rows are kept in memory. */
extern size_t spine_apply_held(const SpineApplying *applying);

/* Are there sinks whose rows are updated with each piece?  Their keys are in order only in it. */
extern bool spine_apply_updates_at_once(const SpineApplying *applying);

/* Writes what is kept, and ends. */
extern SpineApplyCounts spine_apply_finish(SpineApplying *applying);

#endif							/* SPINE_APPLY_H */

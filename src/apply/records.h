/*
 * records.h
 *		Records to rows: decode, bind, reduce, apply, and find the records to blame.
 *
 * These functions know nothing of positions, nor of the process that calls them: a
 * worker's batch calls them between its fence and its positions; a backend may call them in
 * its own transaction, and roll that back.
 */
#ifndef SPINE_RECORDS_H
#define SPINE_RECORDS_H

#include "apply/search.h"

/* Records after decoding.  Applying them does not change this: every attempt sees the same. */
typedef struct SpineDecoded
{
	MemoryContext context;		/* of the arrays here, and of all dead letters */
	size_t		nrecords;
	size_t		nevents;
	SpineEvent *events;			/* in the order of the records */
	size_t		nletters;
	SpineDeadLetter *letters;	/* of the records that cannot be decoded */
} SpineDecoded;

/*
 * Decodes records with the plan's decoder.  The result lies in the current memory context,
 * and is valid until spine_records_forget or the next call for the plan, whichever is
 * first; the records must last as long.  Needs no transaction, and looks nothing up.
 * Raises an error (transient) when there is no memory.
 */
extern void spine_records_decode(SpinePlan *plan, const SpineRecord *records, size_t n,
								 SpineDecoded *decoded);

/* Frees what the plan's decoder holds of the records it has decoded. */
extern void spine_records_forget(SpinePlan *plan);

/*
 * Starts to write events to the sinks of the plan, in the caller's transaction with SPI, in
 * the current memory context, which lasts as long as the transaction.  NULL: the plan is
 * outdated.  The events are added with spine_apply_add; an error of the database is raised.
 */
extern SpineApplying *spine_records_start(SpinePlan *plan);

/* Writes what is not written yet; the transaction may be committed then. */
extern SpineApplyCounts spine_records_finish(SpinePlan *plan, SpineApplying *applying);

/*
 * Writes decoded records to the sinks of the plan, in the caller's transaction with SPI;
 * records that the database refuses become dead letters: see search.h, also for the outcomes
 * and for `breaker`.  Slower by far if there are many such records.
 */
extern SpineApplyOutcome spine_records_search(SpinePlan *plan, const SpineDecoded *decoded,
											  int breaker, SpineApplied *applied);

#endif							/* SPINE_RECORDS_H */

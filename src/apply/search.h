/*
 * search.h
 *		Finds the records to blame when the database refuses a batch.
 */
#ifndef SPINE_SEARCH_H
#define SPINE_SEARCH_H

#include "apply/apply.h"
#include "apply/dead_letters.h"
#include "error.h"

/* At most this many subtransactions of one transaction write. */
#define SPINE_MAX_SUBTRANSACTIONS	60

/* How many records in a row the database has refused for one reason. */
typedef struct SpineRefusals
{
	int			n;
	SpineError	error;			/* of the last of them */
} SpineRefusals;

/* What became of the records of a batch: see records.h. */
typedef struct SpineApplied
{
	SpineRefusals refusals;		/* in a row, over several calls: set it before; valid
								 * afterwards with SPINE_APPLIED */

	/* with SPINE_APPLIED: */
	size_t		nletters;
	SpineDeadLetter *letters;	/* of all that were not applied, in the order of the records */
	SpineApplyCounts counts;
	int			nsubtransactions;	/* that the search has written in */

	/* with SPINE_TABLE_AT_FAULT: */
	SpineError	error;

	/* with SPINE_TOO_MANY_REFUSALS: the first record that there was no room for */
	const SpineRecord *unsettled;
} SpineApplied;

/*
 * Applies all events that can be applied, and adds dead letters of the others to those in
 * `applied`, which has room for them.  The events are in log order; their array is
 * overwritten.  `context` is for the reasons of the dead letters.  In a transaction with
 * SPI, after spine_apply_begin.  Unless it returns SPINE_APPLIED, the work of the
 * transaction is to be rolled back:
 *
 * SPINE_TABLE_AT_FAULT: no record passes, other than by being filtered, and the error of one
 * is about the schema or the server; or `breaker` records in a row are refused for one reason
 * (0: never).
 * SPINE_TOO_MANY_REFUSALS: the search would take more than SPINE_MAX_SUBTRANSACTIONS.  The
 * caller applies the records before `unsettled` by themselves.
 *
 * Rethrows transient errors.
 */
extern SpineApplyOutcome spine_search(SpinePlan *plan, SpineEvent *events, size_t n, int breaker,
									  MemoryContext context, SpineApplied *applied);

#endif							/* SPINE_SEARCH_H */

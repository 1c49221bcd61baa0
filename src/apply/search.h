/*
 * search.h
 *		Finds the records to blame when the database refuses a batch.
 */
#ifndef SPINE_SEARCH_H
#define SPINE_SEARCH_H

#include "apply/apply.h"
#include "apply/dead_letters.h"
#include "error.h"

/* So many subtransactions of one transaction write at most. */
#define SPINE_MAX_SUBTRANSACTIONS	60

/* How many records in a row the database has refused for one reason. */
typedef struct SpineRefusals
{
	int			n;
	SpineError	error;			/* of the last of them */
} SpineRefusals;

typedef struct SpineSearch
{
	SpinePlan  *plan;
	SpineEvent *events;			/* in log order; the search reorders them */
	size_t		nevents;
	SpineDeadLetter *letters;	/* room for one per event */
	MemoryContext context;		/* for the reasons of the letters */
	int			breaker;		/* so many refusals in a row are the table's fault; 0: none are */
	SpineRefusals refusals;		/* those before these events, and afterwards those of them, too */

	/* out, with SPINE_APPLIED: */
	size_t		nletters;
	uint64		nupserts;		/* rows written by sinks that count them */
	int			nsubtransactions;	/* that wrote and are kept */

	/* out, with SPINE_TABLE_AT_FAULT: */
	SpineError	error;

	/* out, with SPINE_TOO_MANY_REFUSALS: the first record that there was no room for */
	const SpineRecord *unsettled;

	/* the search's own, all zero at first */
	size_t		npassed;		/* events that are applied */
	int			nrefused;		/* in a row for one reason, among these events */
	bool		has_suspects;	/* refused as if the table were at fault */
	int			nsuspects;		/* of these: whose values are right */
	SpineError	suspicion;		/* of the last of them */
	SpineApplyOutcome outcome;
} SpineSearch;

/*
 * Applies all events that can be applied, and makes dead letters of the others.  In a
 * transaction with SPI, after spine_apply_begin.  Unless it returns SPINE_APPLIED, the
 * work of the transaction is to be rolled back:
 *
 * SPINE_TABLE_AT_FAULT: no record passes and the error of one is about the schema or the
 * server; or `breaker` records in a row are refused for one reason.
 * SPINE_TOO_MANY_REFUSALS: the search would take more than SPINE_MAX_SUBTRANSACTIONS.  The
 * caller applies the records before `unsettled` by themselves.
 *
 * Rethrows transient errors.
 */
extern SpineApplyOutcome spine_search(SpineSearch *search);

#endif							/* SPINE_SEARCH_H */

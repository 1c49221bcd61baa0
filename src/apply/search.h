/*
 * search.h
 *		Finds the records to blame when the database refuses a batch.
 */
#ifndef SPINE_SEARCH_H
#define SPINE_SEARCH_H

#include "apply/transaction.h"
#include "apply/dead_letters.h"
#include "apply/target.h"

/* How many records in a row the database has refused for one reason. */
typedef struct SpineRefusals
{
	int			n;
	SpineError	error;			/* of the last of them */
} SpineRefusals;

typedef enum SpineSearchOutcome
{
	SPINE_SEARCH_DONE,
	SPINE_SEARCH_TABLE_AT_FAULT,
	SPINE_SEARCH_TOO_LARGE
} SpineSearchOutcome;

typedef struct SpineSearch
{
	SpinePlan  *plan;
	SpineEvent *events;			/* in log order; used up by the search */
	size_t		nevents;
	SpineDeadLetter *letters;	/* room for one per event */
	int			breaker;		/* spine.breaker_records */
	SpineRefusals refusals;		/* of the batches before, and then of this one, too */

	/* out, with SPINE_SEARCH_DONE: */
	size_t		nletters;
	uint64		nupserts;		/* rows written by sinks in mode upsert */
	int			nsubtransactions;	/* that wrote and are kept */

	/* out, with SPINE_SEARCH_TABLE_AT_FAULT: */
	SpineError	error;

	/* out, with SPINE_SEARCH_TOO_LARGE: the first record that there was no room for */
	const SpineRecord *unsettled;

	/* while it runs */
	size_t		npassed;		/* events that are applied */
	int			nrefused;		/* in a row for one reason, in this batch */
	bool		has_suspects;	/* refused as if the table were at fault */
	int			nsuspects;		/* of these: whose values are right */
	SpineError	suspicion;		/* of the last of them */
	SpineSearchOutcome outcome;
} SpineSearch;

/* So many subtransactions of one transaction write at most. */
#define SPINE_MAX_SUBTRANSACTIONS	60

/*
 * Applies all events that can be applied, and makes dead letters of the others.  In a
 * transaction, which is to be rolled back unless SPINE_SEARCH_DONE is returned:
 *
 * SPINE_SEARCH_TABLE_AT_FAULT: the table is at fault, not the records; *error says why.
 * That is so when no record passes and the error of one is about the schema or the
 * server, or when `breaker` records in a row are refused for one reason.
 * SPINE_SEARCH_TOO_LARGE: the search would take more than SPINE_MAX_SUBTRANSACTIONS.
 * The caller applies the records before `unsettled` by themselves.
 *
 * Rethrows transient errors.
 */
extern SpineSearchOutcome spine_search(SpineSearch *search);

#endif							/* SPINE_SEARCH_H */

/*
 * batch.h
 *		A batch: the records applied in one transaction.
 */
#ifndef SPINE_BATCH_H
#define SPINE_BATCH_H

#include "attempt.h"
#include "offsets.h"
#include "record.h"
#include "search.h"
#include "target.h"

/* What a batch is made of, and what is said of it afterwards. */
typedef struct SpineBatch
{
	SpineLog	log;
	SpinePlan  *plan;
	const SpineRecord *records; /* in log order within each partition */
	size_t		nrecords;
	SpinePosition *positions;	/* those that the batch moves */
	int			npositions;
	SpineRefusals *refusals;	/* of the batches before; updated when SPINE_DONE */
	bool		expects_refusals;	/* do not try it plainly first */

	/* out, when SPINE_DONE: */
	size_t		nevents;		/* applied */
	size_t		ndead_letters;
	uint64		nupserts;		/* rows written by sinks in mode upsert */
	int			nsubtransactions;	/* that it took to find refused records */

	/* out, when SPINE_TOO_LARGE: */
	size_t		nsettled;
} SpineBatch;

/*
 * Applies the batch: rows, dead letters and offsets in one commit, or nothing.
 *
 * SPINE_DONE: committed; positions[].records and dead_letters say how many.
 * SPINE_ABANDONED: the offsets were moved by someone else, or a target was
 * altered: look again.  SPINE_TRANSIENT, SPINE_STRUCTURAL: *error says what.
 * SPINE_TOO_LARGE: so many of the records are refused that only the first
 * `nsettled` can be applied in one transaction.
 * SPINE_REFUSED: only at commit, by a check that no single record is to blame
 * for; to be treated as SPINE_STRUCTURAL.
 */
extern SpineOutcome spine_batch_run(SpineBatch *batch, SpineError *error);

#endif							/* SPINE_BATCH_H */

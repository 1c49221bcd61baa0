/*
 * batch.h
 *		A batch: the records applied in one transaction.
 */
#ifndef SPINE_BATCH_H
#define SPINE_BATCH_H

#include "apply/records.h"
#include "process/positions.h"

/* What a batch is made of, and what is said of it afterwards. */
typedef struct SpineBatch
{
	SpineLog	log;
	SpinePlan  *plan;
	const SpineRecord *records; /* in log order within each partition */
	size_t		nrecords;
	SpineMove  *moves;			/* their counts are set by a commit */
	int			nmoves;
	SpineRefusals *refusals;	/* of the batches before; updated by a commit */
	int			breaker;		/* see search.h */
	bool		expects_refusals;	/* search at once, do not try it plainly first */

	/* out, when it is committed: */
	size_t		nevents;		/* applied */
	size_t		ndead_letters;
	SpineApplyCounts counts;
	int			nsubtransactions;	/* that it took to find refused records */

	/* out, when it is too large: */
	size_t		nsettled;
} SpineBatch;

typedef enum SpineBatchOutcome
{
	SPINE_BATCH_COMMITTED,
	SPINE_BATCH_MOVED,			/* someone else has moved a position: read again from
								 * where the database stands */
	SPINE_BATCH_TARGET_CHANGED, /* the plan does not hold any more: make it again; the
								 * records are still right */
	SPINE_BATCH_GONE,			/* the extension is not where it was */
	SPINE_BATCH_TOO_LARGE,		/* so many records are refused that only the first
								 * `nsettled` can be applied in one transaction */
	SPINE_BATCH_FAILED			/* *error says why; SPINE_REFUSED only if a check at
								 * commit refused it, for which no record is to blame */
} SpineBatchOutcome;

/*
 * Applies the batch: rows, dead letters and positions in one commit, or nothing.  Not in a
 * transaction.  What it allocates is gone when it returns.
 */
extern SpineBatchOutcome spine_batch_run(SpineBatch *batch, SpineError *error);

#endif							/* SPINE_BATCH_H */

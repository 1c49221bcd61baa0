/*
 * batch.h
 *		A batch: the records applied in one transaction.
 *
 * A batch consists of pieces, mostly of one.  While there is a backlog, more are added: a
 * piece is read, applied and freed before the next one, so that a large batch takes no more
 * memory than a piece.
 */
#ifndef SPINE_BATCH_H
#define SPINE_BATCH_H

#include "apply/records.h"
#include "process/positions.h"

/* Records that are in memory together, and how they move the positions. */
typedef struct SpinePiece
{
	const SpineRecord *records; /* in log order within each partition */
	size_t		nrecords;
	SpineMove  *moves;			/* in the order of their topics and partitions */
	int			nmoves;
} SpinePiece;

typedef struct SpineBatch SpineBatch;

/* What a batch is made of, and what is said of it afterwards. */
struct SpineBatch
{
	SpineLog	log;
	SpinePlan  *plan;
	SpinePiece	piece;			/* the first one; then the one that is being applied */

	/*
	 * Frees `piece`, which is applied, and replaces it by the next one.  False: there is none,
	 * the batch is to be committed; `piece` is then empty if it is freed.  In the transaction;
	 * may raise an error.  NULL: the batch has one piece.
	 */
	bool		(*next)(SpineBatch *batch, void *arg);
	void	   *next_arg;
	size_t		npieces;		/* applied by then */
	size_t		nheld;			/* bytes of rows that are kept in memory until the commit */
	bool		updates_at_once;	/* some sink's rows are updated with each piece */
	bool		is_partly_freed;	/* set by `next`: not all records are there any more */

	/*
	 * Of all pieces, and so at first of the first one.  A batch that may have more pieces has
	 * a move of each partition, though it may lead nowhere: so all rows are locked at once, in
	 * one order.  If each piece locked the rows that it comes to, spine_seek and the batch
	 * could wait for each other.
	 */
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
	bool		was_searched;	/* for refused records */
	int			nsubtransactions;	/* that it took to find them */

	/* out, when it is too large: */
	size_t		nsettled;
};

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
 * transaction.  What it allocates is gone when it returns.  Refused records are searched for
 * only while all records are there: if the batch fails and is partly freed, it is to be read
 * again, in batches of one piece.
 */
extern SpineBatchOutcome spine_batch_run(SpineBatch *batch, SpineError *error);

#endif							/* SPINE_BATCH_H */

/*
 * batch.c
 *		The promise: rows, dead letters and positions in one transaction.
 *
 * The records are decoded first, before any transaction; those of later pieces inside it,
 * which is as well while decoding looks nothing up.  Then they are applied plainly.  When the
 * database refuses that, they are applied once more in a way that finds the records to blame:
 * see search.c.
 */
#include "process/batch.h"

#include "access/xact.h"
#include "apply/transaction.h"
#include "catalog/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/memutils.h"

/* A batch while it runs. */
typedef struct BatchRun
{
	SpineBatch *batch;
	MemoryContext piece_context;	/* of what is decoded */
	SpineDecoded decoded;		/* the current piece */
	bool		searching;		/* for refused records */
	SpineApplying *applying;	/* unless it is searching; NULL: not started */
	size_t		nevents;		/* of all pieces */
	size_t		ndead_letters;	/* the same */
	SpineApplied applied;		/* by the last attempt */
	SpineBatchOutcome outcome;	/* of an attempt that was rolled back without an error */
} BatchRun;

/* Step: decodes the current piece. */
static bool
decode(void *arg)
{
	BatchRun   *run = arg;
	const SpinePiece *piece = &run->batch->piece;
	MemoryContext old_context;

	MemoryContextReset(run->piece_context);
	old_context = MemoryContextSwitchTo(run->piece_context);
	spine_records_decode(run->batch->plan, piece->records, piece->nrecords, &run->decoded);
	MemoryContextSwitchTo(old_context);
	return true;
}

/* --------------------------------------------------------------------------
 * What a piece has of each partition
 * -------------------------------------------------------------------------- */

static bool
is_of(const SpineRecord *record, const SpineMove *move)
{
	return record->partition == move->partition && record->topic == move->topic;
}

static SpineMove *
find_move(const SpinePiece *piece, const SpineRecord *record)
{
	for (int i = 0; i < piece->nmoves; i++)
	{
		if (is_of(record, &piece->moves[i]))
			return &piece->moves[i];
	}
	return NULL;
}

/* Says of each move of the current piece how many records it covers. */
static void
count_per_partition(const SpinePiece *piece, const SpineDeadLetter *letters, size_t nletters)
{
	SpineMove  *move = NULL;

	for (int i = 0; i < piece->nmoves; i++)
		piece->moves[i].nrecords = piece->moves[i].ndead_letters = 0;

	/* neighbours are mostly of one partition */
	for (size_t i = 0; i < piece->nrecords; i++)
	{
		if (move == NULL || !is_of(&piece->records[i], move))
			move = find_move(piece, &piece->records[i]);
		if (move)
			move->nrecords++;
	}
	for (size_t i = 0; i < nletters; i++)
	{
		move = find_move(piece, letters[i].record);
		if (move)
			move->ndead_letters++;
	}
}

/* Adds the moves of the current piece to those of the pieces before it. */
static void
join_moves(SpineBatch *batch)
{
	SpineMove  *whole = batch->moves;

	for (int i = 0; i < batch->piece.nmoves; i++)
	{
		const SpineMove *move = &batch->piece.moves[i];

		/* both are in one order, and the batch has the moves of all partitions */
		while (whole->topic != move->topic || whole->partition != move->partition)
			whole++;
		Assert(whole->to == move->from);
		whole->to = move->to;
		whole->mark_offset = move->mark_offset;
		whole->mark_crc = move->mark_crc;
		whole->nrecords += move->nrecords;
		whole->ndead_letters += move->ndead_letters;
	}
}

/* --------------------------------------------------------------------------
 * The transaction
 * -------------------------------------------------------------------------- */

static bool
roll_back(BatchRun *run, SpineBatchOutcome outcome)
{
	run->outcome = outcome;
	return false;
}

/* The rows of the current piece; false: roll back. */
static bool
apply(BatchRun *run, MemoryContext transaction_context)
{
	SpineBatch *batch = run->batch;

	if (run->applying == NULL)
	{
		MemoryContext old_context = MemoryContextSwitchTo(transaction_context);

		run->applying = spine_records_start(batch->plan);
		MemoryContextSwitchTo(old_context);
		if (run->applying == NULL)
			return roll_back(run, SPINE_BATCH_TARGET_CHANGED);
	}
	if (run->decoded.nevents > 0)
		spine_apply_add(run->applying, run->decoded.events, run->decoded.nevents);
	run->applied.nletters = run->decoded.nletters;
	run->applied.letters = run->decoded.letters;
	return true;
}

/* The same, in a way that finds the records to blame. */
static bool
search(BatchRun *run)
{
	SpineBatch *batch = run->batch;

	switch (spine_records_search(batch->plan, &run->decoded, batch->breaker, &run->applied))
	{
		case SPINE_APPLIED:
			return true;
		case SPINE_PLAN_OUTDATED:
			return roll_back(run, SPINE_BATCH_TARGET_CHANGED);
		case SPINE_TABLE_AT_FAULT:
			return roll_back(run, SPINE_BATCH_FAILED);
		case SPINE_TOO_MANY_REFUSALS:
			return roll_back(run, SPINE_BATCH_TOO_LARGE);
	}
	pg_unreachable();
}

/* The promise, for the current piece.  With SPI of its own; false: roll back. */
static bool
apply_piece(BatchRun *run, MemoryContext transaction_context)
{
	SpineBatch *batch = run->batch;
	const SpinePiece *piece = &batch->piece;
	const char *schema = spine_extension_schema();

	/* the bookkeeping tables are found by name: they must still be in this schema */
	if (schema == NULL || strcmp(schema, batch->log.schema) != 0)
		return roll_back(run, SPINE_BATCH_GONE);
	if (!spine_positions_move(&batch->log, piece->moves, piece->nmoves))
		return roll_back(run, SPINE_BATCH_MOVED);
	if (!(run->searching ? search(run) : apply(run, transaction_context)))
		return false;
	spine_dead_letters_write(schema, &batch->log.pipeline, run->applied.letters, run->applied.nletters);
	count_per_partition(piece, run->applied.letters, run->applied.nletters);
	run->nevents += piece->nrecords - run->applied.nletters;
	run->ndead_letters += run->applied.nletters;
	return true;
}

/* Replaces the current piece by the next one; false: there is none. */
static bool
take_next_piece(BatchRun *run)
{
	SpineBatch *batch = run->batch;

	if (run->searching || batch->next == NULL)
		return false;
	CHECK_FOR_INTERRUPTS();
	batch->nheld = spine_apply_held(run->applying);
	batch->updates_at_once = spine_apply_updates_at_once(run->applying);
	if (!batch->next(batch, batch->next_arg))
		return false;

	/* the next batch has it, after the plan is made again */
	AcceptInvalidationMessages();
	if (!spine_plan_is_current(batch->plan))
	{
		batch->piece.nrecords = batch->piece.nmoves = 0;
		return false;
	}
	batch->nrecords += batch->piece.nrecords;
	(void) decode(run);
	return true;
}

/* Step: the pieces. */
static bool
run_transaction(void *arg)
{
	BatchRun   *run = arg;
	SpineBatch *batch = run->batch;
	MemoryContext transaction_context = CurrentMemoryContext;

	run->applied = (SpineApplied) {.refusals = *batch->refusals};
	run->applying = NULL;
	run->nevents = run->ndead_letters = batch->npieces = 0;
	do
	{
		bool		is_done;

		/* what a piece allocates is gone with it */
		SPI_connect();
		is_done = apply_piece(run, transaction_context);
		SPI_finish();
		if (!is_done)
			return false;
		if (batch->npieces++ > 0)
			join_moves(batch);
	} while (take_next_piece(run));

	if (!run->searching)
	{
		run->applied.counts = spine_records_finish(batch->plan, run->applying);
		if (run->nevents > 0)
			run->applied.refusals.n = 0;
	}
	return true;
}

/* One transaction. */
static SpineBatchOutcome
attempt(BatchRun *run, SpineError *error)
{
	switch (spine_transaction_run(run_transaction, run, error))
	{
		case SPINE_COMMITTED:
			return SPINE_BATCH_COMMITTED;
		case SPINE_ROLLED_BACK:
			if (run->outcome == SPINE_BATCH_FAILED)
				*error = run->applied.error;
			return run->outcome;
		case SPINE_ABORTED:
			break;
	}
	return SPINE_BATCH_FAILED;
}

static SpineBatchOutcome
run_attempts(BatchRun *run, SpineError *error)
{
	SpineBatchOutcome outcome;

	if (!spine_step_run(decode, run, error))
		return SPINE_BATCH_FAILED;
	run->searching = run->batch->expects_refusals;
	outcome = attempt(run, error);
	if (outcome == SPINE_BATCH_FAILED && error->class != SPINE_TRANSIENT && !run->searching &&
		!run->batch->is_partly_freed)
	{
		run->searching = true;
		outcome = attempt(run, error);
	}
	return outcome;
}

/* What the caller wants to know of a batch that is committed. */
static void
report(const BatchRun *run)
{
	SpineBatch *batch = run->batch;

	batch->ndead_letters = run->ndead_letters;
	batch->nevents = run->nevents;
	batch->was_searched = run->searching;
	batch->counts = run->applied.counts;
	batch->nsubtransactions = run->applied.nsubtransactions;
	*batch->refusals = run->applied.refusals;
}

SpineBatchOutcome
spine_batch_run(SpineBatch *batch, SpineError *error)
{
	BatchRun	run = {.batch = batch};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	SpineBatchOutcome outcome;

	Assert(!IsTransactionState());
	run.piece_context = AllocSetContextCreate(context, "spine piece", ALLOCSET_DEFAULT_SIZES);
	outcome = run_attempts(&run, error);
	if (outcome == SPINE_BATCH_COMMITTED)
		report(&run);
	else if (outcome == SPINE_BATCH_TOO_LARGE)
		batch->nsettled = run.applied.unsettled - batch->piece.records;

	spine_records_forget(batch->plan);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return outcome;
}

/*
 * batch.c
 *		The promise: rows, dead letters and positions in one transaction.
 *
 * The records are decoded first, before any transaction.  Then they are applied plainly.
 * When the database refuses that, they are applied once more in a way that finds the
 * records to blame: see search.c.
 */
#include "process/batch.h"

#include "access/xact.h"
#include "apply/transaction.h"
#include "catalog/extension.h"
#include "utils/memutils.h"

/* A batch while it runs. */
typedef struct BatchRun
{
	SpineBatch *batch;
	SpineDecoded decoded;
	bool		searching;		/* for refused records */
	SpineApplied applied;		/* by the last attempt */
	SpineBatchOutcome outcome;	/* of an attempt that was rolled back without an error */
} BatchRun;

/* Step. */
static bool
decode(void *arg)
{
	BatchRun   *run = arg;

	spine_records_decode(run->batch->plan, run->batch->records, run->batch->nrecords, &run->decoded);
	return true;
}

static bool
roll_back(BatchRun *run, SpineBatchOutcome outcome)
{
	run->outcome = outcome;
	return false;
}

/* The rows; false: roll back. */
static bool
apply(BatchRun *run)
{
	SpineBatch *batch = run->batch;
	SpineApplyOutcome outcome;

	run->applied = (SpineApplied) {.refusals = *batch->refusals};
	if (run->searching)
		outcome = spine_records_search(batch->plan, &run->decoded, batch->breaker, &run->applied);
	else
		outcome = spine_records_apply(batch->plan, &run->decoded, &run->applied);

	switch (outcome)
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

/* Step: the promise. */
static bool
run_transaction(void *arg)
{
	BatchRun   *run = arg;
	SpineBatch *batch = run->batch;
	const char *schema = spine_extension_schema();

	/* the bookkeeping tables are found by name: they must still be in this schema */
	if (schema == NULL || strcmp(schema, batch->log.schema) != 0)
		return roll_back(run, SPINE_BATCH_GONE);
	if (!spine_positions_move(&batch->log, batch->moves, batch->nmoves))
		return roll_back(run, SPINE_BATCH_MOVED);
	if (!apply(run))
		return false;
	spine_dead_letters_write(schema, &batch->log.pipeline, run->applied.letters, run->applied.nletters);
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
	if (outcome == SPINE_BATCH_FAILED && error->class != SPINE_TRANSIENT && !run->searching)
	{
		run->searching = true;
		outcome = attempt(run, error);
	}
	return outcome;
}

static bool
is_of(const SpineRecord *record, const SpineMove *move)
{
	return record->partition == move->partition && record->topic == move->topic;
}

static SpineMove *
find_move(const SpineBatch *batch, const SpineRecord *record)
{
	for (int i = 0; i < batch->nmoves; i++)
	{
		if (is_of(record, &batch->moves[i]))
			return &batch->moves[i];
	}
	return NULL;
}

/* Says of each move how many records it covers. */
static void
count_per_partition(const BatchRun *run)
{
	const SpineBatch *batch = run->batch;
	SpineMove  *move = NULL;

	for (int i = 0; i < batch->nmoves; i++)
		batch->moves[i].nrecords = batch->moves[i].ndead_letters = 0;

	/* neighbours are mostly of one partition */
	for (size_t i = 0; i < batch->nrecords; i++)
	{
		if (move == NULL || !is_of(&batch->records[i], move))
			move = find_move(batch, &batch->records[i]);
		if (move)
			move->nrecords++;
	}
	for (size_t i = 0; i < run->applied.nletters; i++)
	{
		move = find_move(batch, run->applied.letters[i].record);
		if (move)
			move->ndead_letters++;
	}
}

/* What the caller wants to know of a batch that is committed. */
static void
report(const BatchRun *run)
{
	SpineBatch *batch = run->batch;

	batch->ndead_letters = run->applied.nletters;
	batch->nevents = batch->nrecords - run->applied.nletters;
	batch->counts = run->applied.counts;
	batch->nsubtransactions = run->applied.nsubtransactions;
	*batch->refusals = run->applied.refusals;
	count_per_partition(run);
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
	outcome = run_attempts(&run, error);
	if (outcome == SPINE_BATCH_COMMITTED)
		report(&run);
	else if (outcome == SPINE_BATCH_TOO_LARGE)
		batch->nsettled = run.applied.unsettled - batch->records;

	spine_records_forget(batch->plan);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return outcome;
}

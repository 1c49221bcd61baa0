/*
 * batch.c
 *		The promise: rows, dead letters and offsets in one transaction.
 *
 * A batch is tried plainly first.  When the database refuses it, it is run again
 * in a way that finds the records to blame: see search.c.
 */
#include "process/batch.h"

#include "catalog/extension.h"
#include "apply/apply.h"
#include "apply/dead_letters.h"
#include "apply/search.h"
#include "process/settings.h"
#include "apply/trust.h"
#include "utils/memutils.h"

/* A batch while it runs. */
typedef struct BatchRun
{
	SpineBatch *batch;
	SpineEvent *events;
	size_t		nevents;
	SpineDeadLetter *letters;	/* room for every record */
	size_t		nletters;
	bool		decoded;
	bool		searching;		/* for refused records */
	SpineSearch search;
	MemoryContext context;		/* of the run, over all its attempts */
	SpineBatchOutcome outcome;	/* of an attempt that was rolled back without an error */
} BatchRun;

/* SQLSTATEs of what decoding refuses. */
static const char *const decode_sqlstates[] = {
	[SPINE_NO_VALUE] = "22004",
	[SPINE_MALFORMED] = "22P02",
	[SPINE_BEYOND_LIMIT] = "54000",
};

static void
decode_records(BatchRun *run)
{
	SpineBatch *batch = run->batch;
	SpinePlan  *plan = batch->plan;
	MemoryContext old_context = MemoryContextSwitchTo(run->context);

	plan->format->reset(plan->decoder);
	run->nevents = run->nletters = 0;
	run->events = MemoryContextAllocHuge(CurrentMemoryContext,
										 Max(batch->nrecords, 1) * sizeof(SpineEvent));
	run->letters = MemoryContextAllocHuge(CurrentMemoryContext,
										  Max(batch->nrecords, 1) * sizeof(SpineDeadLetter));

	for (size_t i = 0; i < batch->nrecords; i++)
	{
		const SpineRecord *record = &batch->records[i];
		SpineDecodeOutcome outcome;
		char		reason[256];

		outcome = plan->format->decode(plan->decoder, record, (size_t) spine_max_record_memory_kb * 1024,
									   &run->events[run->nevents], reason, sizeof(reason));
		if (outcome == SPINE_DECODED)
			run->nevents++;
		else if (outcome == SPINE_DECODE_NO_MEMORY)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		else
			run->letters[run->nletters++] =
				spine_make_dead_letter(record, decode_sqlstates[outcome], reason);
	}
	run->decoded = true;
	MemoryContextSwitchTo(old_context);
}

/* Applies what can be applied.  False: roll back; run->search says why. */
static bool
search(BatchRun *run)
{
	SpineBatch *batch = run->batch;

	run->search = (SpineSearch) {
		.plan = batch->plan,
		.events = run->events,
		.nevents = run->nevents,
		.letters = run->letters + run->nletters,
		.breaker = spine_breaker_records,
		.refusals = *batch->refusals
	};
	if (spine_search(&run->search) != SPINE_SEARCH_DONE)
		return false;
	run->nletters += run->search.nletters;
	batch->nupserts = run->search.nupserts;
	return true;
}

static int
compare_letters(const void *a, const void *b)
{
	const SpineRecord *record_a = ((const SpineDeadLetter *) a)->record;
	const SpineRecord *record_b = ((const SpineDeadLetter *) b)->record;

	return (record_a > record_b) - (record_a < record_b);
}

static bool
roll_back(BatchRun *run, SpineBatchOutcome outcome)
{
	run->outcome = outcome;
	return false;
}

/* The promise. */
static bool
run_transaction(void *arg)
{
	BatchRun   *run = arg;
	SpineBatch *batch = run->batch;
	const char *schema = spine_extension_schema();

	if (!run->decoded)
		decode_records(run);
	batch->nupserts = 0;

	/* the bookkeeping tables are found by name: it must be theirs still */
	if (schema == NULL || strcmp(schema, batch->log.schema) != 0)
		return roll_back(run, SPINE_BATCH_GONE);
	if (!spine_offsets_lock(&batch->log, batch->positions, batch->npositions))
		return roll_back(run, SPINE_BATCH_MOVED);
	if (!spine_apply_begin(batch->plan))
		return roll_back(run, SPINE_BATCH_TARGET_CHANGED);
	if (run->searching)
	{
		if (!search(run))
			return roll_back(run, run->search.outcome == SPINE_SEARCH_TOO_LARGE ?
							 SPINE_BATCH_TOO_LARGE : SPINE_BATCH_FAILED);
		/* in the order of the log, whatever was found first */
		qsort(run->letters, run->nletters, sizeof(SpineDeadLetter), compare_letters);
	}
	else if (run->nevents > 0)
		batch->nupserts = spine_apply(batch->plan, run->events, run->nevents, false);

	/* what has changed meanwhile is no record's fault, nor may it be committed */
	spine_check_trust(batch->plan);
	spine_write_dead_letters(&batch->log, run->letters, run->nletters);
	spine_offsets_move(&batch->log, batch->positions, batch->npositions);
	return true;
}

static void
count_per_position(const BatchRun *run)
{
	SpineBatch *batch = run->batch;

	for (int p = 0; p < batch->npositions; p++)
	{
		batch->positions[p].records = 0;
		batch->positions[p].dead_letters = 0;
	}
	for (size_t i = 0; i < batch->nrecords; i++)
	{
		for (int p = 0; p < batch->npositions; p++)
			batch->positions[p].records += batch->positions[p].partition == batch->records[i].partition;
	}
	for (size_t i = 0; i < run->nletters; i++)
	{
		for (int p = 0; p < batch->npositions; p++)
			batch->positions[p].dead_letters +=
				batch->positions[p].partition == run->letters[i].record->partition;
	}
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
				*error = run->search.error;
			return run->outcome;
		case SPINE_ABORTED:
			break;
	}
	return SPINE_BATCH_FAILED;
}

SpineBatchOutcome
spine_batch_run(SpineBatch *batch, SpineError *error)
{
	BatchRun	run = {.batch = batch};
	SpineBatchOutcome outcome;

	run.context = AllocSetContextCreate(CurrentMemoryContext, "spine batch",
										ALLOCSET_DEFAULT_SIZES);
	run.searching = batch->expects_refusals;
	outcome = attempt(&run, error);
	if (outcome == SPINE_BATCH_FAILED && error->class != SPINE_TRANSIENT && !run.searching)
	{
		run.searching = true;
		outcome = attempt(&run, error);
	}

	if (outcome == SPINE_BATCH_TOO_LARGE)
		batch->nsettled = run.search.unsettled - batch->records;
	if (outcome == SPINE_BATCH_COMMITTED)
	{
		batch->ndead_letters = run.nletters;
		batch->nevents = batch->nrecords - run.nletters;
		batch->nsubtransactions = run.search.nsubtransactions;
		if (run.searching)
			*batch->refusals = run.search.refusals;
		else if (run.nevents > 0)
			batch->refusals->n = 0;
		count_per_position(&run);
	}

	batch->plan->format->reset(batch->plan->decoder);
	MemoryContextDelete(run.context);
	return outcome;
}

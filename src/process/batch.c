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
#include "event/decode.h"
#include "apply/search.h"
#include "process/settings.h"
#include "apply/trust.h"
#include "utils/memutils.h"

/* Events whose fields are allocated at a time. */
#define FIELDS_CHUNK	1000

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
	[SPINE_NOT_JSON] = "22P02",
	[SPINE_BEYOND_LIMIT] = "54000",
};

/* The fields' texts are the record's, or, of strings with escapes, the run's. */
static SpineDecodeOutcome
decode_record(const SpinePlan *plan, const SpineRecord *record, SpineField *fields,
			  char *reason, size_t reason_size)
{
	SpineDecodeOutcome outcome = spine_decode(record->value, record->value_len,
											  plan->fields, plan->nfields,
											  (size_t) spine_max_record_memory_kb * 1024,
											  fields, reason, reason_size);

	for (int i = 0; outcome == SPINE_DECODED && i < plan->nfields; i++)
	{
		if (fields[i].kind == SPINE_FIELD_ESCAPED)
			spine_unescape(&fields[i], palloc(fields[i].len));
	}
	return outcome;
}

static void
decode_records(BatchRun *run)
{
	SpineBatch *batch = run->batch;
	MemoryContext old_context = MemoryContextSwitchTo(run->context);
	int			nfields = batch->plan->nfields;
	SpineField *fields = NULL;
	int			room = 0;		/* for the fields of so many events */

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

		if (room == 0)
		{
			room = FIELDS_CHUNK;
			fields = palloc(room * Max(nfields, 1) * sizeof(SpineField));
		}
		outcome = decode_record(batch->plan, record, fields, reason, sizeof(reason));
		if (outcome == SPINE_DECODED)
		{
			SpineEvent *event = &run->events[run->nevents++];

			event->record = record;
			event->fields = fields;
			fields += nfields;
			room--;
		}
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
	if (!spine_positions_lock(&batch->log, batch->moves, batch->nmoves))
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
	spine_positions_move(&batch->log, batch->moves, batch->nmoves);
	return true;
}

static SpineMove *
find_move(const SpineBatch *batch, int32 partition)
{
	for (int i = 0; i < batch->nmoves; i++)
	{
		if (batch->moves[i].partition == partition)
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

	/* neighbours mostly are of one partition */
	for (size_t i = 0; i < batch->nrecords; i++)
	{
		if (move == NULL || move->partition != batch->records[i].partition)
			move = find_move(batch, batch->records[i].partition);
		if (move)
			move->nrecords++;
	}
	for (size_t i = 0; i < run->nletters; i++)
	{
		move = find_move(batch, run->letters[i].record->partition);
		if (move)
			move->ndead_letters++;
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
		count_per_partition(&run);
	}

	MemoryContextDelete(run.context);
	return outcome;
}

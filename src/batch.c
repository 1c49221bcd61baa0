/*
 * batch.c
 *		The promise: rows, dead letters and offsets in one transaction.
 *
 * A batch is tried plainly first.  When the database refuses its data, it is
 * run again in a way that finds the records to blame: in subtransactions, by
 * halves.
 */
#include "batch.h"

#include "apply.h"
#include "dead_letters.h"
#include "decode.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "settings.h"
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
	size_t		nundecodable;	/* letters that decoding made */
	size_t		nletters;
	size_t		ninternal;		/* of these, for an internal error */
	bool		decoded;
	bool		searching;		/* for refused records */
	MemoryContext context;		/* of the run, over all its attempts */
} BatchRun;

/* Part of a batch, applied in a subtransaction. */
typedef struct BatchRange
{
	BatchRun   *run;
	size_t		first;
	size_t		n;
	uint64		nupserts;		/* out */
} BatchRange;

static void
add_dead_letter(BatchRun *run, const SpineRecord *record, const char *sqlstate, const char *reason)
{
	SpineDeadLetter *letter = &run->letters[run->nletters++];

	letter->record = record;
	strlcpy(letter->sqlstate, sqlstate, sizeof(letter->sqlstate));
	letter->reason = pstrdup(reason);
}

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
			add_dead_letter(run, record, decode_sqlstates[outcome], reason);
	}
	run->nundecodable = run->nletters;
	run->decoded = true;
	MemoryContextSwitchTo(old_context);
}

static bool
apply_range(void *arg)
{
	BatchRange *range = arg;

	range->nupserts = spine_apply(range->run->batch->plan,
								  range->run->events + range->first, range->n, true);
	return true;
}

/* Applies the range but for the records in it that the database refuses. */
static void
search_range(BatchRun *run, size_t first, size_t n)
{
	BatchRange	range = {.run = run, .first = first, .n = n};
	SpineError	error;

	CHECK_FOR_INTERRUPTS();
	if (n == 0)
		return;

	if (spine_attempt_nested(apply_range, &range, &error) == SPINE_DONE)
		run->batch->nupserts += range.nupserts;
	else if (n == 1)
	{
		add_dead_letter(run, run->events[first].record, error.sqlstate, error.text);
		run->ninternal += strcmp(error.sqlstate, "XX000") == 0;
	}
	else
	{
		search_range(run, first, n / 2);
		search_range(run, first + n / 2, n - n / 2);
	}
}

/*
 * An internal error may be the fault of a record (some types raise it for bad
 * data), or of the server, or ours.  When no record passes, it is not theirs.
 */
static void
search(BatchRun *run)
{
	run->ninternal = 0;
	search_range(run, 0, run->nevents);
	if (run->ninternal > 0 && run->nletters - run->nundecodable == run->nevents)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", run->letters[run->nletters - 1].reason)));
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
	run->nletters = run->nundecodable;
	batch->nupserts = 0;

	/* the bookkeeping tables are found by name: it must be theirs still */
	if (schema == NULL || strcmp(schema, batch->log.schema) != 0)
		return false;
	if (!spine_offsets_lock(&batch->log, batch->positions, batch->npositions))
		return false;
	if (!spine_apply_begin(batch->plan))
		return false;
	if (run->searching)
		search(run);
	else if (run->nevents > 0)
		batch->nupserts = spine_apply(batch->plan, run->events, run->nevents, false);
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

SpineOutcome
spine_batch_run(SpineBatch *batch, SpineError *error)
{
	BatchRun	run = {.batch = batch};
	SpineOutcome outcome;

	run.context = AllocSetContextCreate(CurrentMemoryContext, "spine batch",
										ALLOCSET_DEFAULT_SIZES);
	outcome = spine_attempt(run_transaction, &run, error);
	if (outcome == SPINE_REFUSED)
	{
		run.searching = true;
		outcome = spine_attempt(run_transaction, &run, error);
	}

	if (outcome == SPINE_DONE)
	{
		batch->ndead_letters = run.nletters;
		batch->nevents = batch->nrecords - run.nletters;
		count_per_position(&run);
	}

	MemoryContextDelete(run.context);
	return outcome;
}

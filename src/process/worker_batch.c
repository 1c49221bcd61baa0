/*
 * worker_batch.c
 *		How a worker reads records, and when it applies them.
 *
 * A worker that has nothing else to do applies a record at once.  After a batch it rests, so
 * that while records keep coming it uses a part of a core only, and applies those that have
 * come meanwhile together.  Under load batches become larger by themselves.
 */
#include "process/worker_internal.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "catalog/topics.h"
#include "process/batch.h"
#include "process/counters.h"
#include "process/settings.h"
#include "process/status.h"
#include "utils/timestamp.h"

#define PARTITION_CHECK_MS		10000	/* new topics and partitions, a broker that is back */

/* With small records and a wide table, the fields take the most memory: 64 MB here. */
#define MAX_PIECE_FIELDS		(4 * 1024 * 1024)

/* After a batch that was well, the next one may have so many times as many pieces. */
#define GROWTH					8
#define MAX_PIECES				1024
#define MAX_HELD_BYTES			((size_t) 64 * 1024 * 1024)

/* So long a batch waits for the records that the log has, and the library has not. */
#define MAX_GAP_MS				50

/* --------------------------------------------------------------------------
 * READING
 * -------------------------------------------------------------------------- */

/* How many records a piece may have, by its rows and by its decoded fields. */
static int
piece_limit(const SpineWorker *worker)
{
	return Max(Min(spine_settings_max_piece(), MAX_PIECE_FIELDS / Max(worker->plan->fields.n, 1)), 1);
}

static void
log_summary(SpineWorker *worker)
{
	if (worker->summary_batches == 0 || spine_log_interval_s < 0 ||
		!spine_worker_is_due(worker->summary_logged, spine_log_interval_s * 1000))
		return;

	ereport(LOG,
			(errmsg("pipeline \"%s\" worker %d: applied " INT64_FORMAT " events in " INT64_FORMAT " batches, " INT64_FORMAT " dead letters",
					NameStr(worker->pipeline_name), worker->index, worker->summary_events,
					worker->summary_batches, worker->summary_dead_letters)));
	worker->summary_logged = GetCurrentTimestamp();
	worker->summary_events = worker->summary_batches = worker->summary_dead_letters = 0;
}

/*
 * Work that comes due with time.  Returns how long until the next, in ms; 0: the broker is
 * committing to the group.
 */
static long
do_chores(SpineWorker *worker, bool has_batch)
{
	long		due_ms = spine_consumer_commit_to_group(worker->consumer, has_batch);

	log_summary(worker);
	if (due_ms >= 0)
		return due_ms;
	if (worker->summary_batches > 0 && spine_log_interval_s >= 0)
		return Max(spine_log_interval_s * 1000L, 100);
	return PARTITION_CHECK_MS;
}

/* The rest after a batch; 0: it is over. */
static long
rest_ms(const SpineWorker *worker)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), worker->rests_until);
}

/* Is there a batch to be applied now?  If not, sleeps for a while, if it may. */
static SpineStage
await_batch(SpineWorker *worker, bool is_full, bool may_sleep)
{
	bool		has_batch = spine_consumer_has_batch(worker->consumer);
	long		timeout_ms = do_chores(worker, has_batch);

	if (timeout_ms == 0)
		return SPINE_READING;
	if (has_batch && (is_full || rest_ms(worker) <= 0))
		return SPINE_APPLYING;
	if (!has_batch && spine_consumer_reached_end(worker->consumer))
		spine_worker_publish(worker);
	if (!may_sleep)
		return SPINE_READING;

	/* more records cannot end the rest, and so need not wake the worker up */
	if (has_batch)
		spine_worker_nap(worker, rest_ms(worker));
	else
	{
		if (!spine_consumer_is_well(worker->consumer))
			timeout_ms = Min(timeout_ms, SPINE_STUCK_RETRY_MS);
		spine_worker_sleep(worker, timeout_ms);
	}
	return SPINE_READING;
}

SpineStage
spine_worker_read(SpineWorker *worker)
{
	SpinePoll	poll = spine_consumer_poll(worker->consumer, piece_limit(worker));
	bool		must_ask = poll.kind == SPINE_POLL_BROKER_SILENT ||
		spine_worker_is_due(worker->asked_at, PARTITION_CHECK_MS);

	if (poll.kind == SPINE_POLL_LOG_LOST)
	{
		worker->is_assigned = false;
		return spine_worker_next_stage(worker);
	}
	if (poll.kind == SPINE_POLL_PARTITION_STUCK)	/* the others go on */
	{
		worker->has_stuck = true;
		spine_worker_status_stuck(&worker->status, &poll.stuck, spine_topics_is_one(worker->log.topics));
	}
	else if (worker->has_stuck && spine_consumer_is_well(worker->consumer))
		spine_worker_report_running(worker);

	if (must_ask && !spine_worker_find_topics(worker))
		return spine_worker_meet_error(worker);
	if (!worker->is_assigned)
		return SPINE_ASSIGNING;

	/* asking may have reset the latch, and more partitions may be stuck */
	return await_batch(worker, poll.is_full, poll.kind == SPINE_POLL_RECORDS && !must_ask);
}

/* --------------------------------------------------------------------------
 * The pieces of a batch: records that are applied while the log has a full piece more
 * -------------------------------------------------------------------------- */

/* Of a batch, for next_piece. */
typedef struct Growth
{
	SpineWorker *worker;
	MemoryContext context;		/* of the moves */
	instr_time	start;
	double		taken_ms;		/* from the start until the last piece was applied */
} Growth;

/* Expressions that look rows up would find others than in small batches. */
static bool
looks_up(const SpinePlan *plan)
{
	for (int i = 0; i < plan->nsinks; i++)
	{
		if (spine_projection_looks_up(plan->sinks[i].projection))
			return true;
	}
	return false;
}

static bool
has_backlog(SpineWorker *worker)
{
	return spine_consumer_backlog(worker->consumer) >= piece_limit(worker);
}

static bool
may_grow(SpineWorker *worker)
{
	return spine_batch_time_ms > 0 &&
		worker->max_pieces > 1 && worker->part == 0 && worker->nsuspects == 0 &&
		spine_batch_rows >= 2 * piece_limit(worker) &&
		!looks_up(worker->plan) && has_backlog(worker);
}

static double
passed_ms(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

/*
 * May another piece follow?  Others may wait for the locks of the batch.  Besides the time that
 * it takes records, that is the time to write the rows that are kept until the end.
 *
 * Two workers that update rows of one table, each piece in the order of its keys, would wait for
 * each other if they kept the locks of several pieces.
 */
static bool
has_room(const SpineBatch *batch, const Growth *growth)
{
	double		finish_ms = batch->nheld * growth->worker->finish_byte_ms;

	return growth->taken_ms < spine_batch_time_ms &&
		growth->taken_ms + finish_ms < 2.0 * spine_batch_time_ms &&
		batch->npieces < growth->worker->max_pieces &&
		batch->nrecords + piece_limit(growth->worker) <= (size_t) spine_batch_rows &&
		batch->nheld < MAX_HELD_BYTES &&
		!(batch->updates_at_once && growth->worker->workers > 1);
}

/* Waits a little for records that the log has. */
static size_t
await_records(SpineWorker *worker)
{
	instr_time	start;
	size_t		nrecords = 0;
	long		left_ms;

	INSTR_TIME_SET_CURRENT(start);
	while (spine_consumer_take_more(worker->consumer))
	{
		(void) spine_consumer_records(worker->consumer, &nrecords);
		left_ms = MAX_GAP_MS - (long) passed_ms(start);
		if (nrecords > 0 || left_ms <= 0)
			return nrecords;
		CHECK_FOR_INTERRUPTS();
		spine_consumer_wait(worker->consumer, left_ms);
	}
	return 0;
}

/* For spine_batch_run. */
static bool
next_piece(SpineBatch *batch, void *arg)
{
	Growth	   *growth = arg;
	SpineWorker *worker = growth->worker;
	SpinePiece *piece = &batch->piece;
	MemoryContext old_context;

	growth->taken_ms = passed_ms(growth->start);
	if (!has_room(batch, growth) || spine_worker_has_news(worker) || !has_backlog(worker) ||
		spine_worker_wants_to_share(worker, batch))
		return false;

	spine_consumer_finish_batch(worker->consumer, piece->nrecords, piece->moves, piece->nmoves);
	batch->is_partly_freed = true;
	if (piece->moves != batch->moves)
		pfree(piece->moves);
	*piece = (SpinePiece) {.nrecords = await_records(worker)};
	if (piece->nrecords == 0)
		return false;

	piece->records = spine_consumer_records(worker->consumer, &piece->nrecords);
	old_context = MemoryContextSwitchTo(growth->context);
	piece->moves = spine_consumer_moves(worker->consumer, piece->nrecords, false, &piece->nmoves);
	MemoryContextSwitchTo(old_context);
	return true;
}

/*
 * How many pieces the next batch may have, after this one.  What is refused is found in
 * batches of one piece, so they are the rule until all is well again.
 */
static void
adjust_growth(SpineWorker *worker, bool is_well)
{
	if (!is_well)
		worker->max_pieces = 1;
	else if (worker->nsuspects == 0)
		worker->max_pieces = Min(worker->max_pieces * GROWTH, MAX_PIECES);
}

/* A batch that could grow is committed: how long it took to write what was kept until the end. */
static void
note_finish(SpineWorker *worker, const SpineBatch *batch, const Growth *growth, double batch_ms)
{
	if (batch->nheld > 0)
		worker->finish_byte_ms = (batch_ms - growth->taken_ms) / batch->nheld;
}

/* --------------------------------------------------------------------------
 * APPLYING
 * -------------------------------------------------------------------------- */

/* Names the batch in every error and log line that it causes. */
static void
batch_error_context(void *arg)
{
	const SpineBatch *batch = arg;

	errcontext("applying %zu records of topic \"%s\" for pipeline \"%s\", partition %d from offset " INT64_FORMAT "%s",
			   batch->nrecords, batch->moves[0].topic, NameStr(batch->log.pipeline),
			   batch->moves[0].partition, batch->moves[0].from,
			   batch->nmoves > 1 ? " and others" : "");
}

static void
finish_batch(SpineWorker *worker, const SpineBatch *batch, instr_time duration)
{
	int			rest_ms = Min(INSTR_TIME_GET_MILLISEC(duration), spine_batch_interval_ms);

	spine_consumer_finish_batch(worker->consumer, batch->piece.nrecords, batch->piece.moves, batch->piece.nmoves);
	spine_consumer_look_further(worker->consumer, false);
	spine_counters_add_batch(&worker->pipeline_name, &batch->counts, INSTR_TIME_GET_DOUBLE(duration));
	spine_status_publish_batch(&worker->log, batch->moves, batch->nmoves, INSTR_TIME_GET_MILLISEC(duration));
	worker->rests_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), rest_ms);
	worker->summary_events += batch->nevents;
	worker->summary_dead_letters += batch->ndead_letters;
	worker->summary_batches++;
	spine_worker_report_running(worker);

	/* larger again, as there is room for more refusals */
	if (batch->nsubtransactions <= SPINE_MAX_SUBTRANSACTIONS / 2)
		worker->part *= 2;
	if (worker->part >= (size_t) spine_settings_max_piece())
		worker->part = 0;

	spine_worker_share(worker, batch, INSTR_TIME_GET_MILLISEC(duration));
}

/* A batch could not be committed, for worker->error. */
static SpineStage
meet_batch_error(SpineWorker *worker, const SpineBatch *batch, bool is_whole)
{
	if (batch->is_partly_freed && worker->error.class != SPINE_TRANSIENT)
	{
		/* whether a record is to blame, and which, is found when they are read again */
		ereport(LOG,
				(errmsg("pipeline \"%s\" worker %d: %zu records were not applied, and will be read again in smaller batches: %s",
						NameStr(worker->pipeline_name), worker->index, batch->nrecords, worker->error.message)));
		return spine_worker_next_stage(worker);
	}
	if (worker->error.class == SPINE_STRUCTURAL)
	{
		/* one that passes may be among the others, or among those that follow */
		if (!is_whole)
		{
			worker->part = 0;
			return SPINE_READING;
		}
		spine_consumer_look_further(worker->consumer, true);
	}
	return spine_worker_meet_error(worker);
}

SpineStage
spine_worker_apply(SpineWorker *worker)
{
	Growth		growth = {.worker = worker, .context = CurrentMemoryContext};
	SpineBatch	batch = {
		.log = worker->log,
		.plan = worker->plan,
		.refusals = &worker->refusals,
		.breaker = spine_breaker_records,
		.expects_refusals = worker->part > 0,
		.next_arg = &growth
	};
	ErrorContextCallback callback = {error_context_stack, batch_error_context, &batch};
	SpineBatchOutcome outcome;
	instr_time	duration;
	size_t		nrecords;

	/* for those who look while the batch waits for somebody */
	spine_worker_publish(worker);
	spine_status_begin_batch(worker->status.slot);
	pgstat_report_activity(STATE_RUNNING, "applying a batch");
	spine_counters_add_records(&worker->pipeline_name, spine_consumer_take_count(worker->consumer));

	if (may_grow(worker))
		batch.next = next_piece;
	batch.piece.records = spine_consumer_records(worker->consumer, &nrecords);
	batch.nrecords = batch.piece.nrecords = worker->part ? Min(worker->part, nrecords) : nrecords;
	batch.moves = batch.piece.moves = spine_consumer_moves(worker->consumer, batch.nrecords,
														   batch.next != NULL, &batch.nmoves);
	batch.piece.nmoves = batch.nmoves;

	INSTR_TIME_SET_CURRENT(growth.start);
	error_context_stack = &callback;
	outcome = spine_batch_run(&batch, &worker->error);
	error_context_stack = callback.previous;
	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, growth.start);

	/* of later pieces */
	spine_counters_add_records(&worker->pipeline_name, spine_consumer_take_count(worker->consumer));
	adjust_growth(worker, outcome == SPINE_BATCH_COMMITTED && !batch.was_searched);
	if (outcome == SPINE_BATCH_COMMITTED)
	{
		worker->nsuspects -= Min(worker->nsuspects, batch.nrecords);
		note_finish(worker, &batch, &growth, INSTR_TIME_GET_MILLISEC(duration));
	}
	else if (batch.is_partly_freed)
	{
		worker->nsuspects = batch.nrecords;
		worker->is_assigned = false;	/* to read from where the database stands */
	}

	switch (outcome)
	{
		case SPINE_BATCH_COMMITTED:
			finish_batch(worker, &batch, duration);
			break;
		case SPINE_BATCH_TOO_LARGE:
			worker->part = batch.nsettled;
			break;
		case SPINE_BATCH_MOVED:
			worker->is_assigned = false;
			break;
		case SPINE_BATCH_TARGET_CHANGED:
			spine_worker_forget_pipeline(worker);
			break;
		case SPINE_BATCH_GONE:
			worker->is_assigned = false;
			spine_worker_forget_pipeline(worker);
			break;
		case SPINE_BATCH_FAILED:
			return meet_batch_error(worker, &batch, batch.nrecords == nrecords);
	}
	return spine_worker_next_stage(worker);
}

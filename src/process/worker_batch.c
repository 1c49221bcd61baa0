/*
 * worker_batch.c
 *		How a worker reads records, and when it applies them.
 *
 * A worker that has nothing else to do applies a record at once.  After a batch it rests, so
 * that while records keep coming it uses a part of a core only, and applies those that have
 * come meanwhile together.  Under load batches become larger by themselves.
 */
#include "process/worker_internal.h"

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
#define MAX_BATCH_FIELDS		(4 * 1024 * 1024)

/* --------------------------------------------------------------------------
 * READING
 * -------------------------------------------------------------------------- */

/* How many records a batch may have, by its rows and by its decoded fields. */
static int
batch_limit(const SpineWorker *worker)
{
	return Max(Min(spine_batch_rows, MAX_BATCH_FIELDS / Max(worker->plan->fields.n, 1)), 1);
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
do_chores(SpineWorker *worker)
{
	long		due_ms = spine_consumer_commit_to_group(worker->consumer);

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
	long		timeout_ms = do_chores(worker);
	bool		has_batch = spine_consumer_has_batch(worker->consumer);

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
	SpinePoll	poll = spine_consumer_poll(worker->consumer, batch_limit(worker));
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

	spine_consumer_finish_batch(worker->consumer, batch->nrecords, batch->moves, batch->nmoves);
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
		worker->piece *= 2;
	if (worker->piece >= (size_t) spine_batch_rows)
		worker->piece = 0;
}

/* A batch could not be committed, for worker->error. */
static SpineStage
meet_batch_error(SpineWorker *worker, bool is_whole)
{
	if (worker->error.class == SPINE_STRUCTURAL)
	{
		/* one that passes may be among the others, or among those that follow */
		if (!is_whole)
		{
			worker->piece = 0;
			return SPINE_READING;
		}
		spine_consumer_look_further(worker->consumer, true);
	}
	return spine_worker_meet_error(worker);
}

SpineStage
spine_worker_apply(SpineWorker *worker)
{
	SpineBatch	batch = {
		.log = worker->log,
		.plan = worker->plan,
		.refusals = &worker->refusals,
		.breaker = spine_breaker_records,
		.expects_refusals = worker->piece > 0
	};
	ErrorContextCallback callback = {error_context_stack, batch_error_context, &batch};
	SpineBatchOutcome outcome;
	instr_time	start;
	instr_time	duration;
	size_t		nrecords;

	/* for those who look while the batch waits for somebody */
	spine_worker_publish(worker);
	spine_status_begin_batch(worker->status.slot);
	pgstat_report_activity(STATE_RUNNING, "applying a batch");
	spine_counters_add_records(&worker->pipeline_name, spine_consumer_take_count(worker->consumer));

	batch.records = spine_consumer_records(worker->consumer, &nrecords);
	batch.nrecords = worker->piece ? Min(worker->piece, nrecords) : nrecords;
	batch.moves = spine_consumer_moves(worker->consumer, batch.nrecords, &batch.nmoves);

	INSTR_TIME_SET_CURRENT(start);
	error_context_stack = &callback;
	outcome = spine_batch_run(&batch, &worker->error);
	error_context_stack = callback.previous;
	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);

	switch (outcome)
	{
		case SPINE_BATCH_COMMITTED:
			finish_batch(worker, &batch, duration);
			break;
		case SPINE_BATCH_TOO_LARGE:
			worker->piece = batch.nsettled;
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
			return meet_batch_error(worker, batch.nrecords == nrecords);
	}
	return spine_worker_next_stage(worker);
}

/*
 * worker.c
 *		The life of a worker, as a machine:
 *
 *		LOADING ------> CONNECTING ------> ASSIGNING ------> READING <----> APPLYING
 *		the pipeline    a client           positions         records        a batch
 *
 * What a step finds to be no longer so leads back: a changed catalog to LOADING, another
 * broker to CONNECTING, a position that was moved to ASSIGNING (see next_state).  Trouble
 * leads to RESTING, and from there to where there is something to do.  Trouble that has a
 * class never ends the process: the worker says in its slot what is wrong, rests, and
 * looks again.
 */
#include "process/worker.h"

#include "apply/plan.h"
#include "apply/search.h"
#include "apply/transaction.h"
#include "catalog/extension.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "kafka/consumer.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "process/assignment.h"
#include "process/batch.h"
#include "process/counters.h"
#include "process/default_cluster.h"
#include "process/session_settings.h"
#include "process/settings.h"
#include "process/shared.h"
#include "process/status.h"
#include "process/worker_status.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define PARTITION_CHECK_MS		10000	/* new partitions, a broker that is back */
#define BROKER_START_MS			5000
#define GROUP_COMMIT_SLEEP_MS	1000

/* Of small records for a wide table the fields are the most: 64 MB of them. */
#define MAX_BATCH_FIELDS		(4 * 1024 * 1024)

typedef enum State
{
	LOADING,
	CONNECTING,
	ASSIGNING,
	READING,
	APPLYING,
	RESTING
} State;

typedef struct Worker
{
	State		state;

	/* from the slot, which may be given to another worker once this one is gone */
	SpineWorkerStatus status;
	Oid			database;
	NameData	pipeline_name;
	int			index;
	int			workers;
	uint64		catalog_generation;
	const char *database_settings;	/* those that the process started with */

	SpinePipeline *pipeline;	/* NULL: to be loaded */
	SpinePlan  *plan;			/* goes with the pipeline */
	SpineLog	log;			/* outlives the pipeline */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* of the assignment */

	SpineConsumer *consumer;	/* NULL: to be made */
	int			npartitions;	/* of the topic, when last counted */
	TimestampTz counted_at;
	bool		is_assigned;	/* the consumer has the positions of the database */
	bool		lost_log;		/* of an embedded broker that has ended */
	bool		broker_is_silent;	/* it did not answer, or has no such topic */
	bool		has_stuck;		/* a partition that is not well */

	SpineRefusals refusals;		/* in a row, over the batches */
	size_t		piece;			/* the most records of a batch while many are refused; 0: all */

	/*
	 * Since when the oldest record of the batch may have been there, which is since the
	 * batch before it began; 0: nothing is read yet.
	 */
	TimestampTz batch_started;

	SpineError	error;			/* the last one */
	long		rest_ms;

	TimestampTz summary_logged;
	int64		summary_events;
	int64		summary_dead_letters;
	int64		summary_batches;
} Worker;

/* --------------------------------------------------------------------------
 * What the worker holds, and how it lets go of it
 * -------------------------------------------------------------------------- */

/* The catalog or a target has changed: load them again. */
static void
forget_pipeline(Worker *worker)
{
	spine_plan_free(worker->plan);
	worker->plan = NULL;
	if (worker->pipeline)
		MemoryContextDelete(worker->pipeline->context);
	worker->pipeline = NULL;
}

/* Another broker or another topic: what was wrong with the old one is over. */
static void
leave_log(Worker *worker)
{
	spine_consumer_close(worker->consumer);
	worker->consumer = NULL;
	worker->is_assigned = worker->has_stuck = false;
}

/* Where there is something to do. */
static State
next_state(Worker *worker)
{
	if (worker->pipeline == NULL)
		return LOADING;
	if (worker->consumer == NULL || !spine_consumer_is_connected(worker->consumer))
	{
		worker->is_assigned = false;
		return CONNECTING;
	}
	return worker->is_assigned ? READING : ASSIGNING;
}

static bool
is_due(TimestampTz since, int interval_ms)
{
	return TimestampDifferenceExceeds(since, GetCurrentTimestamp(), interval_ms);
}

/* Replaces a string that outlives the transaction it came from. */
static void
remember(const char **string, const char *value)
{
	if (*string)
		pfree((void *) *string);
	*string = MemoryContextStrdup(TopMemoryContext, value);
}

/* --------------------------------------------------------------------------
 * Trouble and rest
 * -------------------------------------------------------------------------- */

static void
publish_positions(Worker *worker)
{
	int			n;
	SpineProgressReport *reports = spine_consumer_report(worker->consumer, &n);

	spine_publish_positions(&worker->log, reports, n);
	pfree(reports);
}

static void
report_running(Worker *worker)
{
	worker->has_stuck = !spine_consumer_is_well(worker->consumer);
	worker->error.class = SPINE_NO_ERROR;
	spine_worker_status_running(&worker->status, !worker->has_stuck);
}

/* The error says why the worker cannot go on. */
static State
meet_error(Worker *worker)
{
	spine_worker_status_trouble(&worker->status, &worker->error, true);
	worker->rest_ms = spine_worker_status_rest_ms(&worker->status, &worker->error);
	if (worker->error.class != SPINE_TRANSIENT)
		forget_pipeline(worker);	/* to look at what was mended */
	return RESTING;
}

/*
 * Sleeps until the time is over or something is asked of the worker.  New records do not
 * end the rest: they could not be applied.
 */
static State
rest(Worker *worker)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	if (worker->consumer && worker->is_assigned)
		publish_positions(worker);	/* or nobody would see the lag grow */
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 worker->rest_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	return next_state(worker);
}

/* Sleeps until the time is over or something happens. */
static void
sleep_ms(Worker *worker, long timeout_ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	if (timeout_ms > 1000)
		pgstat_report_stat(true);	/* of the last batch, before we go quiet */
	spine_consumer_wait(worker->consumer, timeout_ms);
}

/* --------------------------------------------------------------------------
 * LOADING
 * -------------------------------------------------------------------------- */

/* Step: reads the pipeline and its targets. */
static bool
load_pipeline(void *arg)
{
	Worker	   *worker = arg;
	char	   *schema = spine_extension_schema();

	if (schema == NULL)
		return false;
	worker->pipeline = spine_pipeline_load(schema, &worker->pipeline_name);
	if (worker->pipeline == NULL)
		return false;
	worker->plan = spine_plan_make(worker->pipeline, (size_t) spine_max_record_memory_kb * 1024);
	spine_trust_check(worker->plan->trust);
	remember(&worker->log.schema, schema);
	remember(&worker->log.topic, worker->pipeline->topic);
	return true;
}

static State
load(Worker *worker)
{
	switch (spine_transaction_run(load_pipeline, worker, &worker->error))
	{
		case SPINE_COMMITTED:
			break;
		case SPINE_ROLLED_BACK:
			proc_exit(0);		/* dropped or paused; the launcher knows */
		case SPINE_ABORTED:
			forget_pipeline(worker);
			return meet_error(worker);
	}
	return next_state(worker);
}

/* --------------------------------------------------------------------------
 * CONNECTING
 * -------------------------------------------------------------------------- */

/* Step: starts the client.  It has no business with the database, but its errors do. */
static bool
open_consumer(void *arg)
{
	Worker	   *worker = arg;

	if (worker->consumer == NULL)
	{
		SpineCluster cluster = spine_default_cluster();
		char	   *group = psprintf("spine-%s-%s", get_database_name(MyDatabaseId),
									 NameStr(worker->pipeline_name));

		worker->consumer = spine_consumer_create(&cluster, worker->log.topic, group, spine_batch_rows);
	}
	spine_consumer_connect(worker->consumer);
	return true;
}

/* The embedded broker sets our latch when it is up, shortly after the first of us. */
static State
await_embedded_broker(Worker *worker)
{
	SpineWorkerSlot *slot = worker->status.slot;

	if (slot->state == SPINE_RUNNING)
		spine_set_worker_state(slot, SPINE_STARTING, NULL);
	if (!is_due(slot->state_since, BROKER_START_MS))
	{
		worker->rest_ms = BROKER_START_MS;
		return RESTING;
	}

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	spine_error_set(&worker->error, SPINE_TRANSIENT, "the embedded broker is not running%s%s",
					spine_shared->broker.why_not[0] ? ": " : "", spine_shared->broker.why_not);
	LWLockRelease(spine_shared->lock);
	return meet_error(worker);
}

static State
connect_to_broker(Worker *worker)
{
	worker->batch_started = 0;
	if (spine_default_cluster().address == NULL)
		return await_embedded_broker(worker);

	if (!worker->has_stuck)
		spine_set_worker_state(worker->status.slot, SPINE_STARTING, NULL);
	if (spine_transaction_run(open_consumer, worker, &worker->error) != SPINE_COMMITTED)
		return meet_error(worker);
	return next_state(worker);
}

/* --------------------------------------------------------------------------
 * ASSIGNING
 * -------------------------------------------------------------------------- */

/*
 * Asks the broker for the topic's partitions; a new number ends the assignment.  False:
 * the broker does not answer, or has no such topic, as worker->error says.
 */
static bool
count_partitions(Worker *worker)
{
	int			count = spine_consumer_count_partitions(worker->consumer, &worker->error);

	worker->counted_at = GetCurrentTimestamp();
	if (count <= 0)
	{
		worker->broker_is_silent = true;
		if (count == 0)
		{
			spine_error_set(&worker->error, SPINE_TRANSIENT, "topic \"%s\" does not exist", worker->log.topic);
			spine_error_set_hint(&worker->error, "Create it, or change \"topic\" in spine_pipelines or the setting spine.topic.");
			worker->is_assigned = false;
		}
		return false;
	}

	if (count != worker->npartitions ||
		strcmp(spine_consumer_cluster_id(worker->consumer), worker->cluster_id) != 0)
		worker->is_assigned = false;
	worker->npartitions = count;

	/* without an assignment, whether all is well is yet to be seen */
	if (worker->broker_is_silent && worker->is_assigned)
		report_running(worker);
	worker->broker_is_silent = false;
	return true;
}

/*
 * The embedded broker is another one than the one that was read.  What the old one had,
 * and was not applied, nobody has: that is said, and the new one is read.
 */
static void
report_lost_log(Worker *worker)
{
	char		reason[sizeof(spine_shared->broker.last_end)];
	SpineError	error;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	strlcpy(reason, spine_shared->broker.last_end, sizeof(reason));
	LWLockRelease(spine_shared->lock);
	spine_error_set(&error, SPINE_TRANSIENT, "the embedded broker ended (%s); records that were acknowledged but not applied are lost",
					reason[0] ? reason : "with the server");
	ereport(LOG,
			(errmsg("pipeline \"%s\": %s", NameStr(worker->pipeline_name), error.message)));
	spine_set_worker_state(worker->status.slot, worker->status.slot->state, &error);
}

static State
assign(Worker *worker)
{
	SpineAssignmentRequest request = {
		.log = &worker->log,
		.plan = worker->plan,
		.consumer = worker->consumer,
		.index = worker->index,
		.workers = worker->workers,
		.starts_at_latest = worker->pipeline->starts_at_latest
	};
	SpinePosition *positions;
	int			n;

	if (!count_partitions(worker))
		return meet_error(worker);
	request.npartitions = worker->npartitions;
	strlcpy(worker->cluster_id, spine_consumer_cluster_id(worker->consumer), sizeof(worker->cluster_id));
	worker->log.cluster_id = worker->cluster_id;

	positions = spine_assignment_make(&request, &n, &worker->lost_log, &worker->error);
	if (positions == NULL)
		return meet_error(worker);
	if (!spine_consumer_assign(worker->consumer, positions, n, &worker->error))
		return spine_consumer_is_connected(worker->consumer) ? meet_error(worker) : CONNECTING;

	/* only now, so that it is not the trouble on the way here that stays to be read */
	if (worker->lost_log && spine_default_cluster().embedded)
		report_lost_log(worker);
	worker->lost_log = false;

	worker->is_assigned = true;
	worker->batch_started = 0;
	spine_prune_progress(&worker->log, worker->npartitions);
	publish_positions(worker);
	report_running(worker);
	return READING;
}

/* --------------------------------------------------------------------------
 * READING
 * -------------------------------------------------------------------------- */

/* How many records a batch may have, by its rows and by its decoded fields. */
static int
batch_limit(const Worker *worker)
{
	return Max(Min(spine_batch_rows, MAX_BATCH_FIELDS / Max(worker->plan->fields.n, 1)), 1);
}

/* Says what is wrong with a partition; the others go on. */
static void
report_stuck(Worker *worker, const SpineStuck *stuck)
{
	const char *topic = worker->log.topic;
	const char *remedy = "To read it from its start";
	SpineError	error;

	switch (stuck->reason)
	{
		case SPINE_STUCK_EXPIRED:
			spine_error_set(&error, SPINE_STRUCTURAL, "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone from the log before they were applied",
							stuck->offset, stuck->log_offset - 1, stuck->partition, topic);
			remedy = "To go on without them";
			break;
		case SPINE_STUCK_SHORT_LOG:
			spine_error_set(&error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" ends at offset " INT64_FORMAT ", before the position " INT64_FORMAT ": it is not the log that was read before",
							stuck->partition, topic, stuck->log_offset, stuck->offset);
			break;
		case SPINE_STUCK_OTHER_LOG:
			spine_error_set(&error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" has another record at offset " INT64_FORMAT " than the one that was read: it is not the log that was read before",
							stuck->partition, topic, stuck->log_offset);
			break;
		case SPINE_STUCK_NO_OFFSET:
			spine_error_set(&error, SPINE_STRUCTURAL, "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not there",
							stuck->offset, stuck->partition, topic);
			remedy = NULL;
			break;
		case SPINE_STUCK_UNREADABLE:
			spine_error_set(&error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" cannot be read from offset " INT64_FORMAT ": %s",
							stuck->partition, topic, stuck->offset, stuck->text);
			remedy = NULL;
			break;
	}
	if (remedy)
		spine_error_set_hint(&error, "%s: SELECT spine_seek(%s, %d, 'earliest')", remedy,
							 quote_literal_cstr(NameStr(worker->pipeline_name)), stuck->partition);
	worker->has_stuck = true;
	spine_worker_status_trouble(&worker->status, &error, stuck->is_news);
}

static void
log_summary(Worker *worker)
{
	if (worker->summary_batches == 0 || spine_log_interval_s < 0 ||
		!is_due(worker->summary_logged, spine_log_interval_s * 1000))
		return;

	ereport(LOG,
			(errmsg("pipeline \"%s\" worker %d: applied " INT64_FORMAT " events in " INT64_FORMAT " batches, " INT64_FORMAT " dead letters",
					NameStr(worker->pipeline_name), worker->index, worker->summary_events,
					worker->summary_batches, worker->summary_dead_letters)));
	worker->summary_logged = GetCurrentTimestamp();
	worker->summary_events = worker->summary_batches = worker->summary_dead_letters = 0;
}

/* Work that comes due with time; returns how long until the next, in ms. */
static long
do_chores(Worker *worker)
{
	long		due_ms = spine_consumer_commit_to_group(worker->consumer);

	log_summary(worker);
	if (due_ms >= 0)
		return due_ms;
	if (worker->summary_batches > 0 && spine_log_interval_s >= 0)
		return Max(spine_log_interval_s * 1000L, 100);
	return PARTITION_CHECK_MS;
}

/* Sleeps until there is a batch that has waited long enough. */
static State
await_batch(Worker *worker, bool is_full)
{
	long		timeout_ms = do_chores(worker);

	if (spine_consumer_is_committing(worker->consumer))
		return next_state(worker);
	if (worker->has_stuck)
		timeout_ms = Min(timeout_ms, SPINE_STUCK_RETRY_MS);
	if (spine_consumer_has_batch(worker->consumer))
	{
		if (worker->batch_started == 0)
			worker->batch_started = GetCurrentTimestamp();
		if (is_full || is_due(worker->batch_started, spine_batch_interval_ms))
			return APPLYING;
		timeout_ms = Min(timeout_ms, Max(spine_batch_interval_ms, 1));
	}
	else
	{
		worker->batch_started = 0;
		if (spine_consumer_reached_end(worker->consumer))
			publish_positions(worker);
	}
	sleep_ms(worker, timeout_ms);
	return READING;
}

static State
read_records(Worker *worker)
{
	SpinePoll	poll = spine_consumer_poll(worker->consumer, batch_limit(worker));

	switch (poll.kind)
	{
		case SPINE_POLL_RECORDS:
			break;
		case SPINE_POLL_PARTITION_STUCK:
			report_stuck(worker, &poll.stuck);
			return READING;
		case SPINE_POLL_TOPIC_GONE:
		case SPINE_POLL_BROKER_SILENT:
			if (!count_partitions(worker))
				return meet_error(worker);
			if (poll.kind == SPINE_POLL_TOPIC_GONE)
				worker->is_assigned = false;
			return next_state(worker);
		case SPINE_POLL_LOG_LOST:
			worker->is_assigned = false;
			return next_state(worker);
	}

	if (worker->has_stuck && spine_consumer_is_well(worker->consumer))
		report_running(worker);
	if (is_due(worker->counted_at, PARTITION_CHECK_MS))
	{
		if (!count_partitions(worker))
			return meet_error(worker);
		if (!worker->is_assigned)
			return ASSIGNING;
	}
	return await_batch(worker, poll.is_full);
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
			   batch->nrecords, batch->log.topic, NameStr(batch->log.pipeline),
			   batch->moves[0].partition, batch->moves[0].from,
			   batch->nmoves > 1 ? " and others" : "");
}

static void
finish_batch(Worker *worker, const SpineBatch *batch, TimestampTz started, instr_time duration)
{
	size_t		nleft;

	spine_consumer_finish_batch(worker->consumer, batch->nrecords, batch->moves, batch->nmoves);
	spine_consumer_look_further(worker->consumer, false);
	spine_count_batch(&worker->pipeline_name, batch->nupserts, INSTR_TIME_GET_DOUBLE(duration));
	spine_publish_batch(&worker->log, batch->moves, batch->nmoves, INSTR_TIME_GET_MILLISEC(duration));
	(void) spine_consumer_records(worker->consumer, &nleft);
	if (nleft == 0)
		worker->batch_started = started;	/* otherwise the rest has waited as long */
	worker->summary_events += batch->nevents;
	worker->summary_dead_letters += batch->ndead_letters;
	worker->summary_batches++;
	report_running(worker);

	/* larger again, as there is room for more refusals */
	if (batch->nsubtransactions <= SPINE_MAX_SUBTRANSACTIONS / 2)
		worker->piece *= 2;
	if (worker->piece >= (size_t) spine_batch_rows)
		worker->piece = 0;
}

/* A batch could not be committed, for worker->error. */
static State
meet_batch_error(Worker *worker, bool is_whole)
{
	if (worker->error.class == SPINE_STRUCTURAL)
	{
		/* one that passes may be among the others, or among those that follow */
		if (!is_whole)
		{
			worker->piece = 0;
			return READING;
		}
		spine_consumer_look_further(worker->consumer, true);
	}
	return meet_error(worker);
}

static State
apply(Worker *worker)
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
	TimestampTz started = GetCurrentTimestamp();
	instr_time	start;
	instr_time	duration;
	size_t		nrecords;

	/* for those who look while the batch waits for somebody */
	publish_positions(worker);
	spine_note_batch_start(worker->status.slot);
	pgstat_report_activity(STATE_RUNNING, "applying a batch");
	spine_count_consumed(&worker->pipeline_name, spine_consumer_take_count(worker->consumer));

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
			finish_batch(worker, &batch, started, duration);
			break;
		case SPINE_BATCH_TOO_LARGE:
			worker->piece = batch.nsettled;
			break;
		case SPINE_BATCH_MOVED:
			worker->is_assigned = false;
			break;
		case SPINE_BATCH_TARGET_CHANGED:
			forget_pipeline(worker);
			break;
		case SPINE_BATCH_GONE:
			worker->is_assigned = false;
			forget_pipeline(worker);
			break;
		case SPINE_BATCH_FAILED:
			return meet_batch_error(worker, batch.nrecords == nrecords);
	}
	return next_state(worker);
}

/* --------------------------------------------------------------------------
 * What changes around the worker
 * -------------------------------------------------------------------------- */

/* Step: what ALTER DATABASE and ALTER ROLE have set here. */
static bool
read_database_settings(void *arg)
{
	char	   *query = psprintf("SELECT pg_catalog.string_agg(s.setconfig::pg_catalog.text, ' '"
								 " ORDER BY s.setdatabase, s.setrole)"
								 " FROM pg_catalog.pg_db_role_setting s"
								 " WHERE s.setdatabase IN (0, %u)", MyDatabaseId);
	char	   *settings;

	SPI_execute(query, true, 1);
	settings = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	remember(arg, settings ? settings : "");
	return true;
}

/*
 * A process takes these settings when it connects, and never again.  So when they have
 * changed, it leaves, and the launcher starts another one.
 */
static void
leave_if_database_settings_changed(Worker *worker)
{
	const char *settings = NULL;

	if (spine_transaction_run(read_database_settings, &settings, &worker->error) != SPINE_COMMITTED)
		return;
	if (worker->database_settings == NULL)
		worker->database_settings = settings;
	else if (strcmp(settings, worker->database_settings) != 0)
		proc_exit(0);
	else
		pfree((void *) settings);
}

/* Configuration and catalog: what has changed since the last look. */
static State
notice_changes(Worker *worker)
{
	bool		changed = false;
	SpineDatabase *db;
	uint64		generation;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		leave_if_database_settings_changed(worker);
		forget_pipeline(worker);	/* its topic may be a setting */
		changed = true;
	}

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	db = spine_find_database(worker->database);
	generation = db ? db->catalog_generation : worker->catalog_generation;
	LWLockRelease(spine_shared->lock);
	if (generation != worker->catalog_generation)
	{
		worker->catalog_generation = generation;
		forget_pipeline(worker);
		worker->is_assigned = false;	/* a position may have been moved by hand */
		changed = true;
	}

	if (worker->consumer)
	{
		SpineCluster cluster = spine_default_cluster();

		if (!spine_consumer_is_for(worker->consumer, &cluster, worker->log.topic, spine_batch_rows))
		{
			leave_log(worker);
			changed = true;
		}
	}
	return changed ? next_state(worker) : worker->state;
}

/* --------------------------------------------------------------------------
 * The process
 * -------------------------------------------------------------------------- */

/*
 * Takes the slot, unless it is not wanted any more or the database is about to go.  Both
 * are decided under the lock, so that whoever holds the database sees either no process
 * or one that can be signalled.
 */
static bool
attach(Worker *worker, int slot_number)
{
	SpineWorkerSlot *slot = &spine_shared->workers[slot_number];
	SpineDatabase *db;
	bool		may_run;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = OidIsValid(slot->database) ? spine_find_database(slot->database) : NULL;
	may_run = db && db->holds == 0 && slot->wanted && slot->pid == 0;
	if (may_run)
	{
		worker->status.slot = slot;
		worker->status.pipeline = worker->pipeline_name = worker->log.pipeline = slot->pipeline;
		worker->database = slot->database;
		worker->index = slot->index;
		worker->workers = slot->workers;
		worker->catalog_generation = db->catalog_generation;
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		if (slot->state != SPINE_FAILED)
		{
			slot->state = SPINE_STARTING;
			slot->state_since = GetCurrentTimestamp();
		}
	}
	LWLockRelease(spine_shared->lock);
	return may_run;
}

static void
detach(int code, Datum arg)
{
	Worker	   *worker = (Worker *) DatumGetPointer(arg);
	SpineWorkerSlot *slot = worker->status.slot;

	/* an error that nobody classified: it is why the process ends */
	if (code != 0 && worker->error.class != SPINE_NO_ERROR)
		spine_set_worker_state(slot, SPINE_WAITING, &worker->error);

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	if (slot->pid == MyProcPid)
	{
		slot->pid = 0;
		slot->latch = NULL;
	}
	spine_wake_launcher();
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);
}

/*
 * Until the broker has answered a commit to its group, nothing is done that might wait
 * for a lock.  False: it has not yet, and the worker has slept.
 */
static bool
group_commit_is_over(Worker *worker)
{
	if (worker->consumer == NULL || !spine_consumer_is_connected(worker->consumer))
		return true;
	if (spine_consumer_is_committing(worker->consumer))
	{
		sleep_ms(worker, GROUP_COMMIT_SLEEP_MS);
		return false;
	}

	/* it took too long */
	if (!spine_consumer_is_connected(worker->consumer))
		worker->state = next_state(worker);
	return true;
}

static State
take_step(Worker *worker)
{
	switch (worker->state)
	{
		case LOADING:
			return load(worker);
		case CONNECTING:
			return connect_to_broker(worker);
		case ASSIGNING:
			return assign(worker);
		case READING:
			return read_records(worker);
		case APPLYING:
			return apply(worker);
		case RESTING:
			return rest(worker);
	}
	pg_unreachable();
}

void
spine_worker_main(Datum slot_number)
{
	Worker	   *worker = MemoryContextAllocZero(TopMemoryContext, sizeof(Worker));
	MemoryContext step_context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!attach(worker, DatumGetInt32(slot_number)))
		proc_exit(0);
	before_shmem_exit(detach, PointerGetDatum(worker));

	BackgroundWorkerInitializeConnectionByOid(worker->database, InvalidOid, 0);
	spine_session_settings_apply();
	leave_if_database_settings_changed(worker); /* the first time: remember them */

	step_context = AllocSetContextCreate(TopMemoryContext, "spine worker step", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		MemoryContextSwitchTo(step_context);
		MemoryContextReset(step_context);
		CHECK_FOR_INTERRUPTS();

		/* with a backlog the worker never waits, and so would not hear of that */
		if (!PostmasterIsAlive())
			proc_exit(1);

		if (!group_commit_is_over(worker))
			continue;
		worker->state = notice_changes(worker);
		worker->state = take_step(worker);
	}
}

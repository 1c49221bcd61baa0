/*
 * worker.c
 *		The life of a worker: look the pipeline up, connect, take an assignment,
 *		and then sleep, poll, apply, for ever.
 *
 * Trouble never ends the process, as long as somebody has named it: the
 * worker says in its slot what is wrong, rests, and looks again.
 */
#include "process/worker.h"

#include "catalog/extension.h"
#include "process/assignment.h"
#include "process/batch.h"
#include "commands/dbcommands.h"
#include "process/counters.h"
#include "process/default_cluster.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "process/settings.h"
#include "process/status.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "tcop/tcopprot.h"
#include "process/trouble.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "process/worker_state.h"

#define PARTITION_CHECK_MS		10000	/* new partitions, a broker that is back */
#define BROKER_COMMIT_MS		1000
#define BROKER_COMMIT_RETRY_MS	60000	/* after one that was not answered */
#define BROKER_COMMIT_PATIENCE_MS	5000
#define BROKER_START_MS			5000
#define FIRST_PREFETCH_SHARE	4	/* partitions, until they are counted */

static SpineWorker worker;

/*
 * Takes the slot, unless it is not wanted any more or the database is about to
 * go.  Both are decided under the lock, so that whoever holds the database
 * sees either no process or one that it can signal.
 */
static bool
attach(int slot_number)
{
	SpineWorkerSlot *slot = &spine_shared->workers[slot_number];
	SpineDatabase *db;
	bool		may_run;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = OidIsValid(slot->database) ? spine_find_database(slot->database) : NULL;
	may_run = db && db->holds == 0 && slot->wanted && slot->pid == 0;
	if (may_run)
	{
		worker.slot = slot;
		worker.database = slot->database;
		worker.pipeline_name = slot->pipeline;
		worker.index = slot->index;
		worker.workers = slot->workers;
		worker.catalog_generation = db->catalog_generation;
		worker.log.pipeline = slot->pipeline;
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
	SpineWorkerSlot *slot = worker.slot;

	/* an error that nobody classified: it is why we go */
	if (code != 0 && worker.error.class != SPINE_NO_ERROR)
		spine_set_worker_state(slot, SPINE_WAITING, &worker.error);

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

void
spine_prepare_session(void)
{
	static const char *const options[][2] = {
		{"search_path", ""},	/* nothing of a user's is found by accident */
		{"timezone", "UTC"},	/* a timestamp without a zone is UTC */
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"session_replication_role", "origin"},
		{"jit", "off"},			/* compiling costs more than these plans */
		{"transaction_timeout", "0"},	/* ends the process; since 17 */
	};

	for (int i = 0; i < (int) lengthof(options); i++)
		if (GetConfigOption(options[i][0], true, false) != NULL)
			SetConfigOption(options[i][0], options[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static bool
is_due(TimestampTz since, int interval_ms)
{
	return TimestampDifferenceExceeds(since, GetCurrentTimestamp(), interval_ms);
}

/* Sleeps until the time is over or something happens. */
static void
sleep_ms(long timeout_ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	if (timeout_ms > 1000)
		pgstat_report_stat(true);	/* of the last batch, before we go quiet */
	if (worker.consumer)
		spine_client_wait(worker.consumer->client, timeout_ms);
	else
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	CHECK_FOR_INTERRUPTS();
}

/* Replaces a string that outlives the transaction it came from. */
static void
remember(const char **string, const char *value)
{
	if (*string)
		pfree((void *) *string);
	*string = MemoryContextStrdup(TopMemoryContext, value);
}

/* Is the consumer still the one that the settings ask for? */
static bool
consumer_is_current(void)
{
	SpineCluster cluster = spine_default_cluster();

	return worker.batch_rows == spine_batch_rows && spine_cluster_is_same(&cluster, &worker.cluster);
}

/* Another broker or another topic: what was wrong with the old one is over. */
static void
leave_log(void)
{
	spine_disconnect(&worker);
	bms_free(worker.stuck);
	worker.stuck = NULL;
	worker.prefetch.records = SPINE_PREFETCH_RECORDS;
}

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
 * A process takes these settings when it connects, and never again.  So when
 * they have changed, it leaves, and the launcher starts another.
 */
static void
leave_if_database_settings_changed(void)
{
	const char *settings = NULL;

	if (spine_transaction_run(read_database_settings, &settings, &worker.error) != SPINE_COMMITTED)
		return;
	if (worker.database_settings == NULL)
		worker.database_settings = settings;
	else if (strcmp(settings, worker.database_settings) != 0)
		proc_exit(0);
	else
		pfree((void *) settings);
}

/* Configuration and catalog: what changed since the last look. */
static void
notice_changes(void)
{
	SpineDatabase *db;
	uint64		generation;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		leave_if_database_settings_changed();
		spine_forget_pipeline(&worker);		/* its topic may be a setting */
	}

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	db = spine_find_database(worker.database);
	generation = db ? db->catalog_generation : worker.catalog_generation;
	LWLockRelease(spine_shared->lock);
	if (generation != worker.catalog_generation)
	{
		worker.catalog_generation = generation;
		spine_forget_pipeline(&worker);
		worker.assigned = false;	/* a position may have been moved by hand */
	}

	if (worker.consumer && !consumer_is_current())
		leave_log();
}

/* Step: reads the pipeline and its targets. */
static bool
load_pipeline(void *arg)
{
	char	   *schema = spine_extension_schema();

	if (schema == NULL)
		return false;
	worker.pipeline = spine_pipeline_load(schema, &worker.pipeline_name);
	if (worker.pipeline == NULL)
		return false;
	worker.plan = spine_plan_make(worker.pipeline, (size_t) spine_max_record_memory_kb * 1024);
	spine_trust_check(worker.plan->trust);
	remember(&worker.log.schema, schema);
	remember(&worker.log.topic, worker.pipeline->topic);
	return true;
}

/* False: not there yet, and we have rested. */
static bool
look_up_pipeline(void)
{
	if (worker.pipeline)
		return true;

	switch (spine_transaction_run(load_pipeline, NULL, &worker.error))
	{
		case SPINE_COMMITTED:
			break;
		case SPINE_ROLLED_BACK:
			proc_exit(0);		/* dropped or paused; the launcher knows */
		case SPINE_ABORTED:
			spine_handle_error(&worker);
			spine_forget_pipeline(&worker);
			return false;
	}

	if (worker.consumer && strcmp(worker.consumer->topic, worker.pipeline->topic) != 0)
		leave_log();
	return true;
}

/* Step: starts the client.  No business with the database, but errors alike. */
static bool
open_consumer(void *arg)
{
	char	   *group = psprintf("spine-%s-%s", get_database_name(MyDatabaseId),
								 NameStr(worker.pipeline_name));

	worker.consumer = spine_consumer_open(arg, worker.pipeline->topic, group,
										  &worker.prefetch, spine_batch_rows);
	worker.cluster = spine_cluster_copy(arg, worker.consumer->context);
	worker.batch_rows = spine_batch_rows;
	return true;
}

static void
wait_for_embedded_broker(void)
{
	SpineError	error;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	spine_error_set(&error, SPINE_TRANSIENT, "the embedded broker is not running%s%s",
					spine_shared->broker.why_not[0] ? ": " : "", spine_shared->broker.why_not);
	LWLockRelease(spine_shared->lock);
	spine_wait_out(&worker, &error);
}

static bool
connect_to_broker(void)
{
	SpineCluster cluster;

	if (worker.consumer)
		return true;

	cluster = spine_default_cluster();
	if (cluster.address == NULL)
	{
		/* it sets our latch when it is up, shortly after the first of us */
		if (worker.slot->state == SPINE_RUNNING)
			spine_set_worker_state(worker.slot, SPINE_STARTING, NULL);
		if (is_due(worker.slot->state_since, BROKER_START_MS))
			wait_for_embedded_broker();
		else
			sleep_ms(BROKER_START_MS);
		return false;
	}

	if (bms_is_empty(worker.stuck))
		spine_set_worker_state(worker.slot, SPINE_STARTING, NULL);
	if (spine_transaction_run(open_consumer, &cluster, &worker.error) == SPINE_COMMITTED)
		return true;
	spine_handle_error(&worker);
	return false;
}

static void
log_summary(void)
{
	if (worker.summary_batches == 0 || spine_log_interval_s < 0 ||
		!is_due(worker.summary_logged, spine_log_interval_s * 1000))
		return;

	ereport(LOG,
			(errmsg("pipeline \"%s\" worker %d: applied " INT64_FORMAT " events in " INT64_FORMAT " batches, " INT64_FORMAT " dead letters",
					NameStr(worker.pipeline_name), worker.index, worker.summary_events,
					worker.summary_batches, worker.summary_dead_letters)));
	worker.summary_logged = GetCurrentTimestamp();
	worker.summary_events = worker.summary_batches = worker.summary_dead_letters = 0;
}

/* Names the batch in every error and log line that it causes. */
static void
batch_error_context(void *arg)
{
	const SpineBatch *batch = arg;

	errcontext("applying %zu records of topic \"%s\" for pipeline \"%s\", partition %d from offset " INT64_FORMAT "%s",
			   batch->nrecords, batch->log.topic, NameStr(batch->log.pipeline),
			   batch->positions[0].partition, batch->positions[0].next_offset,
			   batch->npositions > 1 ? " and others" : "");
}

static void
run_batch(void)
{
	SpineConsumer *consumer = worker.consumer;
	SpineBatch	batch = {
		.log = worker.log,
		.plan = worker.plan,
		.records = consumer->records,
		.nrecords = worker.piece ? Min(worker.piece, consumer->nrecords) : consumer->nrecords,
		.refusals = &worker.refusals,
		.breaker = spine_breaker_records,
		.expects_refusals = worker.piece > 0
	};
	ErrorContextCallback callback = {error_context_stack, batch_error_context, &batch};
	SpineBatchOutcome outcome;
	TimestampTz started = GetCurrentTimestamp();
	instr_time	start;
	instr_time	duration;

	/* for those who look while it waits for somebody */
	spine_publish_watermarks(&worker);
	spine_note_batch_start(worker.slot);
	batch.positions = spine_consumer_moved_positions(consumer, batch.nrecords, &batch.npositions);
	pgstat_report_activity(STATE_RUNNING, "applying a batch");

	spine_count_consumed(&worker.pipeline_name, consumer->uncounted);
	consumer->uncounted = 0;

	INSTR_TIME_SET_CURRENT(start);
	error_context_stack = &callback;
	outcome = spine_batch_run(&batch, &worker.error);
	error_context_stack = callback.previous;
	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);

	if (outcome == SPINE_BATCH_COMMITTED)
	{
		spine_consumer_finish_batch(consumer, batch.nrecords, batch.positions, batch.npositions);
		consumer->looks_further = false;
		for (int i = 0; i < batch.npositions; i++)
			batch.positions[i].next_offset = batch.positions[i].read_to;
		spine_count_batch(&worker.pipeline_name, batch.nupserts, INSTR_TIME_GET_DOUBLE(duration));
		spine_publish_progress(&worker.log, batch.positions, batch.npositions,
							   INSTR_TIME_GET_MILLISEC(duration));
		if (consumer->nrecords == 0)
			worker.batch_started = started; /* otherwise the rest has waited as long */
		worker.broker_commit_due = true;
		worker.summary_events += batch.nevents;
		worker.summary_dead_letters += batch.ndead_letters;
		worker.summary_batches++;
		spine_report_running(&worker);

		/* larger again, as there is room for more refusals */
		if (batch.nsubtransactions <= SPINE_MAX_SUBTRANSACTIONS / 2)
			worker.piece *= 2;
		if (worker.piece >= (size_t) spine_batch_rows)
			worker.piece = 0;
	}
	else if (outcome == SPINE_BATCH_TOO_LARGE)
		worker.piece = batch.nsettled;
	else if (outcome == SPINE_BATCH_FAILED && worker.error.class == SPINE_STRUCTURAL &&
			 batch.nrecords < consumer->nrecords)
		worker.piece = 0;		/* one that passes may be among the others */
	else
	{
		if (outcome == SPINE_BATCH_FAILED && worker.error.class == SPINE_STRUCTURAL)
			consumer->looks_further = true;
		spine_handle_outcome(&worker, outcome);
	}
	pfree(batch.positions);
}

/*
 * Is no commit to the group under way?  While one is, nothing is done that might
 * wait for a lock, which nobody limits: it must not run out, see
 * GROUP_COMMIT_TIMEOUT_MS.  False: not yet, and we have rested.
 */
static bool
group_commit_is_over(void)
{
	if (worker.consumer == NULL || !worker.consumer->group_commit_pending)
		return true;

	spine_client_drain_wakeups(worker.consumer->client);
	if (!spine_consumer_awaits_broker(worker.consumer))
	{
		worker.broker_commit_ms = BROKER_COMMIT_MS;
		return true;
	}
	if (is_due(worker.committed_to_broker, BROKER_COMMIT_PATIENCE_MS))
	{
		spine_disconnect(&worker);
		worker.broker_commit_due = true;
		worker.broker_commit_ms = BROKER_COMMIT_RETRY_MS;
		return true;
	}
	sleep_ms(BROKER_COMMIT_PATIENCE_MS);
	return false;
}

/* Work that comes due with time; returns how long until the next, in ms. */
static long
do_chores(void)
{
	if (worker.broker_commit_due && is_due(worker.committed_to_broker, worker.broker_commit_ms))
	{
		spine_consumer_commit_to_broker(worker.consumer);
		worker.committed_to_broker = GetCurrentTimestamp();
		worker.broker_commit_due = false;
	}
	log_summary();
	if (worker.broker_commit_due)
		return BROKER_COMMIT_MS;
	if (worker.summary_batches > 0 && spine_log_interval_s >= 0)
		return Max(spine_log_interval_s * 1000L, 100);
	return PARTITION_CHECK_MS;
}

/* Polls, and runs a batch when there is one that has waited long enough. */
static void
poll_and_apply(void)
{
	SpineConsumer *consumer = worker.consumer;
	bool		is_full;
	long		timeout_ms;

	is_full = spine_consumer_poll(consumer, spine_batch_limit(&worker));
	if (spine_bound_prefetch(&worker))
		return;
	spine_note_partitions(&worker);
	if (!worker.assigned)
		return;
	if (consumer->topic_is_gone || consumer->client->error != RD_KAFKA_RESP_ERR_NO_ERROR ||
		is_due(worker.partitions_checked, PARTITION_CHECK_MS))
	{
		if (!spine_count_partitions(&worker) || !worker.assigned)
			return;
	}

	timeout_ms = do_chores();
	if (consumer->group_commit_pending)
		return;
	if (spine_help_partitions(&worker))
		timeout_ms = 0;
	if (!worker.assigned)
		return;
	if (!bms_is_empty(worker.stuck))
		timeout_ms = Min(timeout_ms, SPINE_STUCK_RETRY_MS);
	if (spine_consumer_has_batch(consumer))
	{
		if (worker.batch_started == 0)
			worker.batch_started = GetCurrentTimestamp();
		if (is_full || is_due(worker.batch_started, spine_batch_interval_ms))
		{
			run_batch();
			return;
		}
		timeout_ms = Min(timeout_ms, Max(spine_batch_interval_ms, 1));
	}
	else
	{
		worker.batch_started = 0;
		if (consumer->reached_end)
			spine_publish_watermarks(&worker);
	}
	sleep_ms(timeout_ms);
}

void
spine_worker_main(Datum slot_number)
{
	MemoryContext loop_context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!attach(DatumGetInt32(slot_number)))
		proc_exit(0);
	before_shmem_exit(detach, 0);

	BackgroundWorkerInitializeConnectionByOid(worker.database, InvalidOid, 0);
	spine_prepare_session();

	leave_if_database_settings_changed();	/* the first time: remember them */
	worker.prefetch.partitions = FIRST_PREFETCH_SHARE;
	worker.prefetch.records = SPINE_PREFETCH_RECORDS;
	worker.broker_commit_ms = BROKER_COMMIT_MS;

	loop_context = AllocSetContextCreate(TopMemoryContext, "spine worker loop",
										 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		CHECK_FOR_INTERRUPTS();

		/* with a backlog it never waits, and so would not hear of that */
		if (!PostmasterIsAlive())
			proc_exit(1);

		if (!group_commit_is_over())
			continue;
		notice_changes();
		if (look_up_pipeline() && connect_to_broker() && spine_take_assignment(&worker))
			poll_and_apply();
	}
}

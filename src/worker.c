/*
 * worker.c
 *		The life of a worker: look the pipeline up, connect, take an assignment,
 *		and then sleep, poll, apply, for ever.
 *
 * Trouble never ends the process, as long as somebody has named it: the
 * worker says in its slot what is wrong, rests, and looks again.
 */
#include "worker.h"

#include "attempt.h"
#include "batch.h"
#include "catalog.h"
#include "commands/dbcommands.h"
#include "consume.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "status.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define FIRST_RETRY_MS			100
#define LAST_RETRY_MS			5000
#define FAILED_RETRY_MS			5000
#define PARTITION_CHECK_MS		10000	/* new partitions, a broker that is back */
#define BROKER_COMMIT_MS		1000
#define BROKER_TIMEOUT_MS		5000
#define FIRST_PREFETCH_SHARE	4	/* partitions, until they are counted */

typedef struct Worker
{
	/* from the slot, which may be given to another once we are gone */
	SpineWorkerSlot *slot;
	Oid			database;
	NameData	pipeline_name;
	int			index;
	int			workers;

	uint64		catalog_generation;
	SpinePipeline *pipeline;	/* NULL: to be looked up */
	SpinePlan  *plan;			/* goes with the pipeline */
	SpineLog	log;			/* outlives the pipeline */

	const char *database_settings;	/* those that the process started with */
	const char *connected_to;	/* broker settings of the consumer */
	SpineConsumer *consumer;
	int			prefetch_share;
	bool		assigned;
	bool		broker_trouble; /* it did not answer, or has no such topic */

	SpineDecoder *decoder;
	SpineError	error;			/* the last one */
	char		logged[SPINE_MAX_ERROR_LEN];	/* the last one in the log */
	int			retry_ms;

	TimestampTz batch_started;	/* 0: nothing read yet */
	TimestampTz partitions_checked;
	TimestampTz committed_to_broker;
	bool		broker_commit_due;

	TimestampTz summary_logged;
	int64		summary_events;
	int64		summary_dead_letters;
	int64		summary_batches;
} Worker;

static Worker worker;

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
	if (code != 0 && worker.error.text[0])
		spine_set_worker_state(slot, SPINE_WAITING, worker.error.text);

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
	};

	for (int i = 0; i < (int) lengthof(options); i++)
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

static void
publish_watermarks(void)
{
	spine_consumer_refresh_watermarks(worker.consumer);
	spine_publish_progress(&worker.log, worker.consumer->positions,
						   worker.consumer->npositions, -1);
	worker.consumer->reached_end = false;
}

/* Like sleep_ms, but new records do not end it: we could not apply them. */
static void
rest(long timeout_ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	if (worker.consumer && worker.assigned)
		publish_watermarks();	/* or nobody would see the lag grow */
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
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

static void
forget_pipeline(void)
{
	spine_free_plan(worker.plan);
	worker.plan = NULL;
	if (worker.pipeline)
		MemoryContextDelete(worker.pipeline->context);
	worker.pipeline = NULL;
}

static void
disconnect(void)
{
	spine_consumer_close(worker.consumer);
	worker.consumer = NULL;
	worker.assigned = false;
	worker.batch_started = 0;
}

static char *
broker_settings(void)
{
	char	   *address = spine_broker_address();

	return psprintf("%s %s %d", address ? address : "", spine_kafka_options, spine_batch_rows);
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

	if (spine_attempt(read_database_settings, &settings, &worker.error) != SPINE_DONE)
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
	char	   *settings;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		leave_if_database_settings_changed();
		forget_pipeline();		/* its topic may be a setting */
	}

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	db = spine_find_database(worker.database);
	generation = db ? db->catalog_generation : worker.catalog_generation;
	LWLockRelease(spine_shared->lock);
	if (generation != worker.catalog_generation)
	{
		worker.catalog_generation = generation;
		forget_pipeline();
	}

	if (worker.consumer)
	{
		settings = broker_settings();
		if (strcmp(settings, worker.connected_to) != 0)
			disconnect();
		pfree(settings);
	}
}

/* Says what is wrong, in the status always, in the log when it is news. */
static void
report_trouble(SpineWorkerState state, const char *text)
{
	spine_set_worker_state(worker.slot, state, text);
	if (strcmp(worker.logged, text) != 0)
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" is %s: %s", NameStr(worker.pipeline_name),
						state == SPINE_FAILED ? "failed" : "waiting", text)));
		strlcpy(worker.logged, text, sizeof(worker.logged));
	}
}

static void
report_running(void)
{
	if (worker.logged[0])
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" goes on", NameStr(worker.pipeline_name))));
		worker.logged[0] = '\0';
	}
	worker.error.text[0] = '\0';
	worker.retry_ms = FIRST_RETRY_MS;
	spine_set_worker_state(worker.slot, SPINE_RUNNING, NULL);
}

/* Waits out a transient error, longer each time. */
static void
wait_out(const char *text)
{
	report_trouble(SPINE_WAITING, text);
	rest(worker.retry_ms);
	worker.retry_ms = Min(worker.retry_ms * 2, LAST_RETRY_MS);
}

static void
wait_for_help(const char *text)
{
	report_trouble(SPINE_FAILED, text);
	rest(FAILED_RETRY_MS);
}

/* What to do after a step that did not succeed. */
static void
handle_outcome(SpineOutcome outcome)
{
	switch (outcome)
	{
		case SPINE_DONE:
			break;
		case SPINE_ABANDONED:
			forget_pipeline();
			worker.assigned = false;
			break;
		case SPINE_TRANSIENT:
			wait_out(worker.error.text);
			break;
		case SPINE_STRUCTURAL:
		case SPINE_REFUSED:
			wait_for_help(worker.error.text);
			forget_pipeline();	/* look again, at what was mended */
			break;
	}
}

/* Step: reads the pipeline and its targets. */
static bool
load_pipeline(void *arg)
{
	char	   *schema = spine_extension_schema();

	if (schema == NULL)
		return false;
	worker.pipeline = spine_load_pipeline(schema, &worker.pipeline_name);
	if (worker.pipeline == NULL)
		return false;
	worker.plan = spine_make_plan(worker.pipeline);
	remember(&worker.log.schema, schema);
	remember(&worker.log.topic, worker.pipeline->topic);
	return true;
}

/* False: not there yet, and we have rested. */
static bool
look_up_pipeline(void)
{
	SpineOutcome outcome;

	if (worker.pipeline)
		return true;

	outcome = spine_attempt(load_pipeline, NULL, &worker.error);
	if (outcome == SPINE_ABANDONED)
		proc_exit(0);			/* dropped or paused; the launcher knows */
	if (outcome != SPINE_DONE)
	{
		handle_outcome(outcome);
		forget_pipeline();
		return false;
	}

	if (worker.consumer && strcmp(worker.consumer->topic, worker.pipeline->topic) != 0)
		disconnect();
	return true;
}

/* Step: starts the client.  No business with the database, but errors alike. */
static bool
open_consumer(void *arg)
{
	char	   *group = psprintf("spine-%s-%s", get_database_name(MyDatabaseId),
								 NameStr(worker.pipeline_name));

	worker.consumer = spine_consumer_open(worker.pipeline->topic, group,
										  worker.prefetch_share, spine_batch_rows);
	remember(&worker.connected_to, broker_settings());
	return true;
}

static bool
connect_to_broker(void)
{
	char	   *address;
	SpineOutcome outcome;

	if (worker.consumer)
		return true;

	address = spine_broker_address();
	if (address == NULL)
	{
		/* the embedded broker sets our latch when it is up */
		sleep_ms(LAST_RETRY_MS);
		return false;
	}
	pfree(address);

	spine_set_worker_state(worker.slot, SPINE_STARTING, NULL);
	outcome = spine_attempt(open_consumer, NULL, &worker.error);
	if (outcome != SPINE_DONE)
		handle_outcome(outcome);
	return outcome == SPINE_DONE;
}

/* A reason that will not pass by itself? */
static bool
needs_a_person(rd_kafka_resp_err_t error)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return true;
		default:
			return false;
	}
}

/*
 * Asks the broker for the topic's partitions.  False: it does not answer, or
 * has no such topic, and we have rested.
 */
static bool
count_partitions(void)
{
	SpineClient *client = worker.consumer->client;
	int			count = spine_client_partition_count(client, worker.log.topic, BROKER_TIMEOUT_MS);
	char		text[SPINE_MAX_ERROR_LEN];

	worker.partitions_checked = GetCurrentTimestamp();

	if (count > 0)
	{
		client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
		worker.consumer->topic_is_gone = false;
		if (count != worker.consumer->npartitions)
			worker.assigned = false;
		worker.consumer->npartitions = count;
		if (worker.broker_trouble)
			report_running();
		worker.broker_trouble = false;
		return true;
	}
	worker.broker_trouble = true;

	if (count == 0)
	{
		snprintf(text, sizeof(text), "topic \"%s\" does not exist HINT: Create it, or change \"topic\" in spine_pipelines or the setting spine.topic.",
				 worker.log.topic);
		worker.assigned = false;
		wait_out(text);
		return false;
	}

	snprintf(text, sizeof(text), "the broker does not answer: %s", client->error_text);

	/* serve the library's reports: they may know more than "timed out" */
	client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
	(void) spine_consumer_poll(worker.consumer, spine_batch_rows);
	if (client->error != RD_KAFKA_RESP_ERR_NO_ERROR)
		snprintf(text, sizeof(text), "the broker does not answer: %s", client->error_text);

	if (needs_a_person(client->error))
		wait_for_help(text);
	else
		wait_out(text);
	return false;
}

typedef struct Assignment
{
	SpinePosition *positions;
	int			n;
	bool		known_topic;
} Assignment;

static bool
load_offsets(void *arg)
{
	Assignment *assignment = arg;

	spine_offsets_load(&worker.log, assignment->positions, assignment->n,
					   &assignment->known_topic);
	return true;
}

static bool
insert_offsets(void *arg)
{
	Assignment *assignment = arg;

	spine_offsets_insert(&worker.log, assignment->positions, assignment->n);
	spine_offsets_load(&worker.log, assignment->positions, assignment->n,
					   &assignment->known_topic);
	return true;
}

/*
 * The first offset of partitions that were never read: written down before the
 * first record is, so that "latest" means what was latest then.
 */
static bool
find_first_offsets(Assignment *assignment)
{
	for (int i = 0; i < assignment->n; i++)
	{
		SpinePosition *position = &assignment->positions[i];
		int64		low;
		int64		high;

		if (position->next_offset >= 0)
			continue;
		if (!spine_client_watermarks(worker.consumer->client, worker.log.topic,
									 position->partition, &low, &high, BROKER_TIMEOUT_MS))
			return false;

		/* a partition that joins a topic we know is new: all of it */
		position->next_offset = worker.pipeline->starts_at_latest && !assignment->known_topic ?
			high : low;
	}
	return true;
}

static Assignment
list_partitions(void)
{
	Assignment	assignment = {0};

	assignment.positions = palloc0((worker.consumer->npartitions / worker.workers + 1) *
								   sizeof(SpinePosition));
	for (int p = worker.index; p < worker.consumer->npartitions; p += worker.workers)
	{
		assignment.positions[assignment.n].partition = p;
		assignment.positions[assignment.n].high_watermark = -1;
		assignment.n++;
	}
	return assignment;
}

/* Reads where the database stands and starts reading from there. */
static bool
take_assignment(void)
{
	Assignment	assignment;
	SpineOutcome outcome;

	if (worker.assigned)
		return true;
	if (!count_partitions())
		return false;
	worker.log.cluster_id = worker.consumer->client->cluster_id;

	assignment = list_partitions();
	if (assignment.n > 2 * worker.prefetch_share)
	{
		/* each would prefetch more than its share: start again with theirs */
		worker.prefetch_share = assignment.n;
		disconnect();
		return false;
	}

	outcome = spine_attempt(load_offsets, &assignment, &worker.error);
	if (outcome == SPINE_DONE)
	{
		if (!find_first_offsets(&assignment))
		{
			wait_out(worker.consumer->client->error_text);
			return false;
		}
		outcome = spine_attempt(insert_offsets, &assignment, &worker.error);
	}
	if (outcome != SPINE_DONE)
	{
		handle_outcome(outcome);
		return false;
	}

	spine_consumer_assign(worker.consumer, assignment.positions, assignment.n);
	worker.assigned = true;
	worker.batch_started = 0;
	spine_publish_progress(&worker.log, assignment.positions, assignment.n, -1);
	pfree(assignment.positions);
	report_running();
	return true;
}

/* A position that the log does not have (any more): stop, and say which. */
static void
report_lost_partition(void)
{
	SpineConsumer *consumer = worker.consumer;
	char		text[SPINE_MAX_ERROR_LEN];
	int64		next_offset = 0;
	int64		low;
	int64		high;

	for (int i = 0; i < consumer->npositions; i++)
	{
		if (consumer->positions[i].partition == consumer->lost_partition)
			next_offset = consumer->positions[i].read_to;
	}
	if (!spine_client_watermarks(consumer->client, worker.log.topic, consumer->lost_partition,
								 &low, &high, BROKER_TIMEOUT_MS))
		snprintf(text, sizeof(text), "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not there",
				 next_offset, consumer->lost_partition, worker.log.topic);
	else if (next_offset < low)
		snprintf(text, sizeof(text), "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone from the log before they were applied"
				 " HINT: To go on without them, set next_offset to " INT64_FORMAT " in spine_offsets.",
				 next_offset, low - 1, consumer->lost_partition, worker.log.topic, low);
	else
		snprintf(text, sizeof(text), "partition %d of topic \"%s\" ends at offset " INT64_FORMAT ", before the position " INT64_FORMAT ": it is not the log that was read before"
				 " HINT: To read it from its start, set next_offset to " INT64_FORMAT " in spine_offsets.",
				 consumer->lost_partition, worker.log.topic, high, next_offset, low);

	worker.assigned = false;
	wait_for_help(text);
}

/* The positions that the batch moves, for spine_batch_run. */
static SpinePosition *
moved_positions(int *n)
{
	SpineConsumer *consumer = worker.consumer;
	SpinePosition *moved = palloc(Max(consumer->npositions, 1) * sizeof(SpinePosition));

	*n = 0;
	spine_consumer_refresh_watermarks(consumer);
	for (int i = 0; i < consumer->npositions; i++)
	{
		if (consumer->positions[i].read_to > consumer->positions[i].next_offset)
			moved[(*n)++] = consumer->positions[i];
	}
	return moved;
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
		.decoder = worker.decoder,
		.records = consumer->records,
		.nrecords = consumer->nrecords
	};
	ErrorContextCallback callback = {error_context_stack, batch_error_context, &batch};
	SpineOutcome outcome;
	instr_time	start;
	instr_time	duration;

	batch.positions = moved_positions(&batch.npositions);
	pgstat_report_activity(STATE_RUNNING, "applying a batch");

	INSTR_TIME_SET_CURRENT(start);
	error_context_stack = &callback;
	outcome = spine_batch_run(&batch, &worker.error);
	error_context_stack = callback.previous;
	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);

	if (outcome == SPINE_DONE)
	{
		for (int i = 0; i < batch.npositions; i++)
			batch.positions[i].next_offset = batch.positions[i].read_to;
		spine_consumer_finish_batch(consumer);
		spine_publish_progress(&worker.log, batch.positions, batch.npositions,
							   INSTR_TIME_GET_MILLISEC(duration));
		worker.batch_started = 0;
		worker.broker_commit_due = true;
		worker.summary_events += batch.nevents;
		worker.summary_dead_letters += batch.ndead_letters;
		worker.summary_batches++;
		report_running();
	}
	else
		handle_outcome(outcome);
	pfree(batch.positions);
}

/* Work that comes due with time; returns how long until the next, in ms. */
static long
do_chores(void)
{
	if (worker.broker_commit_due && is_due(worker.committed_to_broker, BROKER_COMMIT_MS))
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
	bool		is_full = spine_consumer_poll(consumer, spine_batch_rows);
	long		timeout_ms;

	if (consumer->lost_partition >= 0)
	{
		report_lost_partition();
		return;
	}
	if (consumer->topic_is_gone || consumer->client->error != RD_KAFKA_RESP_ERR_NO_ERROR ||
		is_due(worker.partitions_checked, PARTITION_CHECK_MS))
	{
		if (!count_partitions() || !worker.assigned)
			return;
	}

	timeout_ms = do_chores();
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
	else if (consumer->reached_end)
		publish_watermarks();
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

	worker.decoder = spine_decoder_create();
	if (worker.decoder == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	leave_if_database_settings_changed();	/* the first time: remember them */
	worker.retry_ms = FIRST_RETRY_MS;
	worker.prefetch_share = FIRST_PREFETCH_SHARE;

	loop_context = AllocSetContextCreate(TopMemoryContext, "spine worker loop",
										 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		CHECK_FOR_INTERRUPTS();

		notice_changes();
		if (look_up_pipeline() && connect_to_broker() && take_assignment())
			poll_and_apply();
	}
}

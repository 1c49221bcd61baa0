/*
 * worker.c
 *		The life of a worker, as a machine:
 *
 *		LOADING ------> CONNECTING ------> ASSIGNING ------> READING <----> APPLYING
 *		the pipeline    a client           positions         records        a batch
 *
 * A change leads back: a change of the catalog to LOADING, of the broker to CONNECTING, of
 * a position by someone else to ASSIGNING.  Trouble leads to RESTING.  The worker says in
 * its slot what is wrong, rests, and looks again where there is something to do, which
 * spine_worker_next_stage decides.  Trouble that has a class never ends the process.
 */
#include "process/worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "process/session_settings.h"
#include "process/settings.h"
#include "process/status.h"
#include "process/worker_internal.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define GROUP_COMMIT_SLEEP_MS	1000

/* --------------------------------------------------------------------------
 * What the worker holds, and how it lets go of it
 * -------------------------------------------------------------------------- */

void
spine_worker_forget_pipeline(SpineWorker *worker)
{
	spine_plan_free(worker->plan);
	worker->plan = NULL;
	if (worker->pipeline)
		MemoryContextDelete(worker->pipeline->context);
	worker->pipeline = NULL;
}

/* What was wrong with the old log is over. */
void
spine_worker_leave_log(SpineWorker *worker)
{
	spine_consumer_close(worker->consumer);
	worker->consumer = NULL;
	worker->is_assigned = worker->has_stuck = false;
}

SpineStage
spine_worker_next_stage(SpineWorker *worker)
{
	if (worker->pipeline == NULL)
		return SPINE_LOADING;
	if (worker->consumer == NULL || !spine_consumer_is_connected(worker->consumer))
	{
		worker->is_assigned = false;
		return SPINE_CONNECTING;
	}
	return worker->is_assigned ? SPINE_READING : SPINE_ASSIGNING;
}

bool
spine_worker_is_due(TimestampTz since, int interval_ms)
{
	return TimestampDifferenceExceeds(since, GetCurrentTimestamp(), interval_ms);
}

/* --------------------------------------------------------------------------
 * Trouble and rest
 * -------------------------------------------------------------------------- */

void
spine_worker_publish(SpineWorker *worker)
{
	int			n;
	SpineProgressReport *reports = spine_consumer_report(worker->consumer, &n);

	spine_status_publish_positions(&worker->log, reports, n);
	spine_worker_note_lag(worker, reports, n);
	pfree(reports);
}

void
spine_worker_report_running(SpineWorker *worker)
{
	worker->has_stuck = !spine_consumer_is_well(worker->consumer);
	worker->error.class = SPINE_NO_ERROR;
	spine_worker_status_running(&worker->status, !worker->has_stuck);
}

SpineStage
spine_worker_meet_error(SpineWorker *worker)
{
	spine_worker_status_trouble(&worker->status, &worker->error, true);
	worker->rest_ms = spine_worker_status_rest_ms(&worker->status, &worker->error);
	if (worker->error.class != SPINE_TRANSIENT)
	{
		spine_worker_forget_pipeline(worker);	/* to look at what was mended */
		spine_worker_give_back(worker); /* the others may be well */
	}
	return SPINE_RESTING;
}

/*
 * Sleeps until the time is over or something is asked of the worker.  New records do not
 * end the rest: they could not be applied.
 */
static SpineStage
rest(SpineWorker *worker)
{
	if (worker->consumer && worker->is_assigned)
		spine_worker_publish(worker);	/* or nobody would see the lag grow */
	spine_worker_nap(worker, worker->rest_ms);
	return spine_worker_next_stage(worker);
}

void
spine_worker_nap(SpineWorker *worker, long timeout_ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

void
spine_worker_sleep(SpineWorker *worker, long timeout_ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	if (timeout_ms > 1000)
		pgstat_report_stat(true);	/* of the last batch, before we go quiet */
	spine_consumer_wait(worker->consumer, timeout_ms);
}

/* --------------------------------------------------------------------------
 * What changes around the worker
 * -------------------------------------------------------------------------- */

/*
 * Has PostgreSQL's own catalog of servers changed, the right to use them included?  A worker
 * that is idle hears of it by the catalog's generation.
 */
static bool servers_changed = false;

static void
note_server_change(Datum arg, int cache, uint32 hash)
{
	servers_changed = true;
}

/*
 * The catalog's generation; of a database that is not known any more, the old one.
 * *share_changed: are there partitions for this worker to look for?
 */
static uint64
catalog_generation(const SpineWorker *worker, bool *share_changed)
{
	const SpineDatabase *db;
	uint64		generation;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	db = spine_shared_find_database(worker->database);
	generation = db ? db->catalog_generation : worker->catalog_generation;
	*share_changed = worker->status.slot->share_changed;
	LWLockRelease(spine_shared->lock);
	return generation;
}

bool
spine_worker_has_news(SpineWorker *worker)
{
	bool		share_changed;	/* can wait */

	return ConfigReloadPending || servers_changed ||
		catalog_generation(worker, &share_changed) != worker->catalog_generation;
}

/* Configuration and catalog: what has changed since the last look. */
static SpineStage
notice_changes(SpineWorker *worker)
{
	bool		changed = false;
	bool		share_changed;
	uint64		generation;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		if (spine_session_settings_changed())
			proc_exit(0);		/* the launcher starts another one */
		spine_worker_forget_pipeline(worker);	/* its topic may be a setting */
		changed = true;
	}

	generation = catalog_generation(worker, &share_changed);
	if (servers_changed)
	{
		servers_changed = false;
		if (OidIsValid(worker->cluster.server))
		{
			spine_worker_forget_pipeline(worker);	/* the server is looked up with it */
			changed = true;
		}
	}
	if (generation != worker->catalog_generation)
	{
		worker->catalog_generation = generation;
		spine_worker_forget_pipeline(worker);
		worker->is_assigned = false;	/* a position may have been moved by hand */
		changed = true;
	}

	/* what is in hand is applied first */
	if (share_changed && worker->is_assigned && !spine_consumer_has_batch(worker->consumer))
	{
		worker->is_assigned = false;
		changed = true;
	}

	if (worker->consumer)
	{
		SpineCluster cluster = spine_worker_cluster(worker);

		if (!spine_consumer_is_for(worker->consumer, &cluster, worker->log.topics, spine_settings_max_piece()))
		{
			spine_worker_leave_log(worker);
			changed = true;
		}
	}
	return changed ? spine_worker_next_stage(worker) : worker->stage;
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
attach(SpineWorker *worker, int slot_number)
{
	SpineWorkerSlot *slot = &spine_shared->workers[slot_number];
	SpineDatabase *db;
	bool		may_run;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = OidIsValid(slot->database) ? spine_shared_find_database(slot->database) : NULL;
	may_run = db && db->holds == 0 && slot->wanted && slot->pid == 0;
	if (may_run)
	{
		worker->status.slot = slot;
		worker->status.pipeline = worker->pipeline_name = worker->log.pipeline = slot->pipeline;
		worker->database = slot->database;
		worker->index = slot->index;
		worker->workers = slot->workers;
		worker->max_pieces = 2; /* the first batch shows how long rows that are kept take */
		worker->catalog_generation = db->catalog_generation;
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->is_idle = slot->share_changed = false;
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
	SpineWorker	   *worker = (SpineWorker *) DatumGetPointer(arg);
	SpineWorkerSlot *slot = worker->status.slot;

	/* an error that nobody classified: it is why the process ends */
	if (code != 0 && worker->error.class != SPINE_NO_ERROR)
		spine_status_set_state(slot, SPINE_WAITING, &worker->error);
	spine_worker_give_back(worker);

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	if (slot->pid == MyProcPid)
	{
		slot->pid = 0;
		slot->latch = NULL;
	}
	spine_shared_wake_launcher();
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);
}

/*
 * Until the broker has answered a commit to its group, nothing is done that might wait
 * for a lock.  False: it has not yet, and the worker has slept.
 */
static bool
group_commit_is_over(SpineWorker *worker)
{
	if (worker->consumer == NULL || !spine_consumer_is_connected(worker->consumer))
		return true;
	if (spine_consumer_is_committing(worker->consumer))
	{
		spine_worker_sleep(worker, GROUP_COMMIT_SLEEP_MS);
		return false;
	}

	/* it took too long */
	if (!spine_consumer_is_connected(worker->consumer))
		worker->stage = spine_worker_next_stage(worker);
	return true;
}

static SpineStage
take_step(SpineWorker *worker)
{
	switch (worker->stage)
	{
		case SPINE_LOADING:
			return spine_worker_load(worker);
		case SPINE_CONNECTING:
			return spine_worker_connect(worker);
		case SPINE_ASSIGNING:
			return spine_worker_assign(worker);
		case SPINE_READING:
			return spine_worker_read(worker);
		case SPINE_APPLYING:
			return spine_worker_apply(worker);
		case SPINE_RESTING:
			return rest(worker);
	}
	pg_unreachable();
}

void
spine_worker_main(Datum slot_number)
{
	SpineWorker	   *worker = MemoryContextAllocZero(TopMemoryContext, sizeof(SpineWorker));
	MemoryContext step_context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!attach(worker, DatumGetInt32(slot_number)))
		proc_exit(0);
	before_shmem_exit(detach, PointerGetDatum(worker));

	BackgroundWorkerInitializeConnectionByOid(worker->database, InvalidOid, 0);
	spine_session_settings_apply();
	(void) spine_session_settings_changed();	/* remembers them */

	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, note_server_change, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, note_server_change, (Datum) 0);
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
		worker->stage = notice_changes(worker);
		worker->stage = take_step(worker);
	}
}

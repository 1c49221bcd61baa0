/*
 * trouble.c
 *		What a worker does when a step did not succeed: say so, rest, and let
 *		the loop look again.
 */
#include "process/trouble.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "process/status.h"

#define FIRST_RETRY_MS			100
#define LAST_RETRY_MS			5000
#define FAILED_RETRY_MS			5000

/*
 * Sleeps until the time is over or something is asked of us.  New records do
 * not end it: we could not apply them.
 */
static void
rest(SpineWorker *worker, long timeout_ms)
{
	pgstat_report_activity(STATE_IDLE, NULL);
	if (worker->consumer && worker->assigned)
		spine_publish_watermarks(worker);	/* or nobody would see the lag grow */
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Says what is wrong, in the status always, in the log when it is news. */
static void
report_trouble(SpineWorker *worker, SpineWorkerState state, const SpineError *error)
{
	spine_set_worker_state(worker->slot, state, error);
	if (!spine_error_is_same(&worker->logged, error))
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" is %s: %s", NameStr(worker->pipeline_name),
						state == SPINE_FAILED ? "failed" : "waiting", spine_error_text(error, true))));
		worker->logged = *error;
	}
}

void
spine_report_failed(SpineWorker *worker, const SpineError *error)
{
	report_trouble(worker, SPINE_FAILED, error);
}

void
spine_report_running(SpineWorker *worker)
{
	worker->retry_ms = FIRST_RETRY_MS;
	if (!bms_is_empty(worker->stuck))
	{
		/* the others go on, but it is not well */
		spine_set_worker_state(worker->slot, SPINE_FAILED, NULL);
		return;
	}

	if (worker->logged.class != SPINE_NO_ERROR)
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" goes on", NameStr(worker->pipeline_name))));
		worker->logged.class = SPINE_NO_ERROR;
	}
	worker->error.class = SPINE_NO_ERROR;
	spine_set_worker_state(worker->slot, SPINE_RUNNING, NULL);
}

/* Waits out a transient error, longer each time. */
void
spine_wait_out(SpineWorker *worker, const SpineError *error)
{
	report_trouble(worker, SPINE_WAITING, error);
	worker->retry_ms = Max(worker->retry_ms, FIRST_RETRY_MS);
	rest(worker, worker->retry_ms);
	worker->retry_ms = Min(worker->retry_ms * 2, LAST_RETRY_MS);
}

void
spine_wait_for_help(SpineWorker *worker, const SpineError *error)
{
	report_trouble(worker, SPINE_FAILED, error);
	rest(worker, FAILED_RETRY_MS);
}

void
spine_handle_error(SpineWorker *worker)
{
	if (worker->error.class == SPINE_TRANSIENT)
		spine_wait_out(worker, &worker->error);
	else
	{
		spine_wait_for_help(worker, &worker->error);
		spine_forget_pipeline(worker);	/* look again, at what was mended */
	}
}

void
spine_handle_outcome(SpineWorker *worker, SpineBatchOutcome outcome)
{
	switch (outcome)
	{
		case SPINE_BATCH_COMMITTED:
		case SPINE_BATCH_TOO_LARGE:
			break;
		case SPINE_BATCH_TARGET_CHANGED:	/* the records in hand are still right */
			spine_forget_pipeline(worker);
			break;
		case SPINE_BATCH_MOVED:
		case SPINE_BATCH_GONE:
			worker->assigned = false;
			spine_forget_pipeline(worker);
			break;
		case SPINE_BATCH_FAILED:
			spine_handle_error(worker);
			break;
	}
}

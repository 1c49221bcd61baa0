/*
 * trouble.c
 *		What a worker does when a step did not succeed: say so, rest, and let
 *		the loop look again.
 */
#include "trouble.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "status.h"

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
report_trouble(SpineWorker *worker, SpineWorkerState state, const char *text)
{
	spine_set_worker_state(worker->slot, state, text);
	if (strcmp(worker->logged, text) != 0)
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" is %s: %s", NameStr(worker->pipeline_name),
						state == SPINE_FAILED ? "failed" : "waiting", text)));
		strlcpy(worker->logged, text, sizeof(worker->logged));
	}
}

void
spine_report_failed(SpineWorker *worker, const char *text)
{
	report_trouble(worker, SPINE_FAILED, text);
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

	if (worker->logged[0])
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" goes on", NameStr(worker->pipeline_name))));
		worker->logged[0] = '\0';
	}
	worker->error.text[0] = '\0';
	spine_set_worker_state(worker->slot, SPINE_RUNNING, NULL);
}

/* Waits out a transient error, longer each time. */
void
spine_wait_out(SpineWorker *worker, const char *text)
{
	report_trouble(worker, SPINE_WAITING, text);
	worker->retry_ms = Max(worker->retry_ms, FIRST_RETRY_MS);
	rest(worker, worker->retry_ms);
	worker->retry_ms = Min(worker->retry_ms * 2, LAST_RETRY_MS);
}

void
spine_wait_for_help(SpineWorker *worker, const char *text)
{
	report_trouble(worker, SPINE_FAILED, text);
	rest(worker, FAILED_RETRY_MS);
}

/* What to do after a step that did not succeed. */
void
spine_handle_outcome(SpineWorker *worker, SpineOutcome outcome)
{
	switch (outcome)
	{
		case SPINE_DONE:
		case SPINE_TOO_LARGE:
			break;
		case SPINE_ABANDONED:

			/* for a target that was altered, the records in hand are still right */
			worker->assigned = worker->plan && spine_plan_is_stale(worker->plan);
			spine_forget_pipeline(worker);
			break;
		case SPINE_TRANSIENT:
			spine_wait_out(worker, worker->error.text);
			break;
		case SPINE_STRUCTURAL:
		case SPINE_REFUSED:
			spine_wait_for_help(worker, worker->error.text);
			spine_forget_pipeline(worker);	/* look again, at what was mended */
			break;
	}
}

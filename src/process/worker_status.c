/*
 * worker_status.c
 *		Reports trouble and its end, and paces the attempts in between.
 */
#include "process/worker_status.h"

#include "process/status.h"

#define FIRST_RETRY_MS		100
#define LAST_RETRY_MS		5000
#define FAILED_RETRY_MS		5000

void
spine_worker_status_trouble(SpineWorkerStatus *status, const SpineError *error, bool is_news)
{
	SpineWorkerState state = error->class == SPINE_TRANSIENT ? SPINE_WAITING : SPINE_FAILED;

	SpineError	lasting = *error;

	/* one that is still the same began when it was first met */
	if (spine_error_is_same(&status->reported, error))
		lasting.since = status->reported.since;
	spine_set_worker_state(status->slot, state, &lasting);
	if (is_news && !spine_error_is_same(&status->reported, error))
		ereport(LOG,
				(errmsg("pipeline \"%s\" is %s: %s", NameStr(status->pipeline),
						state == SPINE_FAILED ? "failed" : "waiting", spine_error_text(error, false)),
				 error->hint[0] ? errhint("%s", error->hint) : 0));
	status->reported = lasting;
}

void
spine_worker_status_running(SpineWorkerStatus *status, bool is_well)
{
	status->retry_ms = FIRST_RETRY_MS;
	if (is_well && status->reported.class != SPINE_NO_ERROR)
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" goes on", NameStr(status->pipeline))));
		status->reported.class = SPINE_NO_ERROR;
	}
	spine_set_worker_state(status->slot, is_well ? SPINE_RUNNING : SPINE_FAILED, NULL);
}

long
spine_worker_status_rest_ms(SpineWorkerStatus *status, const SpineError *error)
{
	long		rest_ms;

	if (error->class != SPINE_TRANSIENT)
		return FAILED_RETRY_MS;
	rest_ms = Max(status->retry_ms, FIRST_RETRY_MS);
	status->retry_ms = Min(rest_ms * 2, LAST_RETRY_MS);
	return rest_ms;
}

/*
 * worker_state.c
 *		What a worker holds, and how it lets go of it.
 */
#include "process/worker_state.h"

#include "process/settings.h"
#include "process/status.h"
#include "utils/memutils.h"

/* Of small records for a wide table the fields are the most: 64 MB of them. */
#define MAX_BATCH_FIELDS	(4 * 1024 * 1024)

void
spine_forget_pipeline(SpineWorker *worker)
{
	spine_plan_free(worker->plan);
	worker->plan = NULL;
	if (worker->pipeline)
		MemoryContextDelete(worker->pipeline->context);
	worker->pipeline = NULL;
}

void
spine_disconnect(SpineWorker *worker)
{
	spine_consumer_close(worker->consumer);
	worker->consumer = NULL;
	worker->assigned = false;
	worker->batch_started = 0;
}

int
spine_batch_limit(const SpineWorker *worker)
{
	return Max(Min(spine_batch_rows, MAX_BATCH_FIELDS / Max(worker->plan->fields.n, 1)), 1);
}

void
spine_publish_watermarks(SpineWorker *worker)
{
	spine_consumer_refresh_watermarks(worker->consumer);
	spine_publish_progress(&worker->log, worker->consumer->positions,
						   worker->consumer->npositions, -1);
	worker->consumer->reached_end = false;
}

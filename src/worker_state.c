/*
 * worker_state.c
 *		What a worker holds, and how it lets go of it.
 */
#include "worker_state.h"

#include "status.h"
#include "utils/memutils.h"

void
spine_forget_pipeline(SpineWorker *worker)
{
	spine_free_plan(worker->plan);
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

void
spine_publish_watermarks(SpineWorker *worker)
{
	spine_consumer_refresh_watermarks(worker->consumer);
	spine_publish_progress(&worker->log, worker->consumer->positions,
						   worker->consumer->npositions, -1);
	worker->consumer->reached_end = false;
}

/*
 * worker_state.h
 *		What a worker knows and holds, for the files that its life is told in:
 *		worker.c (the loop), assignment.c (its partitions) and trouble.c (what
 *		it does when a step does not succeed).
 */
#ifndef SPINE_WORKER_STATE_H
#define SPINE_WORKER_STATE_H

#include "apply/plan.h"
#include "apply/transaction.h"
#include "catalog/pipeline.h"
#include "kafka/consumer.h"
#include "nodes/bitmapset.h"
#include "process/positions.h"
#include "apply/search.h"
#include "process/batch.h"
#include "process/shared.h"

typedef struct SpineWorker
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
	SpineCluster cluster;		/* of the consumer */
	int			batch_rows;		/* that the consumer has room for */
	SpineConsumer *consumer;
	SpinePrefetch prefetch;		/* what the consumer is started with */
	bool		assigned;
	Bitmapset  *stuck;			/* partitions that could not be read further */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* of the assignment */
	bool		broker_trouble; /* it did not answer, or has no such topic */
	bool		lost_log;		/* the one that was read ended with an earlier embedded broker */

	SpineRefusals refusals;		/* in a row, over the batches */
	size_t		piece;			/* the most records of a batch while many are
								 * refused; 0: all */
	SpineError	error;			/* the last one */
	SpineError	logged;			/* the last one in the log; SPINE_NO_ERROR: all is well */
	int			retry_ms;

	/*
	 * Since when the oldest record of the batch may have been there, which is
	 * since the batch before it began; 0: nothing read yet.
	 */
	TimestampTz batch_started;
	TimestampTz partitions_checked;
	TimestampTz committed_to_broker;
	bool		broker_commit_due;
	int			broker_commit_ms;	/* between two of them */

	TimestampTz summary_logged;
	int64		summary_events;
	int64		summary_dead_letters;
	int64		summary_batches;
} SpineWorker;

/* The catalog or a target has changed: look it up again. */
extern void spine_forget_pipeline(SpineWorker *worker);

/* The broker's settings have changed: connect again.  Drops the batch. */
extern void spine_disconnect(SpineWorker *worker);

/* How many records a batch may have, by its rows and by its decoded fields. */
extern int	spine_batch_limit(const SpineWorker *worker);

/* Publishes what the client knows of the ends of the assigned partitions. */
extern void spine_publish_watermarks(SpineWorker *worker);

#endif							/* SPINE_WORKER_STATE_H */

/*
 * worker_internal.h
 *		What a worker knows and holds, for the files that its life is told in: worker.c
 *		(the machine), worker_startup.c (LOADING, CONNECTING, ASSIGNING), worker_batch.c
 *		(READING, APPLYING) and worker_share.c (which partitions it gives to other workers).
 */
#ifndef SPINE_WORKER_INTERNAL_H
#define SPINE_WORKER_INTERNAL_H

#include "apply/plan.h"
#include "apply/search.h"
#include "kafka/consumer.h"
#include "process/batch.h"
#include "process/positions.h"
#include "process/worker_status.h"

/* The stages of its life, which worker.c draws. */
typedef enum SpineStage
{
	SPINE_LOADING,
	SPINE_CONNECTING,
	SPINE_ASSIGNING,
	SPINE_READING,
	SPINE_APPLYING,
	SPINE_RESTING
} SpineStage;

typedef struct SpineWorker
{
	SpineStage	stage;

	/* from the slot, which may be given to another worker once this one is gone */
	SpineWorkerStatus status;
	Oid			database;
	NameData	pipeline_name;
	int			index;
	int			workers;
	uint64		catalog_generation;

	SpinePipeline *pipeline;	/* NULL: to be loaded */
	SpinePlan  *plan;			/* goes with the pipeline */
	SpineLog	log;			/* outlives the pipeline */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* of the assignment */
	SpineCluster cluster;		/* of the pipeline's server, as last looked up; outlives the
								 * pipeline; without a server: the default cluster */

	SpineConsumer *consumer;	/* NULL: to be made */
	SpineTopic *topics;			/* that there were when last asked; those of a list that do
								 * not exist have no partitions */
	int			ntopics;
	TimestampTz asked_at;
	bool		is_assigned;	/* the consumer has the positions of the database */
	bool		lost_log;		/* of an embedded broker that has ended */
	bool		broker_is_silent;	/* it did not answer, or has no such topic */
	bool		has_stuck;		/* a partition that is not well */

	SpineRefusals refusals;		/* in a row, over the batches */
	size_t		part;			/* the most records of a batch while many are refused; 0: all */
	size_t		max_pieces;		/* of the next batch, if there is a backlog */
	double		finish_byte_ms; /* to write a byte of the rows that are kept until the end of
								 * a batch; 0: not known yet */
	size_t		nsuspects;		/* so many records are read again, as a batch of several
								 * pieces has failed: each piece by itself */

	TimestampTz rests_until;	/* after a batch; until then only a full one is applied */

	/* see worker_share.c */
	double		record_ms;		/* that a record takes; 0: not known yet */
	int64		lag;			/* of all assigned partitions; -1: not known */
	bool		has_choice;		/* several of them are behind */
	TimestampTz shared_at;		/* when it last looked which of them to give away */

	SpineError	error;			/* the last one */
	long		rest_ms;

	TimestampTz summary_logged;
	int64		summary_events;
	int64		summary_dead_letters;
	int64		summary_batches;
} SpineWorker;

/* worker_startup.c: each does one step, and returns the stage that follows. */
extern SpineStage spine_worker_load(SpineWorker *worker);
extern SpineStage spine_worker_connect(SpineWorker *worker);
extern SpineStage spine_worker_assign(SpineWorker *worker);

/*
 * Asks the broker for the topics and their partitions; if they are others than before,
 * that ends the assignment.  False: the broker does not answer, or has no such topic, as
 * worker->error says.
 */
extern bool spine_worker_find_topics(SpineWorker *worker);

/* worker_batch.c: the same. */
extern SpineStage spine_worker_read(SpineWorker *worker);
extern SpineStage spine_worker_apply(SpineWorker *worker);

/* worker_share.c: how far the worker is behind, as it is about to publish. */
extern void spine_worker_note_lag(SpineWorker *worker, const SpineProgressReport *reports, int n);

/* A batch is committed: gives partitions to an idle worker, if there is one and it is worth it. */
extern void spine_worker_share(SpineWorker *worker, const SpineBatch *batch, double batch_ms);

/* Should this batch, of which there could be more, end so that partitions can be given? */
extern bool spine_worker_wants_to_share(const SpineWorker *worker, const SpineBatch *batch);

/* Gives back what others gave to this worker; if there is something, that ends the assignment. */
extern void spine_worker_give_back(SpineWorker *worker);

/* worker.c: the stage in which there is something to do. */
extern SpineStage spine_worker_next_stage(SpineWorker *worker);

/* Meets worker->error, by its class; returns the stage that follows. */
extern SpineStage spine_worker_meet_error(SpineWorker *worker);

/* The cluster as far as it is known without looking its server up. */
extern SpineCluster spine_worker_cluster(const SpineWorker *worker);

/* Another cluster or topic, or no right to use it: closes the client. */
extern void spine_worker_leave_log(SpineWorker *worker);

/* The catalog or a target has changed: load them again. */
extern void spine_worker_forget_pipeline(SpineWorker *worker);

/* Has something changed that the worker is to look at before the next batch? */
extern bool spine_worker_has_news(SpineWorker *worker);

/* Publishes where the assigned partitions stand, and where they end. */
extern void spine_worker_publish(SpineWorker *worker);

/* The worker goes on; a partition may still be stuck. */
extern void spine_worker_report_running(SpineWorker *worker);

/* Sleeps until the time is over or something happens. */
extern void spine_worker_sleep(SpineWorker *worker, long timeout_ms);

/* Sleeps until the time is over, also when there are more records. */
extern void spine_worker_nap(SpineWorker *worker, long timeout_ms);

/* Has the interval passed? */
extern bool spine_worker_is_due(TimestampTz since, int interval_ms);

#endif							/* SPINE_WORKER_INTERNAL_H */

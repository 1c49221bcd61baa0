/*
 * shared.h
 *		The shared memory of spine: which databases and workers there are, how
 *		far each partition is applied, and where the embedded broker listens.
 *
 * Everything here is protected by spine_shared->lock.  It is taken for a few
 * stores per batch, so one lock is enough.  Latch pointers point into PGPROC
 * entries, which are never freed: setting a stale one is a spurious wake-up.
 */
#ifndef SPINE_SHARED_H
#define SPINE_SHARED_H

#include "compat.h"
#include "datatype/timestamp.h"
#include "error.h"
#include "kafka/cluster.h"
#include "process/settings.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"

#define SPINE_MAX_DATABASES		64
#define SPINE_MAX_WORKERS		128
#define SPINE_MAX_PARTITIONS	4096
#define SPINE_MAX_TOPIC_LEN		250 /* Kafka's limit of 249, and a NUL */
#define SPINE_MAX_PIPELINES		256 /* that are counted */
#define SPINE_MAX_TENANTS		64	/* that one database's producers are counted by */
#define SPINE_MAX_PRODUCED		1024	/* the same, over all databases */
#define SPINE_BATCH_BUCKETS		13

/* What a worker is doing, as spine_status shows it. */
typedef enum SpineWorkerState
{
	SPINE_STARTING,				/* no assignment yet */
	SPINE_RUNNING,
	SPINE_WAITING,				/* a transient error: trying again, with pauses */
	SPINE_FAILED				/* needs a person: trying again, slowly */
} SpineWorkerState;

/*
 * One worker that should run, or runs.  A slot is free when database is
 * InvalidOid.  `wanted` is written by the database's probe; `pid`, `latch`,
 * `state` and the error by the worker; slots are freed by the launcher.
 */
typedef struct SpineWorkerSlot
{
	Oid			database;
	NameData	pipeline;
	int			index;			/* takes partitions p with p % workers == index */
	int			workers;
	bool		wanted;
	int			pid;			/* 0: not running */
	Latch	   *latch;			/* valid while pid != 0 */
	SpineWorkerState state;
	TimestampTz state_since;
	TimestampTz batch_started;	/* the last one, be it done or not; 0: none */
	SpineError	last_error;		/* kept after recovery; SPINE_NO_ERROR: none yet */
	TimestampTz last_error_at;	/* when it was last met */
} SpineWorkerSlot;

/*
 * One connectable database.  Its life: probe_wanted -> a probe runs
 * (probe_pid) -> has_extension is known and the worker slots are `wanted` or
 * not.  While holds is not 0, nothing of ours starts there: some backend is
 * about to drop or move the database, or drop the extension.
 */
typedef struct SpineDatabase
{
	Oid			oid;			/* InvalidOid: free */
	bool		probe_wanted;	/* set by anyone; cleared by the launcher as it
								 * starts a probe */
	bool		probe_done;		/* the last probe came to its end */
	int			probe_pid;		/* 0: none; written by the probe */
	int			holds;			/* backends that keep us out */
	bool		has_extension;	/* written by the probe */
	int			left_out;		/* workers that found no slot; written by the probe */
	uint64		catalog_generation; /* bumped when the catalog changes */
} SpineDatabase;

/*
 * The embedded broker, and the process that tends it.  `wanted` is written by the
 * launcher, the rest by that process.
 */
typedef struct SpineEmbeddedBroker
{
	bool		wanted;			/* written by the launcher */
	int			pid;			/* of the process that tends it */
	char		address[64];	/* "": not running */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* new at each start of the program */
	char		last_end[64];	/* how the last one ended; "": none has, by itself */
	char		why_not[256];	/* why it was not started; "": it was */
	int64		in_flight_bytes;	/* sent by producers, not yet acknowledged */
} SpineEmbeddedBroker;

typedef struct SpineShared
{
	LWLock	   *lock;
	Latch	   *launcher_latch; /* NULL: no launcher; written by the launcher */
	bool		databases_changed;	/* ask the launcher to read pg_database */
	ConditionVariable progress; /* a batch is committed, a worker or a probe
								 * is gone, the broker is up or down */
	SpineDatabase databases[SPINE_MAX_DATABASES];
	SpineWorkerSlot workers[SPINE_MAX_WORKERS];
	SpineEmbeddedBroker broker;
	int			producer_pid;	/* of the producer worker; written by it */
} SpineShared;

/* How far one partition of one pipeline is applied; written by its worker. */
typedef struct SpineProgressKey
{
	Oid			database;
	NameData	pipeline;
	int32		partition;
} SpineProgressKey;

typedef struct SpineProgress
{
	SpineProgressKey key;
	char		topic[SPINE_MAX_TOPIC_LEN];
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];
	int64		next_offset;
	int64		high_watermark; /* -1: not known yet */
	int64		last_batch_rows;
	double		last_batch_ms;
	TimestampTz last_commit_at; /* 0: none since the server started */
	int64		events_total;
	int64		dead_letters_total;
} SpineProgress;

/*
 * What the workers of one pipeline have done since the server started; written
 * by them.  It outlives each of them.
 */
typedef struct SpinePipelineKey
{
	Oid			database;
	NameData	name;
} SpinePipelineKey;

typedef struct SpinePipelineCounters
{
	SpinePipelineKey key;
	int64		records_consumed;	/* read from the broker */
	int64		upserts;		/* rows written by sinks in mode upsert */
	int64		batches;
	double		batch_seconds;
	int64		batch_buckets[SPINE_BATCH_BUCKETS]; /* by duration; not cumulative */
} SpinePipelineCounters;

/*
 * Synthetic events that the broker acknowledged, by the database they were sent
 * from (InvalidOid: by the producer worker) and tenant.  Written by producers.
 */
typedef struct SpineProducedKey
{
	Oid			database;
	char		tenant[SPINE_MAX_TENANT_BYTES + 1]; /* UTF-8; "": all that have
													 * no entry of their own */
} SpineProducedKey;

typedef struct SpineProduced
{
	SpineProducedKey key;
	int64		events;
} SpineProduced;

/* The end of a partition of the embedded broker, as producers learned it. */
typedef struct SpineLogEndKey
{
	char		topic[SPINE_MAX_TOPIC_LEN];
	int32		partition;
} SpineLogEndKey;

typedef struct SpineLogEnd
{
	SpineLogEndKey key;
	int64		end_offset;		/* one past the last acknowledged record */
	int64		bytes_per_record;	/* a recent average */
} SpineLogEnd;

extern SpineShared *spine_shared;
extern HTAB *spine_progress;	/* SpineProgressKey -> SpineProgress */
extern HTAB *spine_pipeline_counts;	/* SpinePipelineKey -> SpinePipelineCounters */
extern HTAB *spine_tenant_counts;	/* SpineProducedKey -> SpineProduced */
extern HTAB *spine_log_ends;	/* SpineLogEndKey -> SpineLogEnd */

/* Registers the shared memory hooks; called from _PG_init. */
extern void spine_shared_init(void);

/* The slot of a database, or NULL.  Caller holds the lock. */
extern SpineDatabase *spine_find_database(Oid oid);

/* The same, taking a free slot if need be; NULL: none is free. */
extern SpineDatabase *spine_add_database(Oid oid);

/*
 * Claims a place that one process of the server may have, by writing our pid to
 * it; it is given back at exit.  False: another has it.  Takes the lock.
 */
extern bool spine_claim(int *pid);

/* Wakes the launcher.  Caller holds the lock in any mode. */
extern void spine_wake_launcher(void);

/* Wakes every worker of a database, or of all with InvalidOid.  Lock as above. */
extern void spine_wake_workers(Oid database);

/*
 * Asks for a fresh look at a database: its catalog or settings changed, or
 * something was created, dropped or released there.  Takes the lock.
 */
extern void spine_request_probe(Oid database);

#endif							/* SPINE_SHARED_H */

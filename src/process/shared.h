/*
 * shared.h
 *		The shared memory of spine: which databases and workers there are, how
 *		far each partition is applied, and where the embedded broker listens.
 *
 * Everything in spine's shared memory is protected by spine_shared->lock.  The lock is
 * taken for a few stores per batch, so one lock is enough.  Latch pointers point into
 * PGPROC entries, which are never freed: setting a stale one is a spurious wake-up.
 */
#ifndef SPINE_SHARED_H
#define SPINE_SHARED_H

#include "compat.h"
#include "datatype/timestamp.h"
#include "error.h"
#include "kafka/cluster.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"

#define SPINE_MAX_DATABASES		64
#define SPINE_MAX_WORKERS		128
#define SPINE_MAX_PARTITIONS	4096
#define SPINE_MAX_TOPIC_LEN		250 /* Kafka's limit of 249, and a NUL */
#define SPINE_MAX_PIPELINES		256 /* that are counted */
#define SPINE_MAX_EXTRAS		4	/* processes added to the launcher's own */
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
 * InvalidOid.  The database's probe writes `wanted`; the launcher frees slots; the worker
 * writes the rest.
 */
typedef struct SpineWorkerSlot
{
	Oid			database;
	NameData	pipeline;
	int			index;			/* see spine_assignment_worker */
	int			workers;
	bool		wanted;
	int			pid;			/* 0: not running */
	Latch	   *latch;			/* valid while pid != 0 */
	SpineWorkerState state;
	TimestampTz state_since;
	TimestampTz batch_started;	/* of the latest batch, even if it is over; 0: none */
	bool		is_idle;		/* has next to nothing to apply; see share.h */
	bool		share_changed;	/* which partitions it reads; set by the worker that changed it,
								 * cleared by this one as it looks which they are */
	SpineError	last_error;		/* kept after recovery; SPINE_NO_ERROR: none yet */
	TimestampTz last_error_at;	/* when it was last met */
} SpineWorkerSlot;

/*
 * One connectable database.  Its life: probe_wanted -> a probe runs
 * (probe_pid) -> has_extension is known and the worker slots are `wanted` or
 * not.  While holds is not 0, no process of spine starts there: a backend is
 * about to drop or move the database, or drop the extension.
 */
typedef struct SpineDatabase
{
	Oid			oid;			/* InvalidOid: free */
	bool		probe_wanted;	/* set by any process; cleared by the launcher as it
								 * starts a probe */
	bool		probe_done;		/* the last probe came to its end */
	int			probe_pid;		/* 0: none; written by the probe */
	int			holds;			/* backends that keep spine out */
	bool		has_extension;	/* written by the probe */
	int			left_out;		/* workers that found no slot; written by the probe */
	uint64		catalog_generation; /* increased when the catalog changes */
} SpineDatabase;

/*
 * The embedded broker, and the process that tends it.  The launcher writes `wanted`,
 * that process writes the rest.
 */
typedef struct SpineEmbeddedBroker
{
	bool		wanted;
	int			pid;			/* of the process that tends it */
	char		address[64];	/* "": not running */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* new at each start of the program */
	char		last_end[64];	/* how the last one ended; "": none has, by itself */
	char		why_not[256];	/* why it was not started; "": it was */
} SpineEmbeddedBroker;

typedef struct SpineShared
{
	LWLock	   *lock;
	Latch	   *launcher_latch; /* NULL: no launcher; written by the launcher */
	bool		databases_changed;	/* asks the launcher to read pg_database */
	ConditionVariable progress; /* a batch is committed, a worker or a probe
								 * is gone, the broker is up or down */
	SpineDatabase databases[SPINE_MAX_DATABASES];
	SpineWorkerSlot workers[SPINE_MAX_WORKERS];
	SpineEmbeddedBroker broker;
	int			extra_pids[SPINE_MAX_EXTRAS];	/* 0: not running; see launcher.h */
} SpineShared;

/* A pipeline of a database: what the keys of tables about pipelines begin with. */
typedef struct SpinePipelineKey
{
	Oid			database;
	NameData	name;
} SpinePipelineKey;

/*
 * How far one partition of one pipeline is applied; written by its worker.  Partition -1:
 * a topic that a pipeline lists and that does not exist; written by its workers.
 */
typedef struct SpineProgressKey
{
	Oid			database;
	NameData	pipeline;
	char		topic[SPINE_MAX_TOPIC_LEN];
	int32		partition;
} SpineProgressKey;

typedef struct SpineProgress
{
	SpineProgressKey key;
	TimestampTz missing_since;	/* of partition -1 */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];
	int64		next_offset;
	int64		high_watermark; /* -1: not known yet */
	int64		last_batch_rows;
	double		last_batch_ms;
	TimestampTz last_commit_at; /* 0: none since the server started */
	int64		events_total;
	int64		dead_letters_total;

	/* who reads it, where another worker has given it away; see share.h */
	int			given_to;		/* the worker's index, */
	int			given_of;		/* among so many workers; 0: it is not given away */
	TimestampTz given_at;		/* the last time; 0: never */
} SpineProgress;

/*
 * What the workers of one pipeline have done since the server started; written
 * by them.  It outlives each of them.
 */
typedef struct SpinePipelineCounters
{
	SpinePipelineKey key;
	int64		records_consumed;	/* read from the broker */
	int64		upserts;		/* rows written by sinks in mode upsert */
	int64		unchanged;		/* rows that these did not write: what is there is the same or newer */
	int64		filtered;		/* events that a sink's filter has left out, over all sinks */
	int64		batches;
	double		batch_seconds;
	int64		batch_buckets[SPINE_BATCH_BUCKETS]; /* by duration; not cumulative */
} SpinePipelineCounters;

extern SpineShared *spine_shared;
extern HTAB *spine_progress;	/* SpineProgressKey -> SpineProgress */
extern HTAB *spine_pipeline_counts;	/* SpinePipelineKey -> SpinePipelineCounters */

/* Registers the shared memory hooks; called from _PG_init. */
extern void spine_shared_init(void);

/* What the key of a shared table begins with: whose entries can be forgotten together. */
typedef enum SpineTableKey
{
	SPINE_KEY_OTHER,
	SPINE_KEY_DATABASE,			/* an Oid */
	SPINE_KEY_PIPELINE			/* a SpinePipelineKey, or its fields */
} SpineTableKey;

/*
 * Other shared memory under the same lock: called from _PG_init, after
 * spine_shared_init.  *where is set when the server has its shared memory; the memory
 * is zero then.  A table never has more than max_entries; HASH_ENTER_NULL says when it
 * is full.  `name` is not copied.
 */
extern void spine_shared_add_struct(void **where, const char *name, Size size);
extern void spine_shared_add_table(HTAB **where, const char *name, long max_entries,
								   Size key_size, Size entry_size, SpineTableKey key);

/*
 * Removes the entries of a table for which `is_gone` returns true.  It is called under the
 * lock, and must not raise an error.  Takes the lock.
 */
extern void spine_shared_remove(HTAB *table, bool (*is_gone)(const void *entry, const void *arg),
								const void *arg);

/* Removes the entries of a database from all tables.  Takes the lock. */
extern void spine_shared_forget_database(Oid database);

/*
 * Removes the entries of pipelines of this database that are not among the n given,
 * from all tables.  Takes the lock.
 */
extern void spine_shared_keep_pipelines(const NameData *pipelines, uint64 n);

/*
 * A copy of a table's entries, one behind the other, palloc'ed: what may fail is then
 * done without the lock.  Takes the lock.
 */
extern void *spine_shared_copy_table(HTAB *table, Size entry_size, long *n);

/* The slot of a database, or NULL.  The caller holds the lock. */
extern SpineDatabase *spine_shared_find_database(Oid oid);

/* The same, taking a free slot if need be; NULL: none is free. */
extern SpineDatabase *spine_shared_add_database(Oid oid);

/*
 * Claims a place that only one process of the server may have, by writing our pid to
 * it.  The place is given back at exit.  False: another process has it.  Takes the lock.
 */
extern bool spine_shared_claim(int *pid);

/* Wakes the launcher.  The caller holds the lock in any mode. */
extern void spine_shared_wake_launcher(void);

/* Wakes every worker of a database, or all workers with InvalidOid.  Lock as above. */
extern void spine_shared_wake_workers(Oid database);

/*
 * Asks for a fresh look at a database: its catalog or settings have changed, or
 * something was created, dropped or released there.  Takes the lock.
 */
extern void spine_shared_request_probe(Oid database);

#endif							/* SPINE_SHARED_H */

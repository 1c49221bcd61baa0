/*
 * wait.c
 *		spine_wait: until everything that is on the topics now is applied.
 *
 * The broker is asked for the ends of the topics once; from then on the workers'
 * commits wake the session that waits.  What is applied is read from spine_offsets: what
 * the workers publish may be older, when a position was moved and its worker has not
 * looked yet.
 */
#include "compat.h"

#include "catalog/extension.h"
#include "catalog/pg_type.h"
#include "catalog/pipeline.h"
#include "executor/spi.h"
#include "kafka/client_cache.h"
#include "miscadmin.h"
#include "process/find_topics.h"
#include "process/server_cluster.h"
#include "process/status.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* How often the table is read in any case: not every commit is a worker's. */
#define LOOK_AGAIN_MS	1000

/* How long the broker is given at least, whatever the timeout. */
#define BROKER_TIMEOUT_MS	1000

PG_FUNCTION_INFO_V1(spine_wait);

/* A partition, and how far it has to be applied. */
typedef struct WaitTarget
{
	NameData	pipeline;
	const char *topic;
	int32		partition;
	int64		offset;
	const char *cluster_id;
} WaitTarget;

/* In the memory context of the function's call. */
typedef struct WaitList
{
	int			n;
	int			capacity;
	WaitTarget *targets;
} WaitList;

/* What a pipeline reads, and with whose rights. */
typedef struct WaitPipeline
{
	NameData	name;
	char	   *topics;
	char	   *server;			/* NULL: the default cluster */
	Oid			owner;
} WaitPipeline;

/* Milliseconds left of the timeout, at least 0. */
static long
time_left(TimestampTz deadline)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
}

static void
add_target(WaitList *list, const WaitTarget *target)
{
	if (list->n == list->capacity)
	{
		list->capacity *= 2;
		list->targets = repalloc(list->targets, list->capacity * sizeof(WaitTarget));
	}
	list->targets[list->n++] = *target;
}

static void
add_topic(WaitList *list, SpineClient *client, const WaitPipeline *pipeline, const SpineTopic *topic,
		  TimestampTz deadline)
{
	int			n = topic->npartitions;
	int32	   *partitions = palloc(Max(n, 1) * sizeof(int32));
	int64	   *ends = palloc(Max(n, 1) * sizeof(int64));
	char	   *cluster_id;

	for (int i = 0; i < n; i++)
		partitions[i] = i;
	if (!spine_client_find_offsets(client, topic->name, n, partitions, SPINE_LOG_END, ends,
								   Max(time_left(deadline), BROKER_TIMEOUT_MS)))
		spine_client_raise_error(client);
	cluster_id = pstrdup(spine_client_identity(client));

	for (int i = 0; i < n; i++)
	{
		if (ends[i] > 0)
			add_target(list, &(WaitTarget) {pipeline->name, topic->name, partitions[i], ends[i], cluster_id});
	}
}

/*
 * The enabled pipelines of this database, in the current memory context.  Returns how
 * many there are.
 */
static uint64
read_pipelines(WaitPipeline **pipelines)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *schema = spine_extension_schema();
	uint64		n;

	if (schema == NULL)
		return 0;
	SPI_connect();
	/* the catalog of 0.1.0 has no column `server` */
	SPI_execute(psprintf("SELECT p.name, p.topic, pg_catalog.to_jsonb(p) ->> 'server', p.owner::pg_catalog.oid"
						 " FROM %s.spine_pipelines p WHERE p.enabled", schema), true, 0);
	n = SPI_processed;
	*pipelines = MemoryContextAllocZero(context, (n + 1) * sizeof(WaitPipeline));
	for (uint64 i = 0; i < n; i++)
	{
		WaitPipeline *pipeline = &(*pipelines)[i];
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		char	   *server = SPI_getvalue(row, desc, 3);
		bool		isnull;

		namestrcpy(&pipeline->name, SPI_getvalue(row, desc, 1));
		pipeline->topics = MemoryContextStrdup(context, spine_pipeline_topic_or_default(SPI_getvalue(row, desc, 2)));
		pipeline->server = server ? MemoryContextStrdup(context, server) : NULL;
		pipeline->owner = DatumGetObjectId(SPI_getbinval(row, desc, 4, &isnull));
	}
	SPI_finish();
	return n;
}

/* The ends of a pipeline's topics. */
static void
add_pipeline(WaitList *list, const WaitPipeline *pipeline, TimestampTz deadline)
{
	SpineCluster cluster = spine_server_cluster_await(pipeline->server, pipeline->owner);
	SpineClient *client = spine_client_cache_get(&cluster);
	int			n;
	SpineTopic *found = spine_topics_find(client, pipeline->topics, &n, Max(time_left(deadline), BROKER_TIMEOUT_MS));

	if (found == NULL)
		spine_client_raise_error(client);
	for (int i = 0; i < n; i++)
		add_topic(list, client, pipeline, &found[i], deadline);
	spine_client_cache_rest(client);
}

/* The ends of the topics of every enabled pipeline of this database. */
static WaitList
make_wait_list(TimestampTz deadline)
{
	WaitList	list = {.capacity = 8};
	WaitPipeline *pipelines = NULL;
	uint64		npipelines = read_pipelines(&pipelines);

	list.targets = palloc(list.capacity * sizeof(WaitTarget));
	for (uint64 i = 0; i < npipelines; i++)
		add_pipeline(&list, &pipelines[i], deadline);
	return list;
}

/* Does a worker say that it has not come there yet?  Then the table need not be read. */
static bool
is_known_to_lag(const WaitList *list)
{
	bool		lags = false;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	for (int i = 0; i < list->n && !lags; i++)
	{
		const WaitTarget *target = &list->targets[i];
		int64		offset = spine_status_applied_offset(&target->pipeline, target->topic, target->cluster_id,
														 target->partition);

		lags = offset >= 0 && offset < target->offset;
	}
	LWLockRelease(spine_shared->lock);
	return lags;
}

static Datum
make_array(Datum *values, int n, Oid type)
{
	int16		len;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &len, &by_value, &align);
	return PointerGetDatum(construct_array(values, n, type, len, by_value, align));
}

/* The targets as arrays of pipelines, topics, partitions, offsets and clusters. */
static void
targets_as_arrays(const WaitList *list, Datum *arrays)
{
	Datum	   *values[5];

	for (int i = 0; i < (int) lengthof(values); i++)
		values[i] = palloc(list->n * sizeof(Datum));
	for (int i = 0; i < list->n; i++)
	{
		values[0][i] = NameGetDatum(&list->targets[i].pipeline);
		values[1][i] = CStringGetTextDatum(list->targets[i].topic);
		values[2][i] = Int32GetDatum(list->targets[i].partition);
		values[3][i] = Int64GetDatum(list->targets[i].offset);
		values[4][i] = CStringGetTextDatum(list->targets[i].cluster_id);
	}
	arrays[0] = make_array(values[0], list->n, NAMEOID);
	arrays[1] = make_array(values[1], list->n, TEXTOID);
	arrays[2] = make_array(values[2], list->n, INT4OID);
	arrays[3] = make_array(values[3], list->n, INT8OID);
	arrays[4] = make_array(values[4], list->n, TEXTOID);
}

/*
 * Do the committed positions say that everything is applied?  The rows are read with
 * the newest snapshot, even in a transaction that has a snapshot of its own.
 */
static bool
is_applied(const WaitList *list)
{
	Oid			types[] = {NAMEARRAYOID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID};
	Datum		args[5];
	bool		applied;

	if (list->n == 0)
		return true;

	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	targets_as_arrays(list, args);
	if (SPI_execute_with_args(psprintf("SELECT FROM ROWS FROM (unnest($1), unnest($2), unnest($3), unnest($4), unnest($5))"
									   " AS t(pipeline, topic, partition, end_offset, cluster_id)"
									   " WHERE NOT EXISTS (SELECT FROM %s.spine_offsets o"
									   " WHERE o.pipeline = t.pipeline AND o.topic = t.topic"
									   " AND o.partition = t.partition AND o.cluster_id = t.cluster_id"
									   " AND o.next_offset >= t.end_offset) LIMIT 1",
									   spine_extension_schema()),
							  lengthof(types), types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read spine_offsets");
	applied = SPI_processed == 0;
	PopActiveSnapshot();
	SPI_finish();
	return applied;
}

Datum
spine_wait(PG_FUNCTION_ARGS)
{
	Datum		timeout = PG_GETARG_DATUM(0);
	TimestampTz deadline;
	WaitList	list;
	bool		applied;

	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(GetCurrentTimestamp()),
													   timeout));
	list = make_wait_list(deadline);

	ConditionVariablePrepareToSleep(&spine_shared->progress);
	while (!(applied = is_applied(&list)) && time_left(deadline) > 0)
	{
		TimestampTz look_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AGAIN_MS);

		look_again = Min(look_again, deadline);
		do
		{
			(void) ConditionVariableTimedSleep(&spine_shared->progress, time_left(look_again),
											   PG_WAIT_EXTENSION);
		} while (time_left(look_again) > 0 && is_known_to_lag(&list));
	}
	ConditionVariableCancelSleep();

	PG_RETURN_BOOL(applied);
}

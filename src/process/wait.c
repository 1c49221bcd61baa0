/*
 * wait.c
 *		spine_wait: until everything that is on the topics now is applied.
 *
 * The ends of the topics are asked from the broker once; from then on the
 * workers' commits wake the waiter.  What is applied is read from spine_offsets:
 * what the workers publish may be older than that, when a position was moved and
 * its worker has not looked yet.
 */
#include "compat.h"

#include "catalog/extension.h"
#include "catalog/pg_type.h"
#include "catalog/pipeline.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "kafka/client_cache.h"
#include "process/status.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Looked at this often, too, for what is committed without a worker's word. */
#define LOOK_AGAIN_MS	1000

PG_FUNCTION_INFO_V1(spine_wait);

/* A partition and how far it has to be applied. */
typedef struct WaitTarget
{
	NameData	pipeline;
	char	   *topic;
	int32		partition;
	int64		offset;
} WaitTarget;

typedef struct WaitList
{
	int			n;
	int			capacity;
	WaitTarget *targets;
} WaitList;

/* Milliseconds left of the timeout, at least 0. */
static long
time_left(TimestampTz deadline)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
}

static void
add_topic(WaitList *list, SpineClient *client, const NameData *pipeline, char *topic,
		  TimestampTz deadline)
{
	int			n = spine_client_count_partitions(client, topic, Max(time_left(deadline), 1000));
	int32	   *partitions = palloc(Max(n, 1) * sizeof(int32));
	int64	   *ends = palloc(Max(n, 1) * sizeof(int64));

	for (int i = 0; i < n; i++)
		partitions[i] = i;
	if (n < 0 || !spine_client_find_offsets(client, topic, n, partitions, SPINE_LOG_END, ends,
											Max(time_left(deadline), 1000)))
		spine_client_raise_error(client);

	for (int i = 0; i < n; i++)
	{
		WaitTarget *target;

		if (ends[i] <= 0)
			continue;
		if (list->n == list->capacity)
		{
			list->capacity *= 2;
			list->targets = repalloc(list->targets, list->capacity * sizeof(WaitTarget));
		}
		target = &list->targets[list->n++];
		target->pipeline = *pipeline;
		target->topic = topic;
		target->partition = partitions[i];
		target->offset = ends[i];
	}
}

/* The ends of the topics of every enabled pipeline of this database. */
static WaitList *
make_wait_list(SpineClient *client, TimestampTz deadline)
{
	MemoryContext context = CurrentMemoryContext;
	WaitList   *list = palloc(sizeof(WaitList));
	char	   *schema = spine_extension_schema();
	uint64		npipelines;
	NameData   *pipelines;
	char	  **topics;

	list->n = 0;
	list->capacity = 8;
	list->targets = palloc(list->capacity * sizeof(WaitTarget));
	if (schema == NULL)
		return list;

	SPI_connect();
	SPI_execute(psprintf("SELECT name, topic FROM %s.spine_pipelines WHERE enabled", schema), true, 0);
	npipelines = SPI_processed;
	pipelines = MemoryContextAllocZero(context, (npipelines + 1) * sizeof(NameData));
	topics = MemoryContextAllocZero(context, (npipelines + 1) * sizeof(char *));
	for (uint64 i = 0; i < npipelines; i++)
	{
		char	   *topic = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);

		namestrcpy(&pipelines[i], SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		topics[i] = MemoryContextStrdup(context, spine_pipeline_topic_or_default(topic));
	}
	SPI_finish();

	for (uint64 i = 0; i < npipelines; i++)
		add_topic(list, client, &pipelines[i], topics[i], deadline);
	return list;
}

/* Does a worker say that it has not come there yet?  Then nobody need look. */
static bool
is_known_to_lag(const WaitList *list, const char *cluster_id)
{
	bool		lags = false;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	for (int i = 0; i < list->n && !lags; i++)
	{
		const WaitTarget *target = &list->targets[i];
		int64		offset = spine_status_applied_offset(&target->pipeline, target->topic, cluster_id,
													target->partition);

		lags = offset >= 0 && offset < target->offset;
	}
	LWLockRelease(spine_shared->lock);
	return lags;
}

/*
 * Do the committed positions say that all of it is applied?  In a transaction with
 * a snapshot of its own as well: the rows belong to the newest there is.
 */
static bool
is_applied(const WaitList *list, const char *cluster_id)
{
	Oid			types[] = {NAMEARRAYOID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TEXTOID};
	Datum	   *values[4];
	Datum		args[5];
	bool		applied;

	if (list->n == 0)
		return true;

	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	for (int i = 0; i < (int) lengthof(values); i++)
		values[i] = palloc(list->n * sizeof(Datum));
	for (int i = 0; i < list->n; i++)
	{
		values[0][i] = NameGetDatum(&list->targets[i].pipeline);
		values[1][i] = CStringGetTextDatum(list->targets[i].topic);
		values[2][i] = Int32GetDatum(list->targets[i].partition);
		values[3][i] = Int64GetDatum(list->targets[i].offset);
	}
	args[0] = PointerGetDatum(construct_array(values[0], list->n, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR));
	args[1] = PointerGetDatum(construct_array(values[1], list->n, TEXTOID, -1, false, TYPALIGN_INT));
	args[2] = PointerGetDatum(construct_array(values[2], list->n, INT4OID, 4, true, TYPALIGN_INT));
	args[3] = PointerGetDatum(construct_array(values[3], list->n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[4] = CStringGetTextDatum(cluster_id);
	if (SPI_execute_with_args(psprintf("SELECT FROM ROWS FROM (unnest($1), unnest($2), unnest($3), unnest($4))"
									   " AS t(pipeline, topic, partition, end_offset)"
									   " WHERE NOT EXISTS (SELECT FROM %s.spine_offsets o"
									   " WHERE o.pipeline = t.pipeline AND o.topic = t.topic"
									   " AND o.partition = t.partition AND o.cluster_id = $5"
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
	Interval   *timeout = PG_GETARG_INTERVAL_P(0);
	TimestampTz deadline;
	SpineClient *client;
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];
	WaitList   *list;
	bool		applied;

	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(GetCurrentTimestamp()),
													   IntervalPGetDatum(timeout)));
	client = spine_session_client();
	list = make_wait_list(client, deadline);
	strlcpy(cluster_id, spine_client_identity(client), sizeof(cluster_id));
	spine_session_rest();

	ConditionVariablePrepareToSleep(&spine_shared->progress);
	while (!(applied = is_applied(list, cluster_id)) && time_left(deadline) > 0)
	{
		TimestampTz look_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AGAIN_MS);

		look_again = Min(look_again, deadline);
		do
		{
			(void) ConditionVariableTimedSleep(&spine_shared->progress, time_left(look_again),
											   PG_WAIT_EXTENSION);
		} while (time_left(look_again) > 0 && is_known_to_lag(list, cluster_id));
	}
	ConditionVariableCancelSleep();

	PG_RETURN_BOOL(applied);
}

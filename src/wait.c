/*
 * wait.c
 *		spine_wait: until everything that is on the topics now is applied.
 *
 * The ends of the topics are asked from the broker once; from then on the
 * workers' commits wake the waiter, which compares what they published.
 */
#include "compat.h"

#include "catalog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "session.h"
#include "settings.h"
#include "status.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

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
	int			n = spine_client_partition_count(client, topic, Max(time_left(deadline), 1000));
	int32	   *partitions = palloc(Max(n, 1) * sizeof(int32));
	int64	   *ends = palloc(Max(n, 1) * sizeof(int64));

	for (int i = 0; i < n; i++)
		partitions[i] = i;
	if (n < 0 || !spine_client_find_offsets(client, topic, n, partitions, SPINE_LOG_END, ends,
											Max(time_left(deadline), 1000)))
		spine_refuse_silent_broker(client);

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
		topics[i] = MemoryContextStrdup(context, topic ? topic : spine_topic);
	}
	SPI_finish();

	for (uint64 i = 0; i < npipelines; i++)
		add_topic(list, client, &pipelines[i], topics[i], deadline);
	return list;
}

static bool
is_applied(const WaitList *list, const char *cluster_id)
{
	bool		applied = true;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	for (int i = 0; i < list->n && applied; i++)
	{
		const WaitTarget *target = &list->targets[i];

		applied = spine_published_offset(&target->pipeline, target->topic, cluster_id,
										 target->partition) >= target->offset;
	}
	LWLockRelease(spine_shared->lock);
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
	strlcpy(cluster_id, client->cluster_id, sizeof(cluster_id));
	spine_session_rest();

	ConditionVariablePrepareToSleep(&spine_shared->progress);
	while (!(applied = is_applied(list, cluster_id)) && time_left(deadline) > 0)
		(void) ConditionVariableTimedSleep(&spine_shared->progress, time_left(deadline),
										   PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();

	PG_RETURN_BOOL(applied);
}

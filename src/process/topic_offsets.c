/*
 * topic_offsets.c
 *		spine_topic_offsets: what the broker has of a topic, for spine_seek and
 *		for anybody who wants to know.
 */
#include "compat.h"

#include "funcapi.h"
#include "kafka/client_cache.h"
#include "process/look.h"
#include "process/server_cluster.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define BROKER_TIMEOUT_MS	10000

PG_FUNCTION_INFO_V1(spine_topic_offsets);

/* A topic's partitions, from 0 on, with an offset of each. */
typedef struct TopicOffsets
{
	const char *topic;
	int			n;
	int32	   *partitions;
	int64	   *starts;
	int64	   *ends;
	int64	   *times;			/* -1: no record of the time or later; NULL: not asked for */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];
} TopicOffsets;

static int64 *
ask(SpineClient *client, const TopicOffsets *of, int64 time_ms)
{
	int64	   *offsets = palloc(of->n * sizeof(int64));

	if (!spine_client_find_offsets(client, of->topic, of->n, of->partitions, time_ms, offsets,
								   BROKER_TIMEOUT_MS))
		spine_client_raise_error(client);
	return offsets;
}

/* In the current memory context; with the offsets of a time, or NULL. */
static TopicOffsets
read_offsets(const SpineCluster *cluster, const char *topic, const TimestampTz *time)
{
	SpineClient *client = spine_client_cache_get(cluster);
	TopicOffsets of = {.topic = topic};

	if (time)
		spine_look_check_time(cluster);

	of.n = spine_client_count_partitions(client, topic, BROKER_TIMEOUT_MS);
	if (of.n < 0)
		spine_client_raise_error(client);
	if (of.n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("topic \"%s\" does not exist", topic)));
	of.partitions = palloc(of.n * sizeof(int32));
	for (int i = 0; i < of.n; i++)
		of.partitions[i] = i;

	/* the ends last, so that no other offset is beyond them */
	of.starts = ask(client, &of, SPINE_LOG_START);
	if (time)
		of.times = ask(client, &of, spine_look_time_ms(*time));
	of.ends = ask(client, &of, SPINE_LOG_END);
	strlcpy(of.cluster_id, spine_client_identity(client), sizeof(of.cluster_id));
	spine_client_cache_rest(client);
	return of;
}

Datum
spine_topic_offsets(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz time = PG_ARGISNULL(1) ? 0 : PG_GETARG_TIMESTAMPTZ(1);
	SpineCluster cluster;
	TopicOffsets of;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;

	cluster = spine_server_cluster_argument(fcinfo, 2);
	of = read_offsets(&cluster, text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_ARGISNULL(1) ? NULL : &time);
	for (int i = 0; i < of.n; i++)
	{
		Datum		values[5];
		bool		nulls[5] = {false};

		values[0] = Int32GetDatum(i);
		values[1] = Int64GetDatum(of.starts[i]);
		values[2] = Int64GetDatum(of.ends[i]);
		nulls[3] = of.times == NULL;
		values[3] = of.times ? Int64GetDatum(of.times[i] < 0 ? of.ends[i] : of.times[i]) : (Datum) 0;
		values[4] = CStringGetTextDatum(of.cluster_id);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

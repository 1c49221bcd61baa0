/*
 * topic_offsets.c
 *		spine_topic_offsets: what the broker has of a topic, for spine_seek and
 *		for whoever wants to know.
 */
#include "compat.h"

#include "datatype/timestamp.h"
#include "funcapi.h"
#include "kafka/client_cache.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define BROKER_TIMEOUT_MS	10000

PG_FUNCTION_INFO_V1(spine_topic_offsets);

/* Kafka's milliseconds since 1970: the first that is not before the time. */
static int64
log_time(TimestampTz time)
{
	const int64 epoch_ms = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (USECS_PER_DAY / 1000);
	int64		ms = time / 1000 + (time % 1000 > 0);

	if (TIMESTAMP_IS_NOBEGIN(time) || ms < -epoch_ms)
		return SPINE_LOG_START;
	if (TIMESTAMP_IS_NOEND(time))
		return SPINE_LOG_END;
	return ms + epoch_ms;
}

Datum
spine_topic_offsets(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		has_time = !PG_ARGISNULL(1);
	char	   *topic;
	SpineClient *client;
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];
	int			n;
	int32	   *partitions;
	int64	   *starts;
	int64	   *ends;
	int64	   *times;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	topic = text_to_cstring(PG_GETARG_TEXT_PP(0));

	client = spine_session_client();
	if (has_time && spine_client_is_embedded(client))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the embedded broker cannot find records by their time")));

	n = spine_client_count_partitions(client, topic, BROKER_TIMEOUT_MS);
	if (n < 0)
		spine_client_raise_error(client);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("topic \"%s\" does not exist", topic)));

	partitions = palloc(n * sizeof(int32));
	starts = palloc(n * sizeof(int64));
	ends = palloc(n * sizeof(int64));
	times = palloc(n * sizeof(int64));
	for (int i = 0; i < n; i++)
		partitions[i] = i;

	/* the end last: what is found before is not after it */
	if (!spine_client_find_offsets(client, topic, n, partitions, SPINE_LOG_START,
								   starts, BROKER_TIMEOUT_MS) ||
		(has_time && !spine_client_find_offsets(client, topic, n, partitions,
												log_time(PG_GETARG_TIMESTAMPTZ(1)),
												times, BROKER_TIMEOUT_MS)) ||
		!spine_client_find_offsets(client, topic, n, partitions, SPINE_LOG_END,
								   ends, BROKER_TIMEOUT_MS))
		spine_client_raise_error(client);

	strlcpy(cluster_id, spine_client_identity(client), sizeof(cluster_id));
	spine_session_rest();
	for (int i = 0; i < n; i++)
	{
		Datum		values[5];
		bool		nulls[5] = {false};

		values[0] = Int32GetDatum(i);
		values[1] = Int64GetDatum(starts[i]);
		values[2] = Int64GetDatum(ends[i]);
		nulls[3] = !has_time;
		values[3] = has_time ? Int64GetDatum(times[i] < 0 ? ends[i] : times[i]) : (Datum) 0;
		values[4] = CStringGetTextDatum(cluster_id);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

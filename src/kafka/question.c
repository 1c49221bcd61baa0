/*
 * question.c
 *		Asks the cluster the few things that have no asynchronous call.
 */
#include "kafka/library.h"

#include "miscadmin.h"

StaticAssertDecl(SPINE_LOG_START == RD_KAFKA_OFFSET_BEGINNING &&
					 SPINE_LOG_END == RD_KAFKA_OFFSET_END,
				 "the library's names for the ends of a log");

/*
 * The library's synchronous requests block, so they are made in slices: short
 * at first, so that interrupts are served at once, and longer for a broker that is
 * far away.  A request that takes longer than its slice is made again.
 */
static bool
next_slice(int *slice_ms, int *left_ms)
{
	CHECK_FOR_INTERRUPTS();
	if (*left_ms <= 0)
		return false;
	*slice_ms = Min(Min(*slice_ms == 0 ? 100 : *slice_ms * 2, 400), *left_ms);
	*left_ms -= *slice_ms;
	return true;
}

/* The library's handle of a topic, kept for the next call; NULL: bad name. */
static rd_kafka_topic_t *
topic_handle(SpineClient *client, const char *topic)
{
	if (client->topic && strcmp(rd_kafka_topic_name(client->topic), topic) != 0)
	{
		rd_kafka_topic_destroy(client->topic);
		client->topic = NULL;
	}
	if (client->topic == NULL)
		client->topic = rd_kafka_topic_new(client->rk, topic, NULL);
	return client->topic;
}

/* Behind the same address may be another cluster by now. */
static void
refresh_identity(SpineClient *client)
{
	char	   *id = client->embedded ? NULL : rd_kafka_clusterid(client->rk, 0);

	if (id == NULL)
		return;
	strlcpy(client->cluster_id, id, sizeof(client->cluster_id));
	rd_kafka_mem_free(client->rk, id);
}

/* Asks about one topic, or about all if it is NULL.  NULL: there is no answer. */
static const struct rd_kafka_metadata *
ask_for_topics(SpineClient *client, rd_kafka_topic_t *topic, int timeout_ms)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
	const struct rd_kafka_metadata *metadata;
	int			slice_ms = 0;

	while (next_slice(&slice_ms, &timeout_ms))
	{
		err = rd_kafka_metadata(client->rk, topic == NULL, topic, &metadata, slice_ms);
		if (err != RD_KAFKA_RESP_ERR__TIMED_OUT && err != RD_KAFKA_RESP_ERR__TRANSPORT)
			break;
		if (err == RD_KAFKA_RESP_ERR__TRANSPORT)
			spine_client_wait(client, Min(slice_ms, 100));
	}
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		spine_client_note_error(client, err, NULL);
		return NULL;
	}
	spine_client_forget_error(client);
	refresh_identity(client);
	return metadata;
}

/* As spine_client_count_partitions. */
static int
read_count(SpineClient *client, const rd_kafka_metadata_topic_t *topic)
{
	switch (topic->err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return topic->partition_cnt;
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
			return 0;
		default:
			spine_client_note_error(client, topic->err, NULL);
			return -1;
	}
}

int
spine_client_count_partitions(SpineClient *client, const char *topic, int timeout_ms)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_t *handle = topic_handle(client, topic);
	int			count = -1;

	if (handle == NULL)
	{
		spine_client_note_error(client, rd_kafka_last_error(), NULL);
		return -1;
	}
	metadata = ask_for_topics(client, handle, timeout_ms);
	if (metadata == NULL)
		return -1;
	if (metadata->topic_cnt == 1)
		count = read_count(client, &metadata->topics[0]);
	else
		spine_client_note_error(client, RD_KAFKA_RESP_ERR__BAD_MSG, NULL);
	rd_kafka_metadata_destroy(metadata);
	return count;
}

SpineTopic *
spine_client_list_topics(SpineClient *client, int *n, int timeout_ms)
{
	const struct rd_kafka_metadata *metadata = ask_for_topics(client, NULL, timeout_ms);
	SpineTopic *topics;

	if (metadata == NULL)
		return NULL;
	*n = metadata->topic_cnt;
	topics = palloc_extended(Max(*n, 1) * sizeof(SpineTopic), MCXT_ALLOC_HUGE);
	for (int i = 0; i < *n; i++)
	{
		const rd_kafka_metadata_topic_t *topic = &metadata->topics[i];

		topics[i].name = pstrdup(topic->topic);
		topics[i].npartitions = topic->err == RD_KAFKA_RESP_ERR_NO_ERROR ? topic->partition_cnt : 0;
	}
	rd_kafka_metadata_destroy(metadata);
	return topics;
}

/* One request for spine_client_find_many_offsets. */
static rd_kafka_resp_err_t
ask_for_offsets(SpineClient *client, rd_kafka_topic_partition_list_t *list, int64 time_ms, int timeout_ms)
{
	rd_kafka_resp_err_t err;

	for (int i = 0; i < list->cnt; i++)
		list->elems[i].offset = time_ms;
	err = rd_kafka_offsets_for_times(client->rk, list, timeout_ms);
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		spine_client_forget_error(client);
	for (int i = 0; i < list->cnt && err == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
		err = list->elems[i].err;
	return err;
}

bool
spine_client_find_many_offsets(SpineClient *client, int n, const SpineTopicPartition *partitions,
							   int64 time_ms, int64 *offsets, int timeout_ms)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t err = n > 0 ? RD_KAFKA_RESP_ERR__TIMED_OUT : RD_KAFKA_RESP_ERR_NO_ERROR;
	int			slice_ms = 0;

	while (err != RD_KAFKA_RESP_ERR_NO_ERROR && next_slice(&slice_ms, &timeout_ms))
	{
		list = rd_kafka_topic_partition_list_new(n);
		for (int i = 0; i < n; i++)
			rd_kafka_topic_partition_list_add(list, partitions[i].topic, partitions[i].partition);
		err = ask_for_offsets(client, list, time_ms, slice_ms);
		for (int i = 0; i < n; i++)
			offsets[i] = list->elems[i].offset;
		rd_kafka_topic_partition_list_destroy(list);
	}
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		spine_client_note_error(client, err, NULL);
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

bool
spine_client_find_offsets(SpineClient *client, const char *topic, int n, const int32 *partitions,
						  int64 time_ms, int64 *offsets, int timeout_ms)
{
	SpineTopicPartition *all = palloc(Max(n, 1) * sizeof(SpineTopicPartition));
	bool		found;

	for (int i = 0; i < n; i++)
		all[i] = (SpineTopicPartition) {topic, partitions[i]};
	found = spine_client_find_many_offsets(client, n, all, time_ms, offsets, timeout_ms);
	pfree(all);
	return found;
}

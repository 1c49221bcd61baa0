/*
 * group_commit.c
 *		Tells the broker's consumer group the positions, for Kafka's own tools to show
 *		lag.  They are never read back.
 *
 * A request to a group's coordinator that has run out makes librdkafka abort the process
 * when the coordinator is back (confluentinc/librdkafka#4605).  So the request may take as
 * long as the library allows, the client is closed before that, and the caller does
 * nothing meanwhile that may keep it from closing the client.
 */
#include "kafka/consumer_internal.h"

#include "utils/timestamp.h"

#define REQUEST_TIMEOUT_MS	(3600 * 1000)
#define PATIENCE_MS			5000	/* with a broker that does not answer */
#define INTERVAL_MS			5000	/* as the clients of Kafka; no batch is applied meanwhile */
#define RETRY_MS			60000	/* after a request that was not answered */

void
spine_group_commit_open(SpineConsumer *consumer)
{
	SpineGroupCommit *commit = &consumer->group_commit;

	commit->is_under_way = false;
	if (commit->interval_ms == 0)
	{
		commit->interval_ms = INTERVAL_MS;
		commit->began_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -INTERVAL_MS);
	}
	commit->answers = rd_kafka_queue_new(consumer->client->rk);
	spine_client_watch(consumer->client, commit->answers);
}

void
spine_group_commit_close(SpineConsumer *consumer)
{
	SpineGroupCommit *commit = &consumer->group_commit;

	if (commit->answers == NULL)
		return;
	rd_kafka_queue_io_event_enable(commit->answers, -1, NULL, 0);
	rd_kafka_queue_destroy(commit->answers);
	commit->answers = NULL;
	commit->is_under_way = false;
}

bool
spine_consumer_is_committing(SpineConsumer *consumer)
{
	SpineGroupCommit *commit = &consumer->group_commit;
	rd_kafka_event_t *answer;

	if (!commit->is_under_way)
		return false;

	/* whether it went well does not matter: the next commit says more anyway */
	spine_client_drain_wakeups(consumer->client);
	while ((answer = rd_kafka_queue_poll(commit->answers, 0)) != NULL)
	{
		rd_kafka_event_destroy(answer);
		commit->is_under_way = false;
		commit->interval_ms = INTERVAL_MS;
	}
	if (commit->is_under_way &&
		TimestampDifferenceExceeds(commit->began_at, GetCurrentTimestamp(), PATIENCE_MS))
	{
		spine_consumer_disconnect(consumer);
		commit->is_due = true;
		commit->interval_ms = RETRY_MS;
	}
	return commit->is_under_way;
}

static void
begin_commit(SpineConsumer *consumer, const char *group)
{
	rd_kafka_t *rk = consumer->client->rk;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(consumer->npartitions);
	rd_kafka_AdminOptions_t *options;
	rd_kafka_AlterConsumerGroupOffsets_t *request;
	char		errstr[256];

	for (int i = 0; i < consumer->npartitions; i++)
		rd_kafka_topic_partition_list_add(list, consumer->partitions[i].topic,
										  consumer->partitions[i].partition)->offset =
			consumer->partitions[i].next_offset;

	/*
	 * Not rd_kafka_commit: while one of those is under way, neither a new assignment nor
	 * the end of the client gets on, for up to a minute when the broker is gone.
	 */
	options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS);
	(void) rd_kafka_AdminOptions_set_request_timeout(options, REQUEST_TIMEOUT_MS,
													 errstr, sizeof(errstr));
	request = rd_kafka_AlterConsumerGroupOffsets_new(group, list);
	rd_kafka_AlterConsumerGroupOffsets(rk, &request, 1, options, consumer->group_commit.answers);
	consumer->group_commit.is_under_way = true;
	rd_kafka_AlterConsumerGroupOffsets_destroy(request);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_topic_partition_list_destroy(list);
}

long
spine_consumer_commit_to_group(SpineConsumer *consumer, bool has_batch)
{
	SpineGroupCommit *commit = &consumer->group_commit;
	int			interval_ms = has_batch ? 2 * commit->interval_ms : commit->interval_ms;
	TimestampTz now = GetCurrentTimestamp();
	char		group[256];
	size_t		size = sizeof(group);

	Assert(!commit->is_under_way);

	if (!commit->is_due || consumer->npartitions == 0)
		return -1;
	if (!TimestampDifferenceExceeds(commit->began_at, now, interval_ms))
		return Min(interval_ms, INTERVAL_MS);

	commit->began_at = now;
	commit->is_due = false;

	/* the group is ours, unless the cluster's options name another */
	if (rd_kafka_conf_get(rd_kafka_conf(consumer->client->rk), "group.id", group, &size) != RD_KAFKA_CONF_OK)
		return -1;
	begin_commit(consumer, group);
	return 0;
}

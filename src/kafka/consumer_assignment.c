/*
 * consumer_assignment.c
 *		Which partitions a consumer reads: starting, stopping and restarting them.
 */
#include "kafka/consumer_internal.h"

#include "utils/memutils.h"

static int
compare(const void *wanted, const void *partition)
{
	const SpineTopicPartition *a = wanted;
	const SpinePartition *b = partition;
	int			order = a->topic == b->topic ? 0 : strcmp(a->topic, b->topic);

	return order != 0 ? order : (a->partition > b->partition) - (a->partition < b->partition);
}

SpinePartition *
spine_consumer_find_partition(const SpineConsumer *consumer, const char *topic, int32 number)
{
	SpineTopicPartition wanted = {topic, number};

	return consumer->npartitions == 0 ? NULL :
		bsearch(&wanted, consumer->partitions, consumer->npartitions, sizeof(SpinePartition), compare);
}

/*
 * Neighbours are mostly of one partition.  The library's object of a topic stays where it
 * is as long as a partition of the topic is assigned, so whoever ends an assignment forgets
 * the last partition.
 */
SpinePartition *
spine_consumer_partition_of(SpineConsumer *consumer, const rd_kafka_message_t *message)
{
	/* otherwise it is left over from an assignment that is no more */
	if (!consumer->is_assigned || message->rkt == NULL)
		return NULL;
	if (message->rkt != consumer->last_topic || message->partition != consumer->last_number ||
		consumer->last_partition == NULL)
	{
		consumer->last_topic = message->rkt;
		consumer->last_number = message->partition;
		consumer->last_partition = spine_consumer_find_partition(consumer, rd_kafka_topic_name(message->rkt),
																 message->partition);
	}
	return consumer->last_partition;
}

/* Returns when librdkafka's own thread has done what it was asked before. */
static void
await_library(rd_kafka_t *rk)
{
	rd_kafka_topic_partition_list_t *list;

	if (rd_kafka_assignment(rk, &list) == RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_topic_partition_list_destroy(list);
}

/* Empties a partition's own queue.  False: a message of another partition was in it. */
static bool
release_queue(SpinePartition *partition)
{
	rd_kafka_message_t *message;
	bool		its_own = true;

	while (rd_kafka_consume_batch_queue(partition->queue, 0, &message, 1) > 0)
	{
		its_own = its_own && spine_message_is_of(message, partition->topic, partition->partition);
		rd_kafka_message_destroy(message);
	}
	rd_kafka_queue_destroy(partition->queue);
	partition->queue = NULL;
	return its_own;
}

/*
 * Waits until the partitions have stopped: librdkafka (2.0.2) aborts the process when a
 * partition is to be stopped again before it has stopped ("Assertion `rktp->rktp_started'
 * failed").
 *
 * Stopping a partition leaves a message in its own queue that keeps the partition alive.
 * If the topic is deleted, the library forgets the partition, but not its thread, and the
 * client would never close.  So the queues are emptied here.
 */
void
spine_consumer_unassign(SpineConsumer *consumer)
{
	rd_kafka_t *rk = consumer->client->rk;

	spine_record_buffer_release(&consumer->buffer, consumer->buffer.nrecords);
	spine_record_buffer_drop_taken(&consumer->buffer, NULL, -1);
	consumer->last_partition = NULL;
	if (!consumer->is_assigned)
		return;

	(void) rd_kafka_assign(rk, NULL);
	await_library(rk);			/* the partitions were told to stop, */
	await_library(rk);			/* and have said that they did */
	for (int i = 0; i < consumer->npartitions; i++)
	{
		if (consumer->partitions[i].queue)
			(void) release_queue(&consumer->partitions[i]);
	}
	consumer->is_assigned = false;
}

bool
spine_consumer_find_marks(SpineConsumer *consumer, SpinePartition *const *partitions, int n, SpineError *error)
{
	SpineTopicPartition *wanted = palloc(Max(n, 1) * sizeof(SpineTopicPartition));
	int64	   *starts = palloc(Max(n, 1) * sizeof(int64));
	bool		has_mark = false;

	for (int i = 0; i < n; i++)
	{
		wanted[i] = (SpineTopicPartition) {partitions[i]->topic, partitions[i]->partition};
		has_mark |= partitions[i]->mark_offset >= 0;
	}
	if (has_mark && !spine_consumer_find_offsets(consumer, n, wanted, SPINE_LOG_START, starts, error))
		return false;
	for (int i = 0; i < n; i++)
		partitions[i]->is_checked = partitions[i]->mark_offset < 0 || partitions[i]->mark_offset < starts[i];
	pfree(wanted);
	pfree(starts);
	return true;
}

/* Replaces the partitions; those that could not be read are not well until they are. */
static void
set_partitions(SpineConsumer *consumer, const SpinePosition *positions, int n)
{
	MemoryContext context = AllocSetContextCreate(consumer->context, "spine assignment",
												  ALLOCSET_DEFAULT_SIZES);
	SpinePartition *partitions = MemoryContextAllocExtended(context, Max(n, 1) * sizeof(SpinePartition),
															MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	for (int i = 0; i < n; i++)
	{
		SpinePartition *partition = &partitions[i];
		const SpinePartition *before = spine_consumer_find_partition(consumer, positions[i].topic,
																	 positions[i].partition);

		if (i > 0 && strcmp(partitions[i - 1].topic, positions[i].topic) == 0)
			partition->topic = partitions[i - 1].topic;
		else
			partition->topic = MemoryContextStrdup(context, positions[i].topic);
		Assert(i == 0 || compare(&(SpineTopicPartition) {positions[i].topic, positions[i].partition},
								 &partitions[i - 1]) > 0);
		partition->partition = positions[i].partition;
		partition->next_offset = partition->read_to = positions[i].next_offset;
		partition->mark_offset = positions[i].mark_offset;
		partition->mark_crc = positions[i].mark_crc;
		partition->high_watermark = -1;
		if (before && before->health != SPINE_HEALTH_WELL)
			partition->health = SPINE_HEALTH_RETRIED;
	}
	if (consumer->assignment)
		MemoryContextDelete(consumer->assignment);
	consumer->assignment = context;
	consumer->partitions = partitions;
	consumer->npartitions = n;
}

/* These partitions, and where each is to be read from. */
static rd_kafka_topic_partition_list_t *
make_list(const SpineConsumer *consumer, SpinePartition *const *partitions, int n)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(Max(n, 1));

	for (int i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, partitions[i]->topic, partitions[i]->partition)->offset =
			partitions[i]->is_checked ? partitions[i]->read_to : partitions[i]->mark_offset;
	return list;
}

static void
open_queue(const SpineConsumer *consumer, SpinePartition *partition)
{
	partition->queue = rd_kafka_queue_get_partition(consumer->client->rk, partition->topic,
													partition->partition);
}

bool
spine_consumer_assign(SpineConsumer *consumer, const SpinePosition *positions, int n, SpineError *error)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t err;
	SpinePartition **all = palloc(Max(n, 1) * sizeof(SpinePartition *));

	spine_consumer_unassign(consumer);
	if (n > 2 * consumer->prefetch.partitions)
	{
		/* each would prefetch more than its share: connect again with the right shares */
		consumer->prefetch.partitions = n;
		spine_consumer_disconnect(consumer);
		return false;
	}
	set_partitions(consumer, positions, n);
	for (int i = 0; i < n; i++)
		all[i] = &consumer->partitions[i];
	if (!spine_consumer_find_marks(consumer, all, n, error))
		return false;

	list = make_list(consumer, all, n);
	err = rd_kafka_assign(consumer->client->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		spine_error_set(error, SPINE_TRANSIENT, "could not assign partitions: %s", rd_kafka_err2str(err));
		return false;
	}
	for (int i = 0; i < n; i++)
		open_queue(consumer, all[i]);
	consumer->is_assigned = true;
	consumer->log_is_lost = false;
	return true;
}

/* Frees the error, if there is one. */
static bool
is_done(rd_kafka_error_t *error)
{
	if (error == NULL)
		return true;
	rd_kafka_error_destroy(error);
	return false;
}

/* Ends the fetching of some partitions, whose queues are gone then.  False: as below. */
static bool
stop(SpineConsumer *consumer, SpinePartition *const *partitions, int n, const rd_kafka_topic_partition_list_t *list)
{
	rd_kafka_t *rk = consumer->client->rk;
	bool		done;

	consumer->last_partition = NULL;	/* another topic's object may come to lie at its topic's place */
	done = is_done(rd_kafka_incremental_unassign(rk, list));
	await_library(rk);			/* as in spine_consumer_unassign */
	await_library(rk);
	for (int i = 0; i < n; i++)
	{
		spine_record_buffer_drop_taken(&consumer->buffer, partitions[i]->topic, partitions[i]->partition);
		done = release_queue(partitions[i]) && done;
	}
	return done;
}

bool
spine_consumer_restart(SpineConsumer *consumer, SpinePartition *const *partitions, int n)
{
	rd_kafka_topic_partition_list_t *list = make_list(consumer, partitions, n);
	bool		done = stop(consumer, partitions, n, list);

	for (int i = 0; i < n; i++)
	{
		SpinePartition *partition = partitions[i];

		open_queue(consumer, partition);
		partition->is_read = partition->is_suspect = false;
		partition->connection = 0;
		if (partition->health == SPINE_HEALTH_STUCK)
			partition->health = SPINE_HEALTH_RETRIED;
	}
	done = done && is_done(rd_kafka_incremental_assign(consumer->client->rk, list));
	rd_kafka_topic_partition_list_destroy(list);
	return done;
}

bool
spine_consumer_release(SpineConsumer *consumer, const SpineTopicPartition *partitions, int n)
{
	SpinePartition **released = palloc(n * sizeof(SpinePartition *));
	rd_kafka_topic_partition_list_t *list;
	bool		done;
	int			nkept = 0;

	Assert(!spine_consumer_has_batch(consumer) && consumer->buffer.nrecords == 0);
	for (int i = 0; i < n; i++)
		released[i] = spine_consumer_find_partition(consumer, partitions[i].topic, partitions[i].partition);
	list = make_list(consumer, released, n);
	done = stop(consumer, released, n, list);
	rd_kafka_topic_partition_list_destroy(list);
	pfree(released);

	for (int i = 0; i < consumer->npartitions; i++)
	{
		if (consumer->partitions[i].queue)
			consumer->partitions[nkept++] = consumer->partitions[i];
	}
	consumer->npartitions = nkept;
	return done;
}

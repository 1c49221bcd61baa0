/*
 * consumer.c
 *		The life of a consumer: connecting and polling.
 */
#include "kafka/consumer_internal.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#define BROKER_TIMEOUT_MS		5000

/* Partitions that share what is prefetched, until they are counted. */
#define FIRST_PREFETCH_SHARE	4

/* So many bytes of records tell how large the records are. */
#define ENOUGH_BYTES			(1024 * 1024)

/* --------------------------------------------------------------------------
 * Life
 * -------------------------------------------------------------------------- */

SpineConsumer *
spine_consumer_create(const SpineCluster *cluster, const char *topics, const char *group, int max_records)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine consumer",
												  ALLOCSET_DEFAULT_SIZES);
	SpineConsumer *consumer = MemoryContextAllocZero(context, sizeof(SpineConsumer));

	consumer->context = context;
	consumer->cluster = spine_cluster_copy(cluster, context);
	consumer->topics = MemoryContextStrdup(context, topics);
	consumer->group = MemoryContextStrdup(context, group);
	consumer->max_records = consumer->limit = max_records;
	consumer->prefetch.partitions = FIRST_PREFETCH_SHARE;
	consumer->prefetch.records = SPINE_PREFETCH_RECORDS;
	consumer->buffer.capacity = Max(max_records, SPINE_LOOK_FURTHER_ROWS);
	consumer->buffer.records = MemoryContextAllocHuge(context, consumer->buffer.capacity * sizeof(SpineRecord));

	/* only when it is whole, so that an error frees it */
	MemoryContextSetParent(context, TopMemoryContext);
	return consumer;
}

void
spine_consumer_close(SpineConsumer *consumer)
{
	if (consumer == NULL)
		return;
	spine_consumer_disconnect(consumer);
	MemoryContextDelete(consumer->context);
}

bool
spine_consumer_is_for(const SpineConsumer *consumer, const SpineCluster *cluster,
					  const char *topics, int max_records)
{
	return spine_cluster_is_same(&consumer->cluster, cluster) &&
		strcmp(consumer->topics, topics) == 0 && consumer->max_records == max_records;
}

static void
release_consumer(void *owner)
{
	SpineConsumer *consumer = owner;

	spine_consumer_unassign(consumer);
	spine_group_commit_close(consumer);
	consumer->client = NULL;
}

void
spine_consumer_connect(SpineConsumer *consumer)
{
	Assert(consumer->client == NULL);

	consumer->client = spine_client_create(SPINE_CONSUMER, &consumer->cluster, consumer->group,
										   &consumer->prefetch);
	spine_group_commit_open(consumer);
	consumer->client->before_release = release_consumer;
	consumer->client->owner = consumer;
}

bool
spine_consumer_is_connected(const SpineConsumer *consumer)
{
	return consumer->client != NULL;
}

void
spine_consumer_disconnect(SpineConsumer *consumer)
{
	spine_client_destroy(consumer->client);
	consumer->log_is_lost = false;
}

void
spine_consumer_wait(SpineConsumer *consumer, long timeout_ms)
{
	spine_client_wait(consumer->client, timeout_ms);
}

/* --------------------------------------------------------------------------
 * Taking messages
 * -------------------------------------------------------------------------- */

/* The end of a partition, or trouble with it.  partition: NULL if it is not assigned. */
static void
note_event(SpineConsumer *consumer, SpinePartition *partition, const rd_kafka_message_t *message)
{
	switch (message->err)
	{
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:

			/*
			 * Where the log ends with what no consumer is shown (transaction markers,
			 * aborted records), the position moves past it.
			 */
			if (partition && spine_partition_accepts_end(partition, consumer->client, message, consumer->assignment))
			{
				spine_partition_set_read(partition, Max(partition->read_to, message->offset));
				consumer->reached_end = true;
			}
			break;

		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
			consumer->log_is_lost = true;
			break;

		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			if (partition)
				spine_partition_set_stuck(partition, SPINE_STUCK_NO_OFFSET, NULL, consumer->assignment);
			break;

		default:
			if (partition)
				spine_partition_set_stuck(partition, SPINE_STUCK_UNREADABLE,
										  rd_kafka_message_errstr(message), consumer->assignment);
			else
				spine_client_note_error(consumer->client, message->err, rd_kafka_message_errstr(message));
			break;
	}

	/*
	 * The partition was read, and its position is gone.  If the topic was made again, other
	 * partitions may have grown beyond their positions: all are read from their marks.
	 */
	if (partition && partition->health == SPINE_HEALTH_STUCK && partition->is_read &&
		partition->reason == SPINE_STUCK_NO_OFFSET)
		consumer->log_is_lost = true;
}

/* Takes what has arrived.  Returns whether the batch is full. */
static bool
take_messages(SpineConsumer *consumer)
{
	SpineRecordBuffer *buffer = &consumer->buffer;
	size_t		limit = spine_record_buffer_limit(buffer, consumer->limit);

	while (buffer->nrecords < limit)
	{
		rd_kafka_message_t *next;
		bool		is_full;
		rd_kafka_message_t *message = spine_record_buffer_take(buffer, consumer->client->queue, &next, &is_full);
		SpinePartition *partition;

		if (message == NULL)
			return is_full;

		partition = spine_consumer_partition_of(consumer, message);
		if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
			note_event(consumer, partition, message);
		else if (partition && spine_partition_accepts(partition, consumer->client, message, consumer->assignment))
		{
			spine_record_buffer_add(buffer, partition->topic, message, next);
			spine_partition_set_read(partition, message->offset + 1);
			partition->last_record = buffer->nrecords;
			consumer->nread++;
			continue;
		}
		rd_kafka_message_destroy(message);
	}
	return true;
}

/* --------------------------------------------------------------------------
 * Asking the broker
 * -------------------------------------------------------------------------- */

/*
 * The broker has not answered.  The library's reports, which are served here, may know
 * more than the request that has failed.  As long as the broker is silent, the client
 * keeps the best reason so far: that a request timed out is no news.
 */
void
spine_consumer_explain_silence(SpineConsumer *consumer, SpineError *error)
{
	(void) take_messages(consumer);
	*error = *spine_client_error(consumer->client);
}

SpineClient *
spine_consumer_client(const SpineConsumer *consumer)
{
	return consumer->client;
}

const char *
spine_consumer_cluster_id(const SpineConsumer *consumer)
{
	return spine_client_identity(consumer->client);
}

bool
spine_consumer_find_offsets(SpineConsumer *consumer, int n, const SpineTopicPartition *partitions,
							int64 time_ms, int64 *offsets, SpineError *error)
{
	if (spine_client_find_many_offsets(consumer->client, n, partitions, time_ms, offsets, BROKER_TIMEOUT_MS))
		return true;
	spine_consumer_explain_silence(consumer, error);
	return false;
}

/* --------------------------------------------------------------------------
 * Polling
 * -------------------------------------------------------------------------- */

/*
 * Are the records much larger than the library knows?  It counts only the bytes of values.
 * Then the consumer has to be connected again, to prefetch fewer records.
 */
static bool
prefetches_too_much(SpineConsumer *consumer)
{
	const SpineRecordBuffer *buffer = &consumer->buffer;
	int			records;

	if (buffer->bytes < ENOUGH_BYTES || buffer->bytes < 2 * buffer->value_bytes)
		return false;
	records = SPINE_PREFETCH_KB * 1024.0 / buffer->bytes * buffer->nrecords;
	if (records >= consumer->prefetch.records / 2)
		return false;
	consumer->prefetch.records = Max(records, 1);
	return true;
}

/*
 * The log does not have a position: on which side of the log is it?  False: on neither,
 * by now.
 */
static bool
look_for_offset(SpineConsumer *consumer, SpineStuck *stuck)
{
	SpineTopicPartition partition = {stuck->topic, stuck->partition};
	SpineError	error;
	int64		start;
	int64		end;

	if (!spine_consumer_find_offsets(consumer, 1, &partition, SPINE_LOG_START, &start, &error) ||
		!spine_consumer_find_offsets(consumer, 1, &partition, SPINE_LOG_END, &end, &error))
		return true;			/* no more is known */
	if (stuck->offset < start)
	{
		stuck->reason = SPINE_STUCK_EXPIRED;
		stuck->log_offset = start;
	}
	else if (stuck->offset > end)
	{
		stuck->reason = SPINE_STUCK_SHORT_LOG;
		stuck->log_offset = end;
	}
	else
		return false;
	return true;
}

/* What is wrong with a partition.  False: nothing, by now. */
static bool
look_into(SpineConsumer *consumer, SpinePartition *partition, SpineStuck *stuck)
{
	stuck->topic = partition->topic;
	stuck->partition = partition->partition;
	stuck->reason = partition->reason;
	stuck->offset = partition->read_to;
	stuck->log_offset = partition->mark_offset;
	stuck->text = partition->text && partition->text[0] ? partition->text : "";
	stuck->is_news = !partition->is_reported;
	if (partition->reason == SPINE_STUCK_NO_OFFSET && !look_for_offset(consumer, stuck))
		return false;
	partition->is_reported = true;
	return true;
}

static void
mark_last_record(const SpineConsumer *consumer, SpinePartition *partition)
{
	if (partition->last_record > 0)
		spine_partition_set_mark(partition, &consumer->buffer.records[partition->last_record - 1]);
}

/* Reads partitions from their marks, or from where they stand if those are not there. */
static SpinePollKind
start_again(SpineConsumer *consumer, SpinePartition *const *partitions, int n)
{
	SpineError	error;

	for (int i = 0; i < n; i++)
		mark_last_record(consumer, partitions[i]);
	if (!spine_consumer_find_marks(consumer, partitions, n, &error))
		return SPINE_POLL_BROKER_SILENT;
	if (spine_consumer_restart(consumer, partitions, n))
		return SPINE_POLL_RECORDS;
	consumer->log_is_lost = true;
	return SPINE_POLL_LOG_LOST;
}

/* Checks the partitions by their marks that are read over another connection than before. */
static SpinePollKind
check_suspects(SpineConsumer *consumer)
{
	SpinePartition **suspects = NULL;
	SpinePollKind kind;
	int			n = 0;

	for (int i = 0; i < consumer->npartitions; i++)
	{
		if (!consumer->partitions[i].is_suspect || consumer->partitions[i].health == SPINE_HEALTH_STUCK)
			continue;
		if (suspects == NULL)
			suspects = palloc(consumer->npartitions * sizeof(SpinePartition *));
		suspects[n++] = &consumer->partitions[i];
	}
	if (n == 0)
		return SPINE_POLL_RECORDS;
	kind = start_again(consumer, suspects, n);
	pfree(suspects);
	return kind;
}

/* Tries one stuck partition again: the library reports such trouble only once. */
static SpinePollKind
retry_stuck(SpineConsumer *consumer, SpineStuck *stuck)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < consumer->npartitions; i++)
	{
		SpinePartition *partition = &consumer->partitions[i];
		SpinePollKind kind;
		bool		is_stuck;

		if (partition->health != SPINE_HEALTH_STUCK ||
			!TimestampDifferenceExceeds(partition->tried_at, now, SPINE_STUCK_RETRY_MS))
			continue;
		is_stuck = look_into(consumer, partition, stuck);
		partition->tried_at = GetCurrentTimestamp();
		kind = start_again(consumer, &partition, 1);

		/* what else there is can be told by the next poll */
		return is_stuck ? SPINE_POLL_PARTITION_STUCK : kind;
	}
	return SPINE_POLL_RECORDS;
}

SpinePoll
spine_consumer_poll(SpineConsumer *consumer, int max_records)
{
	SpinePoll	poll = {.kind = SPINE_POLL_RECORDS};

	spine_client_drain_wakeups(consumer->client);
	consumer->limit = max_records;
	poll.is_full = take_messages(consumer);

	if (prefetches_too_much(consumer))
	{
		spine_consumer_disconnect(consumer);
		poll.kind = SPINE_POLL_LOG_LOST;
	}
	else if (consumer->log_is_lost)
		poll.kind = SPINE_POLL_LOG_LOST;
	else if (spine_client_error(consumer->client)->class != SPINE_NO_ERROR)
		poll.kind = SPINE_POLL_BROKER_SILENT;
	else
	{
		/* apart, as the brokers of the one kind may answer, and those of the other not */
		poll.kind = check_suspects(consumer);
		if (poll.kind == SPINE_POLL_RECORDS)
			poll.kind = retry_stuck(consumer, &poll.stuck);
	}
	return poll;
}

bool
spine_consumer_take_more(SpineConsumer *consumer)
{
	spine_client_drain_wakeups(consumer->client);
	(void) take_messages(consumer);
	return !consumer->log_is_lost;
}

bool
spine_consumer_is_well(const SpineConsumer *consumer)
{
	for (int i = 0; i < consumer->npartitions; i++)
	{
		if (consumer->partitions[i].health != SPINE_HEALTH_WELL)
			return false;
	}
	return true;
}

void
spine_consumer_look_further(SpineConsumer *consumer, bool further)
{
	consumer->buffer.looks_further = further;
}

size_t
spine_consumer_take_count(SpineConsumer *consumer)
{
	size_t		n = consumer->nread;

	consumer->nread = 0;
	return n;
}

/* The end of a partition, as the library has last heard of it. */
static void
look_up_high_watermark(const SpineConsumer *consumer, SpinePartition *partition)
{
	int64_t		low;
	int64_t		high;

	if (consumer->client &&
		rd_kafka_get_watermark_offsets(consumer->client->rk, partition->topic, partition->partition,
									   &low, &high) == RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0)
		partition->high_watermark = high;
}

int64
spine_consumer_backlog(SpineConsumer *consumer)
{
	int64		backlog = 0;

	for (int i = 0; i < consumer->npartitions; i++)
	{
		SpinePartition *partition = &consumer->partitions[i];

		look_up_high_watermark(consumer, partition);
		if (partition->health == SPINE_HEALTH_WELL && !partition->is_suspect)
			backlog += Max(partition->high_watermark - partition->read_to, 0);
	}
	return backlog;
}

SpineProgressReport *
spine_consumer_report(SpineConsumer *consumer, int *n)
{
	SpineProgressReport *report = palloc(Max(consumer->npartitions, 1) * sizeof(SpineProgressReport));

	for (int i = 0; i < consumer->npartitions; i++)
	{
		SpinePartition *partition = &consumer->partitions[i];

		look_up_high_watermark(consumer, partition);
		report[i].topic = partition->topic;
		report[i].partition = partition->partition;
		report[i].next_offset = partition->next_offset;
		report[i].high_watermark = partition->high_watermark;
		report[i].is_well = partition->health == SPINE_HEALTH_WELL;
	}
	consumer->reached_end = false;
	*n = consumer->npartitions;
	return report;
}

bool
spine_consumer_reached_end(const SpineConsumer *consumer)
{
	return consumer->reached_end;
}

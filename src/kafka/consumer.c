/*
 * consumer.c
 *		Assignment, polling, and the ownership of the library's messages.
 *
 * Partitions are assigned by hand and always start from the position that the
 * database has; the broker's consumer group is never asked.
 */
#include "kafka/consumer.h"

#include "port/pg_crc32c.h"
#include "utils/memutils.h"

/*
 * A batch is full at this size as well, whatever its rows: it is in memory
 * several times over, as fields, keys and rows.  Only a single record may be larger.
 * What it takes for each of its records, the library's objects above all, is bounded
 * by spine.batch_rows.
 */
#define MAX_BATCH_BYTES		(16 * 1024 * 1024)

/*
 * How long the broker may take to note the positions in its consumer group: as
 * long as the library allows.  A request to a group's coordinator that has run
 * out makes librdkafka abort the process when the coordinator is back
 * (confluentinc/librdkafka#4605), and so must never run out: the worker closes
 * the client first, and does nothing before that may keep it from doing so.
 */
#define GROUP_COMMIT_TIMEOUT_MS	(3600 * 1000)

/* What the library says of a partition that cannot be read. */
#define STUCK_TEXT_LEN		256

/* What is taken at most to look further: so many records, if they are more than a batch. */
#define LOOK_FURTHER_ROWS	1000
#define LOOK_FURTHER_BYTES	(2 * MAX_BATCH_BYTES)

/* Messages taken from the library at first, until their size is known. */
#define FIRST_CHUNK			16

/* What lies between two records may be headers up to this size; more is looked at. */
#define MAX_HEADER_GUESS	(64 * 1024)

/* What the library allocates for each header, once they are looked at. */
#define HEADER_COST			80

/* Header number i of a record of ours. */
static bool
message_header(const SpineRecord *record, size_t i, SpineHeader *header)
{
	rd_kafka_headers_t *headers;

	return rd_kafka_message_headers(record->object, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR &&
		rd_kafka_header_get_all(headers, i, &header->name, &header->value,
								&header->value_len) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void
release_message(SpineRecord *record)
{
	rd_kafka_message_destroy(record->object);
	record->object = NULL;
}

static const SpineRecordSource message_source = {message_header, release_message};

static SpinePosition *
find_position(SpineConsumer *consumer, int32 partition)
{
	for (int i = 0; i < consumer->npositions; i++)
	{
		if (consumer->positions[i].partition == partition)
			return &consumer->positions[i];
	}
	return NULL;
}

static void
release_records(SpineConsumer *consumer, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		consumer->bytes -= consumer->records[i].size;
		consumer->value_bytes -= consumer->records[i].value_len;
		consumer->records[i].source->release(&consumer->records[i]);
	}
	consumer->nrecords -= n;
	memmove(consumer->records, consumer->records + n, consumer->nrecords * sizeof(SpineRecord));
}

/* Drops what was taken of a partition (-1: of all), and is not in the batch. */
static void
release_taken(SpineConsumer *consumer, int32 partition)
{
	ssize_t		nkept = consumer->next_taken;

	for (ssize_t i = consumer->next_taken; i < consumer->ntaken; i++)
	{
		if (partition == -1 || consumer->taken[i]->partition == partition)
			rd_kafka_message_destroy(consumer->taken[i]);
		else
			consumer->taken[nkept++] = consumer->taken[i];
	}
	consumer->ntaken = nkept;
}

/* Returns when librdkafka's own thread has done what it was asked before. */
static void
await_library(rd_kafka_t *rk)
{
	rd_kafka_topic_partition_list_t *list;

	if (rd_kafka_assignment(rk, &list) == RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_topic_partition_list_destroy(list);
}

/* Empties a partition's own queue.  False: there was something of another's in it. */
static bool
release_queue(rd_kafka_queue_t *queue, int32 partition)
{
	rd_kafka_message_t *message;
	bool		its_own = true;

	while (rd_kafka_consume_batch_queue(queue, 0, &message, 1) > 0)
	{
		its_own = its_own && message->partition == partition;
		rd_kafka_message_destroy(message);
	}
	rd_kafka_queue_destroy(queue);
	return its_own;
}

/*
 * Ends the assignment, and waits until its partitions have stopped: librdkafka
 * (2.0.2) aborts the process when one is to be stopped again before it has
 * ("Assertion `rktp->rktp_started' failed").
 *
 * Stopping one leaves a message in its own queue that keeps the partition alive.
 * If the topic is deleted the library forgets the partition, but not its thread,
 * and the client would never close.  So the queues are emptied here.
 */
static void
unassign(SpineConsumer *consumer)
{
	rd_kafka_t *rk = consumer->client->rk;

	if (consumer->nqueues == 0)
		return;

	(void) rd_kafka_assign(rk, NULL);
	await_library(rk);			/* they were told to stop, */
	await_library(rk);			/* and have said that they did */
	while (consumer->nqueues > 0)
	{
		consumer->nqueues--;
		(void) release_queue(consumer->queues[consumer->nqueues],
							 consumer->positions[consumer->nqueues].partition);
	}
}

/* All that must go before the client does. */
static void
release_consumer(void *owner)
{
	SpineConsumer *consumer = owner;

	release_records(consumer, consumer->nrecords);
	release_taken(consumer, -1);
	unassign(consumer);
	rd_kafka_queue_io_event_enable(consumer->admin_queue, -1, NULL, 0);
	rd_kafka_queue_destroy(consumer->admin_queue);
}

SpineConsumer *
spine_consumer_open(const SpineCluster *cluster, const char *topic, const char *group_id,
					const SpinePrefetch *prefetch, int batch_rows)
{
	/* below the caller's context until it is whole, so that an error frees it */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine consumer",
												  ALLOCSET_DEFAULT_SIZES);
	SpineConsumer *consumer = MemoryContextAllocZero(context, sizeof(SpineConsumer));
	SpineClient *client;

	consumer->context = context;
	consumer->topic = MemoryContextStrdup(context, topic);
	consumer->capacity = Max(batch_rows, LOOK_FURTHER_ROWS);
	consumer->records = MemoryContextAllocHuge(context, consumer->capacity * sizeof(SpineRecord));

	consumer->client = client = spine_client_create(SPINE_CONSUMER, cluster, group_id, prefetch);
	consumer->admin_queue = rd_kafka_queue_new(client->rk);
	spine_client_watch(client, consumer->admin_queue);
	client->before_release = release_consumer;
	client->owner = consumer;

	MemoryContextSetParent(context, TopMemoryContext);
	return consumer;
}

void
spine_consumer_close(SpineConsumer *consumer)
{
	if (consumer == NULL)
		return;
	spine_client_destroy(consumer->client);
	MemoryContextDelete(consumer->context);
}

/* palloc'ed in the consumer's context; array may be NULL. */
static void *
resize(SpineConsumer *consumer, void *array, Size size)
{
	size = Max(size, 1);
	return array ? repalloc(array, size) : MemoryContextAlloc(consumer->context, size);
}

/* A partition, and where it is read from. */
static void
add_to_list(rd_kafka_topic_partition_list_t *list, const SpineConsumer *consumer,
			const SpinePosition *position)
{
	rd_kafka_topic_partition_list_add(list, consumer->topic, position->partition)->offset =
		position->is_checked ? position->read_to : position->mark_offset;
}

void
spine_consumer_assign(SpineConsumer *consumer, const SpinePosition *positions, int n)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t err;

	release_records(consumer, consumer->nrecords);
	release_taken(consumer, -1);
	unassign(consumer);
	for (int i = 0; i < consumer->npositions; i++)
		if (consumer->positions[i].stuck_text)
			pfree(consumer->positions[i].stuck_text);
	consumer->npositions = 0;
	consumer->positions = resize(consumer, consumer->positions, n * sizeof(SpinePosition));
	consumer->queues = resize(consumer, consumer->queues, n * sizeof(rd_kafka_queue_t *));
	if (n > 0)
		memcpy(consumer->positions, positions, n * sizeof(SpinePosition));
	consumer->npositions = n;

	list = rd_kafka_topic_partition_list_new(Max(n, 1));
	for (int i = 0; i < n; i++)
		add_to_list(list, consumer, &positions[i]);
	err = rd_kafka_assign(consumer->client->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		elog(ERROR, "could not assign partitions: %s", rd_kafka_err2str(err));
	for (int i = 0; i < n; i++)
		consumer->queues[consumer->nqueues++] =
			rd_kafka_queue_get_partition(consumer->client->rk, consumer->topic,
										 positions[i].partition);
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

bool
spine_consumer_restart(SpineConsumer *consumer, SpinePosition *const *positions, int n)
{
	rd_kafka_t *rk = consumer->client->rk;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
	bool		done;

	for (int i = 0; i < n; i++)
		add_to_list(list, consumer, positions[i]);
	done = is_done(rd_kafka_incremental_unassign(rk, list));
	await_library(rk);			/* as in unassign */
	await_library(rk);
	for (int i = 0; i < n; i++)
	{
		rd_kafka_queue_t **queue = &consumer->queues[positions[i] - consumer->positions];

		release_taken(consumer, positions[i]->partition);
		done = release_queue(*queue, positions[i]->partition) && done;
		*queue = rd_kafka_queue_get_partition(rk, consumer->topic, positions[i]->partition);
		positions[i]->is_read = positions[i]->is_stuck = positions[i]->is_suspect = false;
		positions[i]->connection = 0;
	}
	done = done && is_done(rd_kafka_incremental_assign(rk, list));
	rd_kafka_topic_partition_list_destroy(list);
	return done;
}

/*
 * The library reports such an error once, and some (a bad checksum) it then
 * leaves behind: what follows in this partition must not move the position past
 * it.
 */
static void
set_stuck(SpineConsumer *consumer, SpinePosition *position, rd_kafka_resp_err_t error,
		  const char *text)
{
	position->is_stuck = true;
	position->stuck_error = error;
	if (position->stuck_text == NULL)	/* no error may leave the poll */
		position->stuck_text = MemoryContextAllocExtended(consumer->context, STUCK_TEXT_LEN,
														  MCXT_ALLOC_NO_OOM);
	if (position->stuck_text)
		strlcpy(position->stuck_text, text, STUCK_TEXT_LEN);
}

/*
 * Did a message come over the connection on which the position was checked?  A
 * broker that was away may be back with another log, a shorter one that has grown
 * beyond the position since; and another replica may lead the partition.
 */
static bool
is_on_checked_connection(SpineConsumer *consumer, SpinePosition *position,
						 const rd_kafka_message_t *message)
{
	uint64		connection = spine_client_connection(consumer->client, message);

	if (position->connection == 0 || (position->mark_offset < 0 && position->last_record == 0))
		position->connection = connection;	/* the first, or there is nothing to look at */
	position->is_suspect = position->is_suspect || position->connection != connection;
	return !position->is_suspect;
}

/* The end of a partition, or trouble with it. */
static void
note_event(SpineConsumer *consumer, const rd_kafka_message_t *message)
{
	SpinePosition *position = find_position(consumer, message->partition);

	switch (message->err)
	{
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:

			/*
			 * Where the log ends with what no consumer is shown (transaction
			 * markers, aborted records), the position moves past it.
			 */
			if (position == NULL || position->is_stuck)
				break;
			if (message->offset < position->read_to)
			{
				/* where it was asked to begin is the mark, which is not there */
				set_stuck(consumer, position, RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE, "");
				break;
			}
			if (position->is_checked && message->offset > position->read_to &&
				!is_on_checked_connection(consumer, position, message))
				break;
			position->read_to = Max(position->read_to, message->offset);
			position->is_read = true;
			consumer->reached_end = true;
			break;

		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
			consumer->topic_is_gone = true;
			break;

		default:
			if (position)
				set_stuck(consumer, position, message->err, rd_kafka_message_errstr(message));
			else
				spine_client_note_error(consumer->client, message->err,
										rd_kafka_message_errstr(message));
			break;
	}
}

/* -1: it has none. */
static int64
timestamp_of(const rd_kafka_message_t *message)
{
	rd_kafka_timestamp_type_t type;
	int64		timestamp_ms = rd_kafka_message_timestamp(message, &type);

	return type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : timestamp_ms;
}

/* Of what tells one record from another; the same on every architecture. */
static int64
checksum(const rd_kafka_message_t *message)
{
	char		head[64];
	pg_crc32c	crc;

	snprintf(head, sizeof(head), INT64_FORMAT " %zu ", timestamp_of(message), message->key_len);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, head, strlen(head));
	COMP_CRC32C(crc, message->key, message->key_len);
	COMP_CRC32C(crc, message->payload, message->len);
	FIN_CRC32C(crc);
	return crc;
}

/*
 * The first record since the assignment, or a restart: is it the one that was read
 * before?  Where it is gone (compaction), a later one comes, and nothing can be told.
 */
static void
check_mark(SpineConsumer *consumer, SpinePosition *position, const rd_kafka_message_t *message)
{
	position->is_checked = true;
	position->connection = spine_client_connection(consumer->client, message);
	if (message->offset == position->mark_offset && checksum(message) != position->mark_crc)
		set_stuck(consumer, position, RD_KAFKA_RESP_ERR__INCONSISTENT, "");
}

/*
 * The bytes of a record's headers, or a little more: parsing them, which is how the
 * library tells, costs too much for each record.  They lie behind its value, before
 * the record that follows in the same answer of the broker.  Once they are parsed, an
 * object of each stays in memory as well.
 */
static size_t
header_bytes(const rd_kafka_message_t *message, const rd_kafka_message_t *next)
{
	const char *end = message->payload ? (const char *) message->payload + message->len :
		message->key ? (const char *) message->key + message->key_len : NULL;
	const char *start = next == NULL ? NULL : next->key ? next->key : next->payload;
	rd_kafka_headers_t *headers;
	const char *name;
	const void *value;
	size_t		len;
	size_t		bytes = 0;

	if (end && start && (uintptr_t) start - (uintptr_t) end < MAX_HEADER_GUESS)
		return (uintptr_t) start - (uintptr_t) end;

	/* the last of an answer, or large ones */
	if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &len) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
			bytes += strlen(name) + len + HEADER_COST;
	}
	return bytes;
}

/* next: what the library gave after it, or NULL. */
static void
add_record(SpineConsumer *consumer, rd_kafka_message_t *message, const rd_kafka_message_t *next)
{
	SpinePosition *position = find_position(consumer, message->partition);
	SpineRecord *record;

	if (position && !position->is_checked)
		check_mark(consumer, position, message);

	/* left over from an assignment that is no more, to be checked, or seen already */
	if (position == NULL || position->is_stuck ||
		!is_on_checked_connection(consumer, position, message) ||
		message->offset < position->read_to)
	{
		rd_kafka_message_destroy(message);
		return;
	}

	record = &consumer->records[consumer->nrecords++];
	record->topic = consumer->topic;
	record->partition = message->partition;
	record->offset = message->offset;
	record->timestamp_ms = timestamp_of(message);
	record->key = message->key;
	record->key_len = message->key_len;
	record->value = message->payload;
	record->value_len = message->len;
	record->source = &message_source;
	record->object = message;

	position->read_to = message->offset + 1;
	position->last_record = consumer->nrecords;
	position->is_read = true;
	record->size = message->len + message->key_len + header_bytes(message, next) + sizeof(SpineRecord);
	consumer->bytes += record->size;
	consumer->value_bytes += message->len;
	consumer->uncounted++;
}

static size_t
max_bytes(const SpineConsumer *consumer)
{
	return consumer->looks_further ? LOOK_FURTHER_BYTES : MAX_BATCH_BYTES;
}

/* How many messages to take next, so that their bytes do not exceed the batch by much. */
static size_t
next_chunk(const SpineConsumer *consumer)
{
	size_t		fitting = FIRST_CHUNK;

	if (consumer->nrecords > 0)
		fitting = (max_bytes(consumer) - consumer->bytes) * consumer->nrecords / consumer->bytes + 1;
	return Min(fitting, SPINE_POLL_CHUNK);
}

/* The next message that the library has, NULL if none.  The caller takes it by next_taken++. */
static rd_kafka_message_t *
peek_message(SpineConsumer *consumer)
{
	if (consumer->next_taken == consumer->ntaken)
	{
		consumer->next_taken = 0;
		consumer->ntaken = rd_kafka_consume_batch_queue(consumer->client->queue, 0,
														consumer->taken, next_chunk(consumer));
		if (consumer->ntaken < 0)
			consumer->ntaken = 0;
	}
	return consumer->ntaken > 0 ? consumer->taken[consumer->next_taken] : NULL;
}

bool
spine_consumer_poll(SpineConsumer *consumer, int batch_rows)
{
	size_t		limit = Min((size_t) batch_rows, consumer->capacity);

	if (consumer->looks_further)
		limit = Max(limit, LOOK_FURTHER_ROWS);
	spine_client_drain_wakeups(consumer->client);

	while (consumer->nrecords < limit && consumer->bytes < max_bytes(consumer))
	{
		rd_kafka_message_t *message = peek_message(consumer);

		if (message == NULL)
			return false;

		/* a large record is not added to what is nearly full */
		if (consumer->nrecords > 0 && !consumer->looks_further &&
			consumer->bytes + message->len + message->key_len > MAX_BATCH_BYTES)
			return true;
		consumer->next_taken++;
		if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			add_record(consumer, message, consumer->next_taken < consumer->ntaken ?
					   consumer->taken[consumer->next_taken] : NULL);
		else
		{
			note_event(consumer, message);
			rd_kafka_message_destroy(message);
		}
	}
	return true;
}

bool
spine_consumer_has_batch(const SpineConsumer *consumer)
{
	for (int i = 0; i < consumer->npositions; i++)
	{
		if (consumer->positions[i].read_to > consumer->positions[i].next_offset)
			return true;
	}
	return false;
}

/*
 * Where a position stands after the first nrecords records, if more of its records
 * follow: before the next of them.
 */
static void
stop_after(const SpineConsumer *consumer, size_t nrecords, SpinePosition *position)
{
	const SpineRecord *records = consumer->records;
	size_t		i;

	for (i = nrecords; i > 0 && records[i - 1].partition != position->partition; i--)
		;
	position->last_record = i;
	if (i == 0)
		position->read_to = position->next_offset;	/* none of its records is among them */
	else
		position->read_to = records[i - 1].offset + 1;
}

void
spine_consumer_mark(const SpineConsumer *consumer, SpinePosition *position)
{
	if (position->last_record > 0)
	{
		const SpineRecord *record = &consumer->records[position->last_record - 1];

		position->mark_offset = record->offset;
		position->mark_crc = checksum(record->object);
	}
}

SpinePosition *
spine_consumer_moved_positions(SpineConsumer *consumer, size_t nrecords, int *n)
{
	SpinePosition *moved = palloc(Max(consumer->npositions, 1) * sizeof(SpinePosition));

	*n = 0;
	for (int i = 0; i < consumer->npositions; i++)
	{
		SpinePosition *position = &moved[*n];

		*position = consumer->positions[i];
		if (position->last_record > nrecords)
			stop_after(consumer, nrecords, position);
		spine_consumer_mark(consumer, position);
		if (position->read_to > position->next_offset)
			(*n)++;
	}
	return moved;
}

void
spine_consumer_finish_batch(SpineConsumer *consumer, size_t nrecords,
							const SpinePosition *moved, int nmoved)
{
	release_records(consumer, nrecords);
	for (int i = 0; i < nmoved; i++)
	{
		SpinePosition *position = find_position(consumer, moved[i].partition);

		position->next_offset = moved[i].read_to;
		position->mark_offset = moved[i].mark_offset;
		position->mark_crc = moved[i].mark_crc;
	}
	for (int i = 0; i < consumer->npositions; i++)
	{
		SpinePosition *position = &consumer->positions[i];

		position->last_record = position->last_record > nrecords ? position->last_record - nrecords : 0;
	}
}

void
spine_consumer_refresh_watermarks(SpineConsumer *consumer)
{
	for (int i = 0; i < consumer->npositions; i++)
	{
		SpinePosition *position = &consumer->positions[i];
		int64_t		low;
		int64_t		high;

		if (rd_kafka_get_watermark_offsets(consumer->client->rk, consumer->topic,
										   position->partition, &low, &high) == RD_KAFKA_RESP_ERR_NO_ERROR &&
			high >= 0)
			position->high_watermark = high;
	}
}

bool
spine_consumer_awaits_broker(SpineConsumer *consumer)
{
	rd_kafka_event_t *result;

	/* whether it went well does not matter: the next commit says more anyway */
	while ((result = rd_kafka_queue_poll(consumer->admin_queue, 0)) != NULL)
	{
		rd_kafka_event_destroy(result);
		consumer->group_commit_pending = false;
	}
	return consumer->group_commit_pending;
}

void
spine_consumer_commit_to_broker(SpineConsumer *consumer)
{
	rd_kafka_t *rk = consumer->client->rk;
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_AdminOptions_t *options;
	rd_kafka_AlterConsumerGroupOffsets_t *request;
	char		group[256];
	size_t		group_size = sizeof(group);
	char		errstr[256];

	Assert(!consumer->group_commit_pending);

	/* the group is ours, unless spine.kafka_options says otherwise */
	if (consumer->npositions == 0 ||
		rd_kafka_conf_get(rd_kafka_conf(rk), "group.id", group, &group_size) != RD_KAFKA_CONF_OK)
		return;

	list = rd_kafka_topic_partition_list_new(consumer->npositions);
	for (int i = 0; i < consumer->npositions; i++)
		rd_kafka_topic_partition_list_add(list, consumer->topic,
										  consumer->positions[i].partition)->offset =
			consumer->positions[i].next_offset;

	/*
	 * Not rd_kafka_commit: while one of those is under way, neither a new
	 * assignment nor the end of the client gets on, for up to a minute when
	 * the broker is gone.
	 */
	options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS);
	(void) rd_kafka_AdminOptions_set_request_timeout(options, GROUP_COMMIT_TIMEOUT_MS,
													 errstr, sizeof(errstr));
	request = rd_kafka_AlterConsumerGroupOffsets_new(group, list);
	rd_kafka_AlterConsumerGroupOffsets(rk, &request, 1, options, consumer->admin_queue);
	consumer->group_commit_pending = true;
	rd_kafka_AlterConsumerGroupOffsets_destroy(request);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_topic_partition_list_destroy(list);
}

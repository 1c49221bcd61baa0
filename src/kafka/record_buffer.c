/*
 * record_buffer.c
 *		The records of the batch that is being filled, and how much memory they take.
 *
 * A record's bytes are the library's: each record holds the message that it came in.
 */
#include "kafka/consumer_internal.h"

/*
 * A batch is full at this size as well, however few its rows are: its bytes are in
 * memory several times over, as fields, keys and rows.  Only a single record may be
 * larger.  spine.batch_rows bounds what a batch takes for each of its records, most of
 * which is the library's objects.
 */
#define MAX_BATCH_BYTES		(16 * 1024 * 1024)
#define LOOK_FURTHER_BYTES	(2 * MAX_BATCH_BYTES)

/* Messages taken from the library at first, until their size is known. */
#define FIRST_CHUNK			16

/* A gap between two records is taken for headers up to this size. */
#define MAX_HEADER_GUESS	(64 * 1024)

/* What the library allocates for each header, once the headers are parsed. */
#define HEADER_COST			80

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

int64
spine_message_time(const rd_kafka_message_t *message)
{
	rd_kafka_timestamp_type_t type;
	int64		time_ms = rd_kafka_message_timestamp(message, &type);

	return type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : time_ms;
}

static size_t
max_bytes(const SpineRecordBuffer *buffer)
{
	return buffer->looks_further ? LOOK_FURTHER_BYTES : MAX_BATCH_BYTES;
}

size_t
spine_record_buffer_limit(const SpineRecordBuffer *buffer, int max_records)
{
	size_t		limit = Min((size_t) max_records, buffer->capacity);

	return buffer->looks_further ? Max(limit, SPINE_LOOK_FURTHER_ROWS) : limit;
}

/* How many messages to take next, so that their bytes do not exceed the batch by much. */
static size_t
next_chunk(const SpineRecordBuffer *buffer)
{
	size_t		fitting = FIRST_CHUNK;

	if (buffer->nrecords > 0)
		fitting = (max_bytes(buffer) - buffer->bytes) * buffer->nrecords / buffer->bytes + 1;
	return Min(fitting, SPINE_POLL_CHUNK);
}

rd_kafka_message_t *
spine_record_buffer_take(SpineRecordBuffer *buffer, rd_kafka_queue_t *queue,
						 rd_kafka_message_t **next, bool *is_full)
{
	rd_kafka_message_t *message;

	*is_full = buffer->bytes >= max_bytes(buffer);
	if (*is_full)
		return NULL;
	if (buffer->next_taken == buffer->ntaken)
	{
		buffer->next_taken = 0;
		buffer->ntaken = rd_kafka_consume_batch_queue(queue, 0, buffer->taken, next_chunk(buffer));
		if (buffer->ntaken <= 0)
		{
			buffer->ntaken = 0;
			return NULL;
		}
	}
	message = buffer->taken[buffer->next_taken];

	/* a large record is not added to what is nearly full */
	*is_full = buffer->nrecords > 0 && !buffer->looks_further &&
		buffer->bytes + message->len + message->key_len > MAX_BATCH_BYTES;
	if (*is_full)
		return NULL;
	buffer->next_taken++;
	*next = buffer->next_taken < buffer->ntaken ? buffer->taken[buffer->next_taken] : NULL;
	return message;
}

/*
 * The bytes of a record's headers, or a little more.  The library tells them only by
 * parsing the headers, which costs too much for each record, and keeps an object of each
 * header in memory.  But headers lie behind a record's value, before the record that
 * follows in the same answer of the broker.
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

	/* the last of an answer, or one with large headers */
	if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &len) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
			bytes += strlen(name) + len + HEADER_COST;
	}
	return bytes;
}

void
spine_record_buffer_add(SpineRecordBuffer *buffer, const char *topic,
						rd_kafka_message_t *message, const rd_kafka_message_t *next)
{
	SpineRecord *record;

	Assert(buffer->nrecords < buffer->capacity);
	record = &buffer->records[buffer->nrecords++];
	record->topic = topic;
	record->partition = message->partition;
	record->offset = message->offset;
	record->timestamp_ms = spine_message_time(message);
	record->key = message->key;
	record->key_len = message->key_len;
	record->value = message->payload;
	record->value_len = message->len;
	record->size = message->len + message->key_len + header_bytes(message, next) + sizeof(SpineRecord);
	record->source = &message_source;
	record->object = message;

	buffer->bytes += record->size;
	buffer->value_bytes += record->value_len;
}

void
spine_record_buffer_release(SpineRecordBuffer *buffer, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		buffer->bytes -= buffer->records[i].size;
		buffer->value_bytes -= buffer->records[i].value_len;
		buffer->records[i].source->release(&buffer->records[i]);
	}
	buffer->nrecords -= n;
	memmove(buffer->records, buffer->records + n, buffer->nrecords * sizeof(SpineRecord));
}

bool
spine_message_is_of(const rd_kafka_message_t *message, const char *topic, int32 partition)
{
	return message->partition == partition && message->rkt &&
		strcmp(rd_kafka_topic_name(message->rkt), topic) == 0;
}

void
spine_record_buffer_drop_taken(SpineRecordBuffer *buffer, const char *topic, int32 partition)
{
	ssize_t		nkept = buffer->next_taken;

	for (ssize_t i = buffer->next_taken; i < buffer->ntaken; i++)
	{
		if (topic == NULL || spine_message_is_of(buffer->taken[i], topic, partition))
			rd_kafka_message_destroy(buffer->taken[i]);
		else
			buffer->taken[nkept++] = buffer->taken[i];
	}
	buffer->ntaken = nkept;
}

/*
 * reader.c
 *		Reads ranges of a topic with a consumer of its own.
 *
 * A partition may have fewer records than offsets (transactions, compaction).  The consumer
 * moves past such gaps as soon as another record or the end of the partition is seen, so a
 * range ends in any case.
 */
#include "kafka/reader.h"

#include "kafka/consumer.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Records that the consumer hands on at a time. */
#define BATCH_RECORDS		1000

#define BROKER_TIMEOUT_MS	5000

/* Without any news for so long, the broker is asked whether it is there. */
#define PATIENCE_MS			10000

/* How often the same reading may be started: a log may be lost once or twice. */
#define MAX_STARTS			3

/* The most bytes that are kept, copies of the records included. */
#define MAX_KEPT_BYTES		(256 * 1024 * 1024)

struct SpineReader
{
	SpineConsumer *consumer;	/* NULL: closed */
	const char *topic;
	bool		is_embedded;	/* the cluster is the embedded broker */
	int			npartitions;
};

/* A copy of the rest of a record: its headers, then all bytes. */
typedef struct RecordCopy
{
	size_t		nheaders;
	SpineHeader headers[FLEXIBLE_ARRAY_MEMBER];
} RecordCopy;

/* A record that is kept.  Within a partition, order_time never falls. */
typedef struct KeptRecord
{
	SpineRecord record;
	int64		order_time;		/* the latest timestamp of the partition so far */
} KeptRecord;

typedef struct ReadPartition
{
	SpineRange	range;			/* what is left of it */
	int64		order_time;
	size_t		nkept;
} ReadPartition;

typedef struct Reading
{
	SpineReader *reader;
	MemoryContext context;		/* of what is kept */
	ReadPartition *partitions;
	SpineReaderEnd end;
	size_t		max;
	size_t		nkept;
	size_t		capacity;
	KeptRecord *kept;
	size_t		bytes;
	int			nstarts;
} Reading;

/* --------------------------------------------------------------------------
 * Life
 * -------------------------------------------------------------------------- */

/* Memory context callback. */
static void
close_consumer(void *arg)
{
	SpineReader *reader = arg;

	spine_consumer_close(reader->consumer);
	reader->consumer = NULL;
}

pg_noreturn static void
raise_error(const SpineError *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg_internal("%s", error->message),
			 error->detail[0] ? errdetail_internal("%s", error->detail) : 0,
			 errhint("%s", error->hint[0] ? error->hint :
					 "Check the address of the cluster, and that the broker is up.")));
}

/* Looking at a topic must not create it, as asking the embedded broker by name does. */
static int
ask_for_partitions(SpineReader *reader)
{
	SpineClient *client = spine_consumer_client(reader->consumer);
	SpineTopic *topics;
	int			ntopics;
	int			count = 0;

	if (!reader->is_embedded)
		return spine_client_count_partitions(client, reader->topic, BROKER_TIMEOUT_MS);

	topics = spine_client_list_topics(client, &ntopics, BROKER_TIMEOUT_MS);
	if (topics == NULL)
		return -1;
	for (int i = 0; i < ntopics; i++)
	{
		if (strcmp(topics[i].name, reader->topic) == 0)
			count = topics[i].npartitions;
		pfree((char *) topics[i].name);
	}
	pfree(topics);
	return count;
}

static int
count_partitions(SpineReader *reader)
{
	int			count = ask_for_partitions(reader);
	SpineError	error;

	if (count < 0)
	{
		spine_consumer_explain_silence(reader->consumer, &error);
		raise_error(&error);
	}
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("topic \"%s\" does not exist", reader->topic)));
	return count;
}

SpineReader *
spine_reader_open(const SpineCluster *cluster, const char *topic, const char *group)
{
	SpineReader *reader = palloc0(sizeof(SpineReader));
	MemoryContextCallback *callback = palloc0(sizeof(*callback));

	callback->func = close_consumer;
	callback->arg = reader;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	reader->topic = pstrdup(topic);
	reader->is_embedded = cluster->embedded;
	reader->consumer = spine_consumer_create(cluster, topic, group, BATCH_RECORDS);
	spine_consumer_connect(reader->consumer);
	reader->npartitions = count_partitions(reader);
	return reader;
}

void
spine_reader_close(SpineReader *reader)
{
	close_consumer(reader);
}

int
spine_reader_count_partitions(const SpineReader *reader)
{
	return reader->npartitions;
}

const char *
spine_reader_cluster_id(const SpineReader *reader)
{
	return spine_consumer_cluster_id(reader->consumer);
}

int64 *
spine_reader_find_offsets(SpineReader *reader, int64 time_ms)
{
	SpineTopicPartition *partitions = palloc(reader->npartitions * sizeof(SpineTopicPartition));
	int64	   *offsets = palloc(reader->npartitions * sizeof(int64));
	SpineError	error;

	for (int i = 0; i < reader->npartitions; i++)
		partitions[i] = (SpineTopicPartition) {reader->topic, i};
	if (!spine_consumer_find_offsets(reader->consumer, reader->npartitions, partitions, time_ms,
									 offsets, &error))
		raise_error(&error);
	pfree(partitions);
	return offsets;
}

/* --------------------------------------------------------------------------
 * Copies of records
 * -------------------------------------------------------------------------- */

static bool
copied_header(const SpineRecord *record, size_t i, SpineHeader *header)
{
	const RecordCopy *copy = record->object;

	if (i >= copy->nheaders)
		return false;
	*header = copy->headers[i];
	return true;
}

static void
release_copy(SpineRecord *record)
{
	pfree(record->object);
	record->object = NULL;
}

static const SpineRecordSource copy_source = {copied_header, release_copy};

/* Appends bytes; NULL stays NULL. */
static const void *
copy_bytes(char **at, const void *bytes, size_t len)
{
	char	   *copy = *at;

	if (bytes == NULL)
		return NULL;
	memcpy(copy, bytes, len);
	*at += len;
	return copy;
}

static SpineRecord
copy_record(const SpineRecord *record, MemoryContext context)
{
	SpineRecord result = *record;
	size_t		size = offsetof(RecordCopy, headers) + record->key_len + record->value_len;
	size_t		nheaders = 0;
	SpineHeader header;
	RecordCopy *copy;
	char	   *at;

	for (; record->source->header(record, nheaders, &header); nheaders++)
		size += sizeof(SpineHeader) + strlen(header.name) + 1 + header.value_len;
	copy = MemoryContextAllocHuge(context, size);
	copy->nheaders = nheaders;
	at = (char *) &copy->headers[nheaders];
	for (size_t i = 0; i < nheaders; i++)
	{
		(void) record->source->header(record, i, &header);
		copy->headers[i].name = copy_bytes(&at, header.name, strlen(header.name) + 1);
		copy->headers[i].value = copy_bytes(&at, header.value, header.value_len);
		copy->headers[i].value_len = header.value_len;
	}
	result.key = copy_bytes(&at, record->key, record->key_len);
	result.value = copy_bytes(&at, record->value, record->value_len);
	result.size = size + sizeof(KeptRecord);
	result.source = &copy_source;
	result.object = copy;
	return result;
}

/* --------------------------------------------------------------------------
 * Keeping the oldest or the newest
 * -------------------------------------------------------------------------- */

static int
compare_kept(const void *a, const void *b)
{
	const KeptRecord *x = a;
	const KeptRecord *y = b;

	if (x->order_time != y->order_time)
		return x->order_time < y->order_time ? -1 : 1;
	if (x->record.partition != y->record.partition)
		return x->record.partition < y->record.partition ? -1 : 1;
	return x->record.offset < y->record.offset ? -1 : 1;
}

/* Sorts what is kept, and drops what is too many. */
static void
trim(Reading *reading)
{
	size_t		excess = reading->nkept > reading->max ? reading->nkept - reading->max : 0;
	size_t		first = reading->end == SPINE_READER_OLDEST ? reading->max : 0;

	qsort(reading->kept, reading->nkept, sizeof(KeptRecord), compare_kept);
	if (excess == 0)
		return;
	for (size_t i = first; i < first + excess; i++)
	{
		reading->bytes -= reading->kept[i].record.size;
		release_copy(&reading->kept[i].record);
	}
	reading->nkept = reading->max;
	if (first == 0)
		memmove(reading->kept, reading->kept + excess, reading->max * sizeof(KeptRecord));
}

/* Of a partition, only so many of the oldest can be among the result. */
static bool
is_complete(const Reading *reading, const ReadPartition *partition)
{
	return partition->range.from >= partition->range.to ||
		(reading->end == SPINE_READER_OLDEST && partition->nkept >= reading->max);
}

static void
keep(Reading *reading, const SpineRecord *record)
{
	ReadPartition *partition = &reading->partitions[record->partition];
	KeptRecord *kept;

	if (record->offset >= partition->range.to || is_complete(reading, partition))
		return;
	if (reading->nkept == reading->capacity || reading->bytes > MAX_KEPT_BYTES)
		trim(reading);
	if (reading->bytes > MAX_KEPT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the records are larger than %d MB in all", MAX_KEPT_BYTES >> 20),
				 errhint("Ask for fewer records.")));

	kept = &reading->kept[reading->nkept++];
	kept->record = copy_record(record, reading->context);
	kept->record.topic = reading->reader->topic;
	partition->order_time = Max(partition->order_time, record->timestamp_ms);
	kept->order_time = partition->order_time;
	partition->nkept++;
	reading->bytes += kept->record.size;
}

/* --------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------- */

/* Reads what is left of the ranges. */
static void
start(Reading *reading)
{
	SpineReader *reader = reading->reader;
	SpinePosition *positions = palloc(reader->npartitions * sizeof(SpinePosition));
	SpineError	error;
	int			n = 0;

	if (++reading->nstarts > MAX_STARTS)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("topic \"%s\" has become another log while it was read", reader->topic)));
	for (int i = 0; i < reader->npartitions; i++)
	{
		if (!is_complete(reading, &reading->partitions[i]))
			positions[n++] = (SpinePosition) {
				.topic = reader->topic,
				.partition = i,
				.next_offset = reading->partitions[i].range.from,
				.mark_offset = -1
			};
	}
	do
	{
		if (!spine_consumer_is_connected(reader->consumer))
			spine_consumer_connect(reader->consumer);
		if (spine_consumer_assign(reader->consumer, positions, n, &error))
		{
			pfree(positions);
			return;
		}
	} while (!spine_consumer_is_connected(reader->consumer));
	raise_error(&error);
}

static void
take_batch(Reading *reading)
{
	SpineConsumer *consumer = reading->reader->consumer;
	size_t		nrecords;
	const SpineRecord *records = spine_consumer_records(consumer, &nrecords);
	int			nmoves;
	SpineMove  *moves = spine_consumer_moves(consumer, nrecords, false, &nmoves);

	for (size_t i = 0; i < nrecords; i++)
		keep(reading, &records[i]);
	for (int i = 0; i < nmoves; i++)
		reading->partitions[moves[i].partition].range.from = moves[i].to;
	spine_consumer_finish_batch(consumer, nrecords, moves, nmoves);
	pfree(moves);
}

pg_noreturn static void
report_stuck(const Reading *reading, const SpineStuck *stuck)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("partition %d of topic \"%s\" cannot be read at offset " INT64_FORMAT "%s%s",
					stuck->partition, reading->reader->topic, stuck->offset,
					stuck->text[0] ? ": " : "", stuck->text)));
}

/* Returns whether anything was read, or the reading was started again. */
static bool
poll_once(Reading *reading)
{
	SpineConsumer *consumer = reading->reader->consumer;
	SpinePoll	poll = spine_consumer_poll(consumer, BATCH_RECORDS);

	switch (poll.kind)
	{
		case SPINE_POLL_PARTITION_STUCK:
			report_stuck(reading, &poll.stuck);
		case SPINE_POLL_LOG_LOST:
			if (!spine_consumer_is_connected(consumer))
				spine_consumer_connect(consumer);
			(void) count_partitions(reading->reader);
			start(reading);
			return true;
		case SPINE_POLL_RECORDS:
		case SPINE_POLL_BROKER_SILENT:
			break;
	}
	if (!spine_consumer_has_batch(consumer))
		return false;
	take_batch(reading);
	return true;
}

/* Nothing has come for a while: a broker that is there must say so. */
static void
look_for_broker(Reading *reading)
{
	SpineError	error;

	(void) count_partitions(reading->reader);
	spine_error_set(&error, SPINE_TRANSIENT, "the broker has sent nothing of topic \"%s\" for %d seconds",
					reading->reader->topic, PATIENCE_MS / 1000);
	raise_error(&error);
}

static bool
all_complete(const Reading *reading)
{
	for (int i = 0; i < reading->reader->npartitions; i++)
	{
		if (!is_complete(reading, &reading->partitions[i]))
			return false;
	}
	return true;
}

static void
read_all(Reading *reading)
{
	TimestampTz news_at = GetCurrentTimestamp();

	if (all_complete(reading))
		return;
	start(reading);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (poll_once(reading))
		{
			news_at = GetCurrentTimestamp();
			if (all_complete(reading))
				return;
		}
		else if (TimestampDifferenceExceeds(news_at, GetCurrentTimestamp(), PATIENCE_MS))
			look_for_broker(reading);
		else
			spine_consumer_wait(reading->reader->consumer, 1000);
	}
}

SpineRecord *
spine_reader_read(SpineReader *reader, const SpineRange *ranges, size_t max, SpineReaderEnd end, size_t *n)
{
	Reading		reading = {.reader = reader, .context = CurrentMemoryContext, .end = end, .max = max};
	SpineRecord *records;

	reading.capacity = max + BATCH_RECORDS;
	reading.kept = MemoryContextAllocHuge(CurrentMemoryContext, reading.capacity * sizeof(KeptRecord));
	reading.partitions = palloc0(reader->npartitions * sizeof(ReadPartition));
	for (int i = 0; i < reader->npartitions; i++)
	{
		reading.partitions[i].range = ranges[i];
		reading.partitions[i].order_time = PG_INT64_MIN;
	}
	read_all(&reading);
	trim(&reading);

	*n = reading.nkept;
	records = MemoryContextAllocHuge(CurrentMemoryContext, Max(*n, 1) * sizeof(SpineRecord));
	for (size_t i = 0; i < *n; i++)
		records[i] = reading.kept[i].record;
	pfree(reading.kept);
	pfree(reading.partitions);
	return records;
}

/*
 * partition.c
 *		A partition as it is read: is it still the log that was read before, and can it
 *		be read on?
 */
#include "kafka/consumer_internal.h"

#include "port/pg_crc32c.h"

/*
 * The library reports such trouble once, and some (a bad checksum) it then leaves
 * behind.  What follows in this partition must not move the position past it.
 */
void
spine_partition_set_stuck(SpinePartition *partition, SpineStuckReason reason, const char *text,
						  MemoryContext context)
{
	partition->health = SPINE_HEALTH_STUCK;
	partition->reason = reason;
	if (partition->text)
		partition->text[0] = '\0';
	if (text == NULL)
		return;
	if (partition->text == NULL)	/* no error may leave the poll */
		partition->text = MemoryContextAllocExtended(context, SPINE_STUCK_TEXT_LEN, MCXT_ALLOC_NO_OOM);
	if (partition->text)
		strlcpy(partition->text, text, SPINE_STUCK_TEXT_LEN);
}

void
spine_partition_set_read(SpinePartition *partition, int64 read_to)
{
	partition->read_to = read_to;
	partition->is_read = true;
	partition->health = SPINE_HEALTH_WELL;
	partition->tried_at = 0;
	partition->is_reported = false;
}

/* Of all that tells one record from another; the same on every architecture. */
static int64
checksum(int64 time_ms, const void *key, size_t key_len, const void *value, size_t value_len)
{
	char		head[64];
	pg_crc32c	crc;

	snprintf(head, sizeof(head), INT64_FORMAT " %zu ", time_ms, key_len);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, head, strlen(head));
	COMP_CRC32C(crc, key, key_len);
	COMP_CRC32C(crc, value, value_len);
	FIN_CRC32C(crc);
	return crc;
}

void
spine_partition_set_mark(SpinePartition *partition, const SpineRecord *record)
{
	partition->mark_offset = record->offset;
	partition->mark_crc = checksum(record->timestamp_ms, record->key, record->key_len,
								   record->value, record->value_len);
}

/*
 * The first record since the partition was started: is it the one that was read before?
 * Where that record is gone (compaction), a later one comes, and nothing can be told.
 */
static void
check_mark(SpinePartition *partition, const SpineClient *client, const rd_kafka_message_t *message,
		   MemoryContext context)
{
	partition->is_checked = true;
	partition->connection = spine_client_connection(client, message);
	if (message->offset == partition->mark_offset &&
		checksum(spine_message_time(message), message->key, message->key_len,
				 message->payload, message->len) != partition->mark_crc)
		spine_partition_set_stuck(partition, SPINE_STUCK_OTHER_LOG, NULL, context);
}

/*
 * Did a message come over the connection on which the partition was checked?  A broker
 * that was away may be back with another log, which was shorter and has grown beyond the
 * position since; and another replica may lead the partition.
 */
static bool
is_on_checked_connection(SpinePartition *partition, const SpineClient *client,
						 const rd_kafka_message_t *message)
{
	uint64		connection = spine_client_connection(client, message);

	if (partition->connection == 0 || (partition->mark_offset < 0 && partition->last_record == 0))
		partition->connection = connection; /* the first, or there is nothing to compare */
	if (partition->connection != connection)
		partition->is_suspect = true;
	return !partition->is_suspect;
}

bool
spine_partition_accepts(SpinePartition *partition, const SpineClient *client,
						const rd_kafka_message_t *message, MemoryContext context)
{
	if (!partition->is_checked)
		check_mark(partition, client, message, context);
	return partition->health != SPINE_HEALTH_STUCK &&
		is_on_checked_connection(partition, client, message) &&
		message->offset >= partition->read_to;	/* else it was seen already */
}

bool
spine_partition_accepts_end(SpinePartition *partition, const SpineClient *client,
							const rd_kafka_message_t *end, MemoryContext context)
{
	if (partition->health == SPINE_HEALTH_STUCK)
		return false;
	if (end->offset < partition->read_to)
	{
		/* it was asked to begin at the mark, which is not there */
		spine_partition_set_stuck(partition, SPINE_STUCK_NO_OFFSET, NULL, context);
		return false;
	}
	return !partition->is_checked || end->offset == partition->read_to ||
		is_on_checked_connection(partition, client, end);
}

/*
 * consumer_batch.c
 *		The batch that a consumer hands out, and how it moves the positions.
 */
#include "kafka/consumer_internal.h"

bool
spine_consumer_has_batch(const SpineConsumer *consumer)
{
	Assert(consumer->is_assigned);
	for (int i = 0; i < consumer->npartitions; i++)
	{
		if (consumer->partitions[i].read_to > consumer->partitions[i].next_offset)
			return true;
	}
	return false;
}

const SpineRecord *
spine_consumer_records(const SpineConsumer *consumer, size_t *n)
{
	*n = consumer->buffer.nrecords;
	return consumer->buffer.records;
}

/* The last of a partition's records among the first n of the batch; NULL: there is none. */
static const SpineRecord *
last_record_of(const SpineConsumer *consumer, const SpinePartition *partition, size_t n)
{
	const SpineRecord *records = consumer->buffer.records;
	size_t		i = Min(n, partition->last_record);

	while (i > 0 && (records[i - 1].partition != partition->partition ||
					 records[i - 1].topic != partition->topic))
		i--;
	return i > 0 ? &records[i - 1] : NULL;
}

SpineMove *
spine_consumer_moves(const SpineConsumer *consumer, size_t nrecords, bool with_all, int *n)
{
	SpineMove  *moves = palloc0(Max(consumer->npartitions, 1) * sizeof(SpineMove));

	Assert(consumer->is_assigned);	/* or read_to is that of a batch that was dropped */
	*n = 0;
	for (int i = 0; i < consumer->npartitions; i++)
	{
		SpinePartition partition = consumer->partitions[i];
		const SpineRecord *last = last_record_of(consumer, &partition, nrecords);

		if (partition.last_record > nrecords)	/* more of its records follow */
			partition.read_to = last ? last->offset + 1 : partition.next_offset;
		if (partition.read_to <= partition.next_offset && !with_all)
			continue;
		if (last)
			spine_partition_set_mark(&partition, last);
		Assert(partition.mark_offset < partition.read_to);
		moves[(*n)++] = (SpineMove) {
			.topic = partition.topic,
			.partition = partition.partition,
			.from = partition.next_offset,
			.to = partition.read_to,
			.mark_offset = partition.mark_offset,
			.mark_crc = partition.mark_crc
		};
	}
	return moves;
}

void
spine_consumer_finish_batch(SpineConsumer *consumer, size_t nrecords, const SpineMove *moves, int nmoves)
{
	spine_record_buffer_release(&consumer->buffer, nrecords);
	for (int i = 0; i < nmoves; i++)
	{
		SpinePartition *partition = spine_consumer_find_partition(consumer, moves[i].topic,
																  moves[i].partition);

		partition->next_offset = moves[i].to;
		partition->mark_offset = moves[i].mark_offset;
		partition->mark_crc = moves[i].mark_crc;
	}
	for (int i = 0; i < consumer->npartitions; i++)
	{
		SpinePartition *partition = &consumer->partitions[i];

		partition->last_record = partition->last_record > nrecords ? partition->last_record - nrecords : 0;
	}
	consumer->group_commit.is_due = true;
}

/*
 * backpressure.c
 *		What was acknowledged but not yet applied, plus what is in flight, has
 *		to fit into a partition of the embedded broker.
 *
 * The ends of the logs come from the producers' delivery reports, the applied
 * positions from the workers: both are in shared memory, so that all sessions
 * see the same.  A partition that no pipeline reads counts as not applied.
 */
#include "backpressure.h"

#include "kafka.h"
#include "shared.h"

/* librdkafka's mock cluster keeps 5 MB a partition, as sent. */
#define PARTITION_ROOM_BYTES	(3 * 1024 * 1024)

/* The position that every pipeline has reached in a partition. */
static int64
applied_offset(const SpineLogEnd *end)
{
	HASH_SEQ_STATUS scan;
	SpineProgress *progress;
	int64		applied = -1;

	hash_seq_init(&scan, spine_progress);
	while ((progress = hash_seq_search(&scan)) != NULL)
	{
		if (progress->key.partition == end->key.partition &&
			strcmp(progress->topic, end->key.topic) == 0 &&
			strcmp(progress->cluster_id, spine_shared->broker.cluster_id) == 0 &&
			(applied < 0 || progress->next_offset < applied))
			applied = progress->next_offset;
	}
	return Max(applied, 0);
}

/* The fullest partition. */
static int64
unapplied_bytes(void)
{
	HASH_SEQ_STATUS scan;
	SpineLogEnd *end;
	int64		most = 0;

	hash_seq_init(&scan, spine_log_ends);
	while ((end = hash_seq_search(&scan)) != NULL)
		most = Max(most, (end->end_offset - applied_offset(end)) * end->bytes_per_record);
	return most;
}

bool
spine_backpressure_reserve(int64 bytes)
{
	SpineEmbeddedBroker *broker = &spine_shared->broker;
	int64		used;
	bool		fits;

	if (!spine_broker_is_embedded())
		return true;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	used = unapplied_bytes() + broker->in_flight_bytes;

	/* what is too large by itself goes when it is alone */
	fits = used == 0 || used + bytes <= PARTITION_ROOM_BYTES;
	if (fits)
		broker->in_flight_bytes += bytes;
	LWLockRelease(spine_shared->lock);
	return fits;
}

void
spine_backpressure_release(int64 bytes)
{
	if (!spine_broker_is_embedded())
		return;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->broker.in_flight_bytes = Max(spine_shared->broker.in_flight_bytes - bytes, 0);
	LWLockRelease(spine_shared->lock);
}

void
spine_backpressure_acknowledged(const char *topic, int32 partition, int64 offset, int64 bytes)
{
	SpineLogEndKey key;
	SpineLogEnd *end;
	bool		found;

	if (!spine_broker_is_embedded())
		return;

	memset(&key, 0, sizeof(key));
	strlcpy(key.topic, topic, sizeof(key.topic));
	key.partition = partition;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	end = hash_search(spine_log_ends, &key, HASH_ENTER_NULL, &found);
	if (end)
	{
		end->end_offset = found ? Max(end->end_offset, offset + 1) : offset + 1;
		end->bytes_per_record = bytes;
	}
	LWLockRelease(spine_shared->lock);
}

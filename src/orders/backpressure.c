/*
 * backpressure.c
 *		What was acknowledged but not yet applied, plus what is in flight, has
 *		to fit into a partition of the embedded broker.
 *
 * The ends of the logs come from the producers' delivery reports, and from the
 * broker before a producer sends the first to a topic that shared memory does not
 * know: after a crash restart, the log is older than that.  The applied positions
 * come from the workers.  All is in shared memory, so that all sessions see the
 * same.  A partition that no pipeline reads counts as not applied.
 */
#include "orders/backpressure.h"

#include "kafka/client.h"
#include "process/settings.h"
#include "process/shared.h"

/* librdkafka's mock cluster keeps 5 MB a partition, as sent. */
#define PARTITION_ROOM_BYTES	(3 * 1024 * 1024)

/* What a record may be taken to have that others have sent; ours have less. */
#define FOREIGN_RECORD_BYTES	1024

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

	if (spine_brokers_setting[0] != '\0')
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
	if (spine_brokers_setting[0] != '\0')
		return;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->broker.in_flight_bytes = Max(spine_shared->broker.in_flight_bytes - bytes, 0);
	LWLockRelease(spine_shared->lock);
}

static SpineLogEndKey
log_end_key(const char *topic, int32 partition)
{
	SpineLogEndKey key;

	memset(&key, 0, sizeof(key));
	strlcpy(key.topic, topic, sizeof(key.topic));
	key.partition = partition;
	return key;
}

/*
 * The log of a partition ends there or later.  bytes 0: of records we do not know.
 * What a client has heard of a broker that has ended since means nothing.
 */
static void
note_log_end(const SpineClient *client, const char *topic, int32 partition,
			 int64 end_offset, int64 bytes)
{
	SpineLogEndKey key = log_end_key(topic, partition);
	SpineLogEnd *end = NULL;
	bool		found;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	if (strcmp(spine_client_identity(client), spine_shared->broker.cluster_id) == 0)
		end = hash_search(spine_log_ends, &key, HASH_ENTER_NULL, &found);
	if (end)
	{
		end->end_offset = found ? Max(end->end_offset, end_offset) : end_offset;
		if (bytes > 0 || !found)
			end->bytes_per_record = bytes > 0 ? bytes : FOREIGN_RECORD_BYTES;
	}
	LWLockRelease(spine_shared->lock);
}

void
spine_backpressure_acknowledged(const SpineClient *client, const char *topic, int32 partition,
								int64 offset, int64 bytes)
{
	if (spine_client_is_embedded(client))
		note_log_end(client, topic, partition, offset + 1, bytes);
}

bool
spine_backpressure_learn(SpineClient *client, const char *topic, int timeout_ms)
{
	SpineLogEndKey key = log_end_key(topic, 0);
	int32	   *partitions;
	int64	   *ends;
	int			n;
	bool		is_known;

	if (!spine_client_is_embedded(client))
		return true;
	LWLockAcquire(spine_shared->lock, LW_SHARED);
	is_known = strcmp(spine_client_identity(client), spine_shared->broker.cluster_id) == 0 &&
		hash_search(spine_log_ends, &key, HASH_FIND, NULL) != NULL;
	LWLockRelease(spine_shared->lock);
	if (is_known)
		return true;

	n = spine_client_count_partitions(client, topic, timeout_ms);
	if (n <= 0)
		return false;
	partitions = palloc(n * sizeof(int32));
	ends = palloc(n * sizeof(int64));
	for (int i = 0; i < n; i++)
		partitions[i] = i;
	if (!spine_client_find_offsets(client, topic, n, partitions, SPINE_LOG_END, ends, timeout_ms))
		return false;

	/* that of partition 0 last: it says that all are known */
	for (int i = n - 1; i >= 0; i--)
		note_log_end(client, topic, i, ends[i], 0);
	pfree(partitions);
	pfree(ends);
	return true;
}

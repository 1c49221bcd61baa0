/*
 * backpressure.c
 *		What was acknowledged but not yet applied, plus what is in flight, has
 *		to fit into a partition of the embedded broker.
 *
 * Producers learn the ends of the logs from their delivery reports, and from the
 * broker before one of them sends the first record to a topic that shared memory does
 * not know: after a crash restart, the log is older than the shared memory.  The applied
 * positions come from the workers.  All of this is in shared memory, so that all sessions
 * see the same.  A partition that no pipeline reads counts as not applied.
 */
#include "orders/backpressure.h"

#include "process/shared.h"
#include "storage/ipc.h"

/* librdkafka's mock cluster keeps 5 MB a partition, as sent. */
#define PARTITION_ROOM_BYTES	(3 * 1024 * 1024)

/* The assumed size of records that others have sent; ours are smaller. */
#define FOREIGN_RECORD_BYTES	1024

/* A process reserves room for many records at a time. */
#define RESERVE_BYTES			(64 * 1024)

/* The end of a partition, as producers learned it. */
typedef struct LogEndKey
{
	char		topic[SPINE_MAX_TOPIC_LEN];
	int32		partition;
} LogEndKey;

typedef struct LogEnd
{
	LogEndKey	key;
	int64		end_offset;		/* one past the last acknowledged record */
	int64		bytes_per_record;	/* of the latest ones */
} LogEnd;

/* Written by all producers. */
typedef struct Backpressure
{
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* whose ends are in log_ends */
	int64		in_flight_bytes;	/* that the processes have reserved */
} Backpressure;

static Backpressure *shared = NULL;
static HTAB *log_ends = NULL;

/* What this process has reserved, and how much of that is not sent yet. */
static int64 reserved_bytes = 0;
static int64 unused_bytes = 0;

void
spine_backpressure_init(void)
{
	spine_shared_add_struct((void **) &shared, "spine backpressure", sizeof(Backpressure));
	spine_shared_add_table(&log_ends, "spine log ends", SPINE_MAX_PARTITIONS,
						   sizeof(LogEndKey), sizeof(LogEnd), SPINE_KEY_OTHER);
}

/* Forgets the ends of an embedded broker that has ended.  The caller holds the lock. */
static void
forget_other_log(void)
{
	HASH_SEQ_STATUS scan;
	LogEnd	   *end;

	if (strcmp(shared->cluster_id, spine_shared->broker.cluster_id) == 0)
		return;
	hash_seq_init(&scan, log_ends);
	while ((end = hash_seq_search(&scan)) != NULL)
		hash_search(log_ends, &end->key, HASH_REMOVE, NULL);
	strlcpy(shared->cluster_id, spine_shared->broker.cluster_id, sizeof(shared->cluster_id));
}

/* The position that every pipeline has reached in a partition. */
static int64
applied_offset(const LogEnd *end)
{
	HASH_SEQ_STATUS scan;
	SpineProgress *progress;
	int64		applied = -1;

	hash_seq_init(&scan, spine_progress);
	while ((progress = hash_seq_search(&scan)) != NULL)
	{
		if (progress->key.partition == end->key.partition &&
			strcmp(progress->key.topic, end->key.topic) == 0 &&
			strcmp(progress->cluster_id, shared->cluster_id) == 0 &&
			(applied < 0 || progress->next_offset < applied))
			applied = progress->next_offset;
	}
	return Max(applied, 0);
}

/* Of the fullest partition. */
static int64
unapplied_bytes(void)
{
	HASH_SEQ_STATUS scan;
	LogEnd	   *end;
	int64		most = 0;

	hash_seq_init(&scan, log_ends);
	while ((end = hash_seq_search(&scan)) != NULL)
		most = Max(most, (end->end_offset - applied_offset(end)) * end->bytes_per_record);
	return most;
}

static void
release_at_exit(int code, Datum arg)
{
	spine_backpressure_release_all();
}

static bool
reserve_more(void)
{
	static bool is_registered = false;
	bool		fits;

	if (!is_registered)
		before_shmem_exit(release_at_exit, 0);
	is_registered = true;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	forget_other_log();
	fits = unapplied_bytes() + shared->in_flight_bytes + RESERVE_BYTES <= PARTITION_ROOM_BYTES;
	if (fits)
	{
		shared->in_flight_bytes += RESERVE_BYTES;
		reserved_bytes += RESERVE_BYTES;
		unused_bytes += RESERVE_BYTES;
	}
	LWLockRelease(spine_shared->lock);
	return fits;
}

bool
spine_backpressure_reserve(const SpineClient *client, int64 bytes)
{
	Assert(bytes <= RESERVE_BYTES);
	if (!spine_client_is_embedded(client))
		return true;
	if (unused_bytes < bytes && !reserve_more())
		return false;
	unused_bytes -= bytes;
	return true;
}

static void
release(int64 bytes)
{
	reserved_bytes -= bytes;
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	shared->in_flight_bytes -= bytes;
	LWLockRelease(spine_shared->lock);
}

void
spine_backpressure_release(const SpineClient *client, int64 bytes)
{
	if (spine_client_is_embedded(client))
		release(bytes);
}

void
spine_backpressure_release_all(void)
{
	unused_bytes = 0;
	if (reserved_bytes != 0)
		release(reserved_bytes);
}

static LogEndKey
log_end_key(const char *topic, int32 partition)
{
	LogEndKey	key;

	memset(&key, 0, sizeof(key));
	strlcpy(key.topic, topic, sizeof(key.topic));
	key.partition = partition;
	return key;
}

/*
 * The log of a partition ends there or later.  bytes 0: the size of its records is not
 * known.  What a client has heard of a broker that has ended since means nothing.
 */
static void
note_log_end(const SpineClient *client, const char *topic, int32 partition,
			 int64 end_offset, int64 bytes)
{
	LogEndKey	key = log_end_key(topic, partition);
	LogEnd	   *end = NULL;
	bool		found;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	forget_other_log();
	if (strcmp(spine_client_identity(client), shared->cluster_id) == 0)
		end = hash_search(log_ends, &key, HASH_ENTER_NULL, &found);
	if (end)
	{
		end->end_offset = found ? Max(end->end_offset, end_offset) : end_offset;
		if (bytes > 0 || !found)
			end->bytes_per_record = bytes > 0 ? bytes : FOREIGN_RECORD_BYTES;
	}
	LWLockRelease(spine_shared->lock);
}

void
spine_backpressure_acknowledge(const SpineClient *client, const char *topic, int32 partition,
							   int64 offset, int64 bytes)
{
	if (spine_client_is_embedded(client))
		note_log_end(client, topic, partition, offset + 1, bytes);
}

static bool
is_known(const SpineClient *client, const char *topic)
{
	LogEndKey	key = log_end_key(topic, 0);
	bool		known;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	forget_other_log();
	known = strcmp(spine_client_identity(client), shared->cluster_id) == 0 &&
		hash_search(log_ends, &key, HASH_FIND, NULL) != NULL;
	LWLockRelease(spine_shared->lock);
	return known;
}

bool
spine_backpressure_learn(SpineClient *client, const char *topic, int timeout_ms)
{
	int32	   *partitions;
	int64	   *ends;
	int			n;

	if (!spine_client_is_embedded(client) || is_known(client, topic))
		return true;

	n = spine_client_count_partitions(client, topic, timeout_ms);
	if (n <= 0)
		return n == 0;			/* nothing is in a topic that does not exist */
	partitions = palloc(n * sizeof(int32));
	ends = palloc(n * sizeof(int64));
	for (int i = 0; i < n; i++)
		partitions[i] = i;
	if (!spine_client_find_offsets(client, topic, n, partitions, SPINE_LOG_END, ends, timeout_ms))
		return false;

	/* partition 0 last: its end says that all are known */
	for (int i = n - 1; i >= 0; i--)
		note_log_end(client, topic, i, ends[i], 0);
	pfree(partitions);
	pfree(ends);
	return true;
}

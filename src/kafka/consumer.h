/*
 * consumer.h
 *		A worker's reading end: its partitions of the topic, and the records of
 *		the batch that it is filling.
 */
#ifndef SPINE_CONSUMER_H
#define SPINE_CONSUMER_H

#include "kafka/library.h"
#include "process/positions.h"
#include "event/record.h"

/* Messages taken from the library at a time. */
#define SPINE_POLL_CHUNK	1000

typedef struct SpineConsumer
{
	SpineClient *client;
	rd_kafka_queue_t *admin_queue;	/* results of commits to the group */
	bool		group_commit_pending;	/* one is under way */
	MemoryContext context;
	char	   *topic;
	int			npartitions;	/* of the topic, when last asked */
	int			npositions;		/* of this worker */
	SpinePosition *positions;
	int			nqueues;		/* 0, or npositions: there is an assignment */
	rd_kafka_queue_t **queues;	/* the partitions' own; see unassign */

	/* the batch: its records are to be released */
	SpineRecord *records;
	size_t		nrecords;
	size_t		capacity;
	size_t		bytes;			/* of keys, values and headers, and of records[] */
	size_t		value_bytes;	/* of values alone, which is what the library counts */

	/* taken from the library, not yet in the batch: taken[next_taken..ntaken-1] */
	rd_kafka_message_t *taken[SPINE_POLL_CHUNK];
	ssize_t		ntaken;
	ssize_t		next_taken;

	/*
	 * Take more than is one batch: of this one no record passes, and only if another
	 * does are they to blame.  Set by the owner.
	 */
	bool		looks_further;

	size_t		uncounted;		/* records read since spine_count_consumed */

	/* the topic was reported to be gone */
	bool		topic_is_gone;
	/* the end of a partition was seen: its high watermark is known */
	bool		reached_end;
} SpineConsumer;

/* Starts a client. */
extern SpineConsumer *spine_consumer_open(const SpineCluster *cluster, const char *topic,
										  const char *group_id,
										  const SpinePrefetch *prefetch, int batch_rows);

/* Safe on NULL. */
extern void spine_consumer_close(SpineConsumer *consumer);

/*
 * Reads the given positions from now on, from their marks where those are to be
 * checked, and drops the batch.
 */
extern void spine_consumer_assign(SpineConsumer *consumer,
								  const SpinePosition *positions, int n);

/*
 * Fetches some of the partitions once more from where they stand, or from their
 * marks where those are to be checked.  The others and the batch stay as they are.
 * False: it could not; all of them have to be assigned again.
 */
extern bool spine_consumer_restart(SpineConsumer *consumer, SpinePosition *const *positions, int n);

/* Makes the last record that was read the position's mark. */
extern void spine_consumer_mark(const SpineConsumer *consumer, SpinePosition *position);

/*
 * Takes what has arrived into the batch, without blocking.  Returns true when
 * the batch is full: more may be waiting.
 */
extern bool spine_consumer_poll(SpineConsumer *consumer, int batch_rows);

/* Is there anything to commit: records, or a position that moved past gaps? */
extern bool spine_consumer_has_batch(const SpineConsumer *consumer);

/*
 * The positions that its first nrecords records move, with their new marks, up to
 * read_to; palloc'ed.
 */
extern SpinePosition *spine_consumer_moved_positions(SpineConsumer *consumer, size_t nrecords,
													 int *n);

/*
 * Releases the first nrecords records; the positions that they move are committed.
 * What is left is the next batch.
 */
extern void spine_consumer_finish_batch(SpineConsumer *consumer, size_t nrecords,
										const SpinePosition *moved, int nmoved);

/* Reads the cached high watermarks into the positions. */
extern void spine_consumer_refresh_watermarks(SpineConsumer *consumer);

/*
 * Commits the positions to the broker's consumer group, without waiting: for
 * Kafka's own tools to show lag, and never read back.  Not while the commit
 * before it is under way.
 */
extern void spine_consumer_commit_to_broker(SpineConsumer *consumer);

/*
 * Is such a commit under way?  A broker that does not answer may leave it so,
 * and a client that keeps it until it runs out must be closed before that: see
 * GROUP_COMMIT_TIMEOUT_MS.
 */
extern bool spine_consumer_awaits_broker(SpineConsumer *consumer);

#endif							/* SPINE_CONSUMER_H */

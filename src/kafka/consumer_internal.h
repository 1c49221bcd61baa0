/*
 * consumer_internal.h
 *		The insides of a consumer, for the files that it is made of: consumer.c (its
 *		life, and the poll), consumer_assignment.c, partition.c (where each partition is
 *		read, and whether it can be), record_buffer.c (the batch) and group_commit.c.
 */
#ifndef SPINE_CONSUMER_INTERNAL_H
#define SPINE_CONSUMER_INTERNAL_H

#include "kafka/consumer.h"
#include "kafka/library.h"

/* Messages taken from the library at a time. */
#define SPINE_POLL_CHUNK		1000

/* A batch that looks further may have at least so many records. */
#define SPINE_LOOK_FURTHER_ROWS	1000

/* --------------------------------------------------------------------------
 * record_buffer.c: what is read and not yet committed
 * -------------------------------------------------------------------------- */

typedef struct SpineRecordBuffer
{
	SpineRecord *records;		/* of the batch; to be released */
	size_t		nrecords;
	size_t		capacity;
	size_t		bytes;			/* of keys, values and headers, and of records[] */
	size_t		value_bytes;	/* of values alone, which is what the library counts */
	bool		looks_further;

	/* taken from the library, not yet in the batch: taken[next_taken..ntaken-1] */
	rd_kafka_message_t *taken[SPINE_POLL_CHUNK];
	ssize_t		ntaken;
	ssize_t		next_taken;
} SpineRecordBuffer;

/* The most records that the batch may have now. */
extern size_t spine_record_buffer_limit(const SpineRecordBuffer *buffer, int max_records);

/*
 * Takes the next message out of the queue; NULL: there is none, or, with *is_full, it
 * does not fit.  *next: the one behind it, as far as it is known, or NULL.
 */
extern rd_kafka_message_t *spine_record_buffer_take(SpineRecordBuffer *buffer, rd_kafka_queue_t *queue,
													rd_kafka_message_t **next, bool *is_full);

/*
 * Adds a message of a topic, whose name is the caller's; the buffer owns the message from
 * now on.  next: as above.
 */
extern void spine_record_buffer_add(SpineRecordBuffer *buffer, const char *topic,
									rd_kafka_message_t *message, const rd_kafka_message_t *next);

/* Releases the first n records. */
extern void spine_record_buffer_release(SpineRecordBuffer *buffer, size_t n);

/* Drops what was taken of a partition (topic NULL: of all) and is not in the batch. */
extern void spine_record_buffer_drop_taken(SpineRecordBuffer *buffer, const char *topic, int32 partition);

/* Is it a message of this partition? */
extern bool spine_message_is_of(const rd_kafka_message_t *message, const char *topic, int32 partition);

/* The time of a message in milliseconds since 1970; -1: it has none. */
extern int64 spine_message_time(const rd_kafka_message_t *message);

/* --------------------------------------------------------------------------
 * partition.c: where each partition is read, and whether it can be
 * -------------------------------------------------------------------------- */

typedef enum SpineHealth
{
	SPINE_HEALTH_WELL,
	SPINE_HEALTH_STUCK,			/* it cannot be read on: take no more of it */
	SPINE_HEALTH_RETRIED		/* it was stuck, and nothing was read since */
} SpineHealth;

#define SPINE_STUCK_TEXT_LEN	256 /* of what the library says of it */

typedef struct SpinePartition
{
	const char *topic;			/* one pointer for all partitions of a topic */
	int32		partition;
	rd_kafka_queue_t *queue;	/* its own; see spine_consumer_unassign */
	int64		next_offset;	/* the position: the first offset that is not committed */
	int64		read_to;		/* one past what the batch covers */
	size_t		last_record;	/* of the batch, counted from 1; 0: none */
	int64		high_watermark; /* -1: not known */
	bool		is_read;		/* a record or the end was seen since it was started */

	/* is it still the same log? */
	int64		mark_offset;	/* of the last record read; -1: none known */
	int64		mark_crc;
	bool		is_checked;		/* by its mark, as far as possible */
	uint64		connection;		/* that it was checked on; 0: none yet */
	bool		is_suspect;		/* that has changed: check it before taking more */

	SpineHealth health;
	SpineStuckReason reason;	/* while it is stuck */
	char	   *text;			/* what the library said; NULL: nothing */
	TimestampTz tried_at;		/* when it was last looked into; 0: not yet */
	bool		is_reported;	/* since it was last read */
} SpinePartition;

/* Takes no more of it, for this reason.  text may be NULL; it is kept in the context. */
extern void spine_partition_set_stuck(SpinePartition *partition, SpineStuckReason reason,
									  const char *text, MemoryContext context);

/* It has been read up to an offset: whatever was wrong is over. */
extern void spine_partition_set_read(SpinePartition *partition, int64 read_to);

/*
 * May the message be taken?  The first one after a start is compared with the mark; one
 * that comes over another connection makes the partition suspect.
 */
extern bool spine_partition_accepts(SpinePartition *partition, const SpineClient *client,
									const rd_kafka_message_t *message, MemoryContext context);

/* The same for the end of the partition, at an offset. */
extern bool spine_partition_accepts_end(SpinePartition *partition, const SpineClient *client,
										const rd_kafka_message_t *end, MemoryContext context);

/* Makes a record the mark. */
extern void spine_partition_set_mark(SpinePartition *partition, const SpineRecord *record);

/* --------------------------------------------------------------------------
 * group_commit.c
 * -------------------------------------------------------------------------- */

typedef struct SpineGroupCommit
{
	rd_kafka_queue_t *answers;
	bool		is_under_way;
	bool		is_due;			/* a position has moved since the last one */
	TimestampTz began_at;		/* the last one */
	int			interval_ms;	/* between two of them */
} SpineGroupCommit;

extern void spine_group_commit_open(SpineConsumer *consumer);
extern void spine_group_commit_close(SpineConsumer *consumer);

/* -------------------------------------------------------------------------- */

struct SpineConsumer
{
	MemoryContext context;
	SpineCluster cluster;
	char	   *topics;
	char	   *group;
	int			max_records;
	int			limit;			/* the max_records of the last poll */
	SpineClient *client;		/* NULL: not connected */
	SpinePrefetch prefetch;		/* that the client is started with */

	MemoryContext assignment;	/* holds the partitions, and what belongs to them */
	int			npartitions;	/* of this consumer, by topic and number */
	SpinePartition *partitions;
	const rd_kafka_topic_t *last_topic; /* of the last message that was looked up, */
	int32		last_number;	/* its partition's number, */
	SpinePartition *last_partition; /* and which one that is, or NULL */
	bool		is_assigned;	/* the library reads them: each has its queue */
	SpineRecordBuffer buffer;
	size_t		nread;			/* records read since spine_consumer_take_count */
	bool		reached_end;	/* of a partition, since the last report */
	bool		log_is_lost;	/* a partition is gone, or another log */
	SpineGroupCommit group_commit;
};

/* --------------------------------------------------------------------------
 * consumer_assignment.c
 * -------------------------------------------------------------------------- */

/* NULL: it is not one of ours. */
extern SpinePartition *spine_consumer_find_partition(const SpineConsumer *consumer, const char *topic,
													 int32 number);

/* The partition that a message is of, with hardly a search; NULL: as above. */
extern SpinePartition *spine_consumer_partition_of(SpineConsumer *consumer, const rd_kafka_message_t *message);

/* Drops the batch and ends the assignment. */
extern void spine_consumer_unassign(SpineConsumer *consumer);

/*
 * Finds out which of these partitions can be checked by their mark: retention may have
 * taken it, and the position is as good without.  Waits for the broker.
 */
extern bool spine_consumer_find_marks(SpineConsumer *consumer, SpinePartition *const *partitions, int n,
									  SpineError *error);

/*
 * Fetches some of the partitions once more, each from where it stands or from its mark.
 * The others and the batch stay as they are.  False: that was not possible, and all of
 * them have to be assigned again.
 */
extern bool spine_consumer_restart(SpineConsumer *consumer, SpinePartition *const *partitions, int n);

/* --------------------------------------------------------------------------
 * consumer.c
 * -------------------------------------------------------------------------- */

/* Ends the client; the partitions stay known, with what was wrong with them. */
extern void spine_consumer_disconnect(SpineConsumer *consumer);

#endif							/* SPINE_CONSUMER_INTERNAL_H */

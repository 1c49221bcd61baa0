/*
 * consumer.h
 *		A worker's reading end: some partitions of some topics, and the records of the
 *		batch that is being filled.
 *
 * Partitions are assigned by hand and start from the position that the database has.
 * The broker's consumer group is told the positions, and never asked.
 *
 * No function raises an error or waits for the broker unless its comment says so.
 */
#ifndef SPINE_CONSUMER_H
#define SPINE_CONSUMER_H

#include "compat.h"
#include "error.h"
#include "event/position.h"
#include "event/record.h"
#include "kafka/client.h"

typedef struct SpineConsumer SpineConsumer;

/*
 * A consumer without a connection.  topics: what it is for, as the pipeline has it.
 * max_records: the most records that a batch will have.  The caller closes it; NULL may be
 * closed.
 */
extern SpineConsumer *spine_consumer_create(const SpineCluster *cluster, const char *topics,
											const char *group, int max_records);
extern void spine_consumer_close(SpineConsumer *consumer);

/*
 * Starts the client.  Raises an error when the cluster's options do not fit together.
 * A consumer may have to be connected again at any time, and then has no assignment:
 * to prefetch less, or because the broker does not answer a commit to the group.
 */
extern void spine_consumer_connect(SpineConsumer *consumer);
extern bool spine_consumer_is_connected(const SpineConsumer *consumer);

/* Would a consumer made of these be the same? */
extern bool spine_consumer_is_for(const SpineConsumer *consumer, const SpineCluster *cluster,
								  const char *topics, int max_records);

/*
 * Sleeps until there is something to poll, the latch is set, or timeout_ms have passed
 * (-1: for ever).  Resets the latch; does not check for interrupts.
 */
extern void spine_consumer_wait(SpineConsumer *consumer, long timeout_ms);

/* --------------------------------------------------------------------------
 * Asking the broker.  These wait for it, for some seconds, and serve interrupts.
 * -------------------------------------------------------------------------- */

/* The client, to be asked which topics there are. */
extern SpineClient *spine_consumer_client(const SpineConsumer *consumer);

/* There was no answer: why not, as far as is known.  Does not wait. */
extern void spine_consumer_explain_silence(SpineConsumer *consumer, SpineError *error);

/* Which cluster answered that.  Lives until the next question, or the end of the client. */
extern const char *spine_consumer_cluster_id(const SpineConsumer *consumer);

/* As spine_client_find_many_offsets.  False: *error says why not. */
extern bool spine_consumer_find_offsets(SpineConsumer *consumer, int n,
										const SpineTopicPartition *partitions,
										int64 time_ms, int64 *offsets, SpineError *error);

/*
 * Reads these positions from now on, which are in the order of their topics (as strcmp has
 * it) and partitions; first each mark, where it is still in the log, to see that it is the
 * same log.  Drops the batch.  False: the consumer has to be connected again, or *error says
 * why not.
 */
extern bool spine_consumer_assign(SpineConsumer *consumer, const SpinePosition *positions, int n,
								  SpineError *error);

/*
 * Reads these partitions no more, and drops what was fetched of them; the others are read
 * on.  Not while there is a batch.  False: all have to be assigned again.
 */
extern bool spine_consumer_release(SpineConsumer *consumer, const SpineTopicPartition *partitions, int n);

/* --------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------- */

typedef enum SpinePollKind
{
	SPINE_POLL_RECORDS,			/* what had arrived, if anything, is in the batch */
	SPINE_POLL_PARTITION_STUCK, /* `stuck` says which, and why; the others go on */
	SPINE_POLL_BROKER_SILENT,	/* the broker could not be reached */
	SPINE_POLL_LOG_LOST			/* a partition is gone, or another log: connect, if need
								 * be, and assign the positions again */
} SpinePollKind;

typedef enum SpineStuckReason
{
	SPINE_STUCK_EXPIRED,		/* the log begins at `log_offset`, after the position */
	SPINE_STUCK_SHORT_LOG,		/* the log ends at `log_offset`, before the position */
	SPINE_STUCK_OTHER_LOG,		/* the log has another record than the mark at `log_offset` */
	SPINE_STUCK_NO_OFFSET,		/* the log does not have the position */
	SPINE_STUCK_UNREADABLE		/* `text` says why */
} SpineStuckReason;

typedef struct SpineStuck
{
	const char *topic;			/* lives until the next assignment */
	int32		partition;
	SpineStuckReason reason;
	int64		offset;			/* that cannot be read */
	int64		log_offset;
	const char *text;			/* lives until the next poll */
	bool		is_news;		/* not reported since the partition was last read */
} SpineStuck;

typedef struct SpinePoll
{
	SpinePollKind kind;
	bool		is_full;		/* the batch: more may be waiting */
	SpineStuck	stuck;
} SpinePoll;

/*
 * Takes what has arrived into the batch, up to max_records.  A partition that is stuck
 * is looked into and tried again every SPINE_STUCK_RETRY_MS, one with each poll, and
 * reported each time; that waits for the broker.
 */
extern SpinePoll spine_consumer_poll(SpineConsumer *consumer, int max_records);

#define SPINE_STUCK_RETRY_MS	5000

/*
 * Takes what has arrived, as the poll does, up to the same number of records.  What is wrong
 * is left for the next poll to say: this asks the broker nothing.  False: a partition is gone,
 * or another log, and none of the records is to be applied.
 */
extern bool spine_consumer_take_more(SpineConsumer *consumer);

/*
 * How many records the log has behind those that were read, as far as is known, in the
 * partitions that are read.
 */
extern int64 spine_consumer_backlog(SpineConsumer *consumer);

/* Are all partitions read, as far as is known? */
extern bool spine_consumer_is_well(const SpineConsumer *consumer);

/*
 * Lets a batch take more than fits: none of the records in hand can be applied, and they
 * are to blame only if another one can.
 */
extern void spine_consumer_look_further(SpineConsumer *consumer, bool further);

/* How many records were read since this was last asked. */
extern size_t spine_consumer_take_count(SpineConsumer *consumer);

/* What spine_status shows of a partition. */
typedef struct SpineProgressReport
{
	const char *topic;
	int32		partition;
	int64		next_offset;
	int64		high_watermark; /* -1: not known */
	bool		is_well;		/* it can be read, as far as is known */
} SpineProgressReport;

/* What is known of the assigned partitions; palloc'ed. */
extern SpineProgressReport *spine_consumer_report(SpineConsumer *consumer, int *n);

/* Has the end of a partition been reached since the last report? */
extern bool spine_consumer_reached_end(const SpineConsumer *consumer);

/* --------------------------------------------------------------------------
 * The batch
 * -------------------------------------------------------------------------- */

/* Is there anything to commit: records, or a position that moved past gaps? */
extern bool spine_consumer_has_batch(const SpineConsumer *consumer);

/*
 * Its records, in log order within each partition; the consumer's.  Records of one topic
 * have the same pointer to its name.
 */
extern const SpineRecord *spine_consumer_records(const SpineConsumer *consumer, size_t *n);

/*
 * How its first nrecords records move the positions, in the order of the partitions;
 * palloc'ed.  with_all: the moves of all partitions, also of those that stay where they are.
 */
extern SpineMove *spine_consumer_moves(const SpineConsumer *consumer, size_t nrecords, bool with_all, int *n);

/*
 * The first nrecords records are done, with these moves: committed, or applied in a
 * transaction; if that is rolled back, the positions have to be assigned again before they
 * are reported.  The rest is the next batch.
 */
extern void spine_consumer_finish_batch(SpineConsumer *consumer, size_t nrecords,
										const SpineMove *moves, int nmoves);

/* --------------------------------------------------------------------------
 * The broker's consumer group, for Kafka's own tools to show lag
 * -------------------------------------------------------------------------- */

/*
 * Tells the group the positions if that is due, without waiting for the answer.  The answer may
 * come behind that to a fetch, and so take a second when the log has nothing more: with a batch
 * that can be applied, twice the time passes until it is due.  Not while
 * spine_consumer_is_committing, which has to be asked if this returns 0.  Otherwise returns
 * after how many ms to call it again; -1: there is nothing to tell.
 */
extern long spine_consumer_commit_to_group(SpineConsumer *consumer, bool has_batch);

/*
 * Is the answer outstanding?  Then the caller sleeps with spine_consumer_wait, and does
 * nothing that may wait for a lock: a request that runs out would abort the process, see
 * group_commit.c.  One that takes too long disconnects the consumer.  The caller polls
 * before it sleeps otherwise: wake-ups for records are lost here.
 */
extern bool spine_consumer_is_committing(SpineConsumer *consumer);

#endif							/* SPINE_CONSUMER_H */

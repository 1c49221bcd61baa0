/*
 * client.h
 *		Clients of a cluster, and what any of them can be asked.
 *
 * The library's threads never run code of ours: logs, errors, delivery reports and
 * messages are queued, and handled on the owner's thread when the owner polls.  What
 * only consumers or only producers can do is in consumer.h and producer.h.
 */
#ifndef SPINE_CLIENT_H
#define SPINE_CLIENT_H

#include "compat.h"
#include "error.h"
#include "kafka/cluster.h"

typedef struct SpineClient SpineClient;

typedef enum SpineClientKind
{
	SPINE_CONSUMER,
	SPINE_PRODUCER
} SpineClientKind;

/* How much a consumer may fetch before it is asked for it. */
typedef struct SpinePrefetch
{
	int			partitions;		/* that share one answer of a broker */
	int			records;		/* the most records, even if they have few bytes: see below */
} SpinePrefetch;

/*
 * The limits of what is prefetched.  The library counts the bytes of values, but
 * neither keys nor headers.  Where those are larger than the values, the library has
 * to be told how many records these bytes are.  The number of small records is limited
 * anyway.
 */
#define SPINE_PREFETCH_KB		32768
#define SPINE_PREFETCH_RECORDS	100000

/*
 * Starts a client of a cluster that has an address.  group_id and prefetch are for
 * consumers, NULL otherwise.  Raises an error when the options do not fit together.
 * The client lives until spine_client_destroy, or until the process ends.
 */
extern SpineClient *spine_client_create(SpineClientKind kind, const SpineCluster *cluster,
										const char *group_id, const SpinePrefetch *prefetch);

/* Safe on NULL.  The owner has released its messages and events before. */
extern void spine_client_destroy(SpineClient *client);

/* Is it a client of the embedded broker? */
extern bool spine_client_is_embedded(const SpineClient *client);

/*
 * The cluster's id, as the cluster last told it; "" while it has not.  Belongs to the
 * client, and may change with spine_client_count_partitions.
 */
extern const char *spine_client_identity(const SpineClient *client);

/*
 * The trouble that was met since the cluster last answered a question; of class
 * SPINE_NO_ERROR if there was none.  Belongs to the client.  The library may report
 * more each time the client is polled.
 */
extern const SpineError *spine_client_error(const SpineClient *client);

/* Raises that trouble as an error of the current transaction. */
pg_noreturn extern void spine_client_raise_error(const SpineClient *client);

/*
 * Sleeps until there is something to poll, the latch is set, or timeout_ms have passed
 * (-1: for ever).  Resets the latch.  Does not check for interrupts.
 */
extern void spine_client_wait(SpineClient *client, long timeout_ms);

/*
 * The two questions below wait for the answer, and serve interrupts meanwhile.  When
 * there is no answer within timeout_ms, spine_client_error says why.
 */

/*
 * How many partitions does a topic have?  0: the topic does not exist.  -1: there is no
 * answer.
 */
extern int	spine_client_count_partitions(SpineClient *client, const char *topic,
										  int timeout_ms);

/*
 * What is, in each of n partitions, the first offset whose record is not older than a
 * time?  -1: there is none.  The time is in milliseconds since 1970, or one of the two
 * constants.  False: there is no answer.
 */
#define SPINE_LOG_START		(-2)
#define SPINE_LOG_END		(-1)
extern bool spine_client_find_offsets(SpineClient *client, const char *topic,
									  int n, const int32 *partitions, int64 time_ms,
									  int64 *offsets, int timeout_ms);

#endif							/* SPINE_CLIENT_H */

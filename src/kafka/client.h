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
#include "event/position.h"
#include "kafka/cluster.h"

typedef struct SpineClient SpineClient;

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

/* A hint for a person: what to check when the cluster does not answer.  palloc'ed. */
extern char *spine_client_advice(const SpineClient *client);

/* Raises that trouble as an error of the current transaction. */
pg_noreturn extern void spine_client_raise_error(const SpineClient *client);

/*
 * Sleeps until there is something to poll, the latch is set, or timeout_ms have passed
 * (-1: for ever).  Resets the latch.  Does not check for interrupts.
 */
extern void spine_client_wait(SpineClient *client, long timeout_ms);

/*
 * The questions below wait for the answer, and serve interrupts meanwhile.  When
 * there is no answer within timeout_ms, spine_client_error says why.
 */

/*
 * How many partitions does a topic have?  0: the topic does not exist.  -1: there is no
 * answer.
 */
extern int	spine_client_count_partitions(SpineClient *client, const char *topic,
										  int timeout_ms);

/*
 * All topics of the cluster, in no order, palloc'ed with their names.  NULL: there is no
 * answer.
 */
extern SpineTopic *spine_client_list_topics(SpineClient *client, int *n, int timeout_ms);

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

/* The same for partitions of several topics. */
extern bool spine_client_find_many_offsets(SpineClient *client, int n,
										   const SpineTopicPartition *partitions,
										   int64 time_ms, int64 *offsets, int timeout_ms);

#endif							/* SPINE_CLIENT_H */

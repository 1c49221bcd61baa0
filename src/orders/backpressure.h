/*
 * backpressure.h
 *		Keeps producers from overrunning the embedded broker, which drops what
 *		it has no room for.
 *
 * Clients of other clusters are never held up, and nothing is counted for them.  All of
 * these functions take the lock.
 */
#ifndef SPINE_BACKPRESSURE_H
#define SPINE_BACKPRESSURE_H

#include "compat.h"
#include "kafka/client.h"

/* Reserves the shared memory; called from _PG_init. */
extern void spine_backpressure_init(void);

/*
 * Asks the embedded broker for the ends of a topic's partitions, unless they are
 * known: to be called before anything is sent to the topic.  False: the broker does not
 * answer, and spine_client_error says why.
 */
extern bool spine_backpressure_learn(SpineClient *client, const char *topic, int timeout_ms);

/*
 * May a record of this size be sent?  Then its bytes are reserved, by this process, until
 * they are released.  False: the broker is full.
 */
extern bool spine_backpressure_reserve(const SpineClient *client, int64 bytes);

/* Reserved bytes are acknowledged, have failed, or are not sent now. */
extern void spine_backpressure_release(const SpineClient *client, int64 bytes);

/*
 * Releases all that this process has reserved: nobody will count the reports that are
 * still to come.  The end of the process does so too.
 */
extern void spine_backpressure_release_all(void);

/* A record was acknowledged: the log of its partition now ends after it. */
extern void spine_backpressure_acknowledge(const SpineClient *client, const char *topic,
										   int32 partition, int64 offset, int64 bytes);

#endif							/* SPINE_BACKPRESSURE_H */

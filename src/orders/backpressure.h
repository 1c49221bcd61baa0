/*
 * backpressure.h
 *		Keeps producers from overrunning the embedded broker, which drops what
 *		it has no room for.
 */
#ifndef SPINE_BACKPRESSURE_H
#define SPINE_BACKPRESSURE_H

#include "compat.h"
#include "kafka/client.h"

/*
 * May this many more bytes be sent?  Then they count as in flight.  Always
 * true, and free, when the broker is not the embedded one.  Takes the lock.
 */
extern bool spine_backpressure_reserve(int64 bytes);

/*
 * Asks the embedded broker for the ends of a topic's partitions, unless they are
 * known: to be called before anything is sent to it.  False: it does not answer
 * (client->error_text says why).  Always true when it is another broker.
 */
extern bool spine_backpressure_learn(SpineClient *client, const char *topic, int timeout_ms);

/* Gives back what was reserved: it is acknowledged, or given up. */
extern void spine_backpressure_release(int64 bytes);

/* A record was acknowledged: the log of its partition now ends after it. */
extern void spine_backpressure_acknowledged(const SpineClient *client, const char *topic,
											int32 partition, int64 offset, int64 bytes);

#endif							/* SPINE_BACKPRESSURE_H */

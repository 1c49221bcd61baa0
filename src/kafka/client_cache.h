/*
 * client_cache.h
 *		The one Kafka client that a backend keeps for its session.
 */
#ifndef SPINE_CLIENT_CACHE_H
#define SPINE_CLIENT_CACHE_H

#include "kafka/client.h"

/*
 * The session's producer, started at first use and again when the broker's
 * settings have changed.  Raises an error when it cannot be started.  To be polled
 * until spine_session_rest, or until an error resets the current memory context.
 */
extern SpineClient *spine_session_client(void);

/* The client is not polled any more, until spine_session_client is called again. */
extern void spine_session_rest(void);

/* Is it still what spine_session_client would return? */
extern bool spine_session_is_current(void);

/* Ends it, after trouble that it would not recover from. */
extern void spine_session_close(void);

#endif							/* SPINE_CLIENT_CACHE_H */

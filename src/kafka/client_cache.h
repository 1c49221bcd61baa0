/*
 * client_cache.h
 *		The producers that a process keeps between its uses, one for each cluster, so
 *		that only the first use pays for connecting.
 */
#ifndef SPINE_CLIENT_CACHE_H
#define SPINE_CLIENT_CACHE_H

#include "kafka/client.h"

/*
 * A producer of the cluster, which has an address; started if there is none.  Raises an
 * error when it cannot be started.  The client belongs to the cache.  The caller polls
 * it, or uses it otherwise, until spine_client_cache_rest or spine_client_cache_close,
 * or until the current memory context is reset, as it is after an error.
 */
extern SpineClient *spine_client_cache_get(const SpineCluster *cluster);

/* The use is over: the client is not polled any more. */
extern void spine_client_cache_rest(SpineClient *client);

/* Ends the client, after trouble that it would not recover from. */
extern void spine_client_cache_close(SpineClient *client);

#endif							/* SPINE_CLIENT_CACHE_H */

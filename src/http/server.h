/*
 * server.h
 *		Serving HTTP.
 */
#ifndef SPINE_HTTP_SERVER_H
#define SPINE_HTTP_SERVER_H

#include <stdbool.h>

#include "pool.h"

typedef struct ServerOptions
{
	const char *address;		/* a host name or an address; "*": all */
	const char *port;			/* "0": any free port */
} ServerOptions;

/* What the pool does with requests: those that ask the same share an answer. */
extern bool server_may_share(const PoolJob *request, const PoolJob *first);
extern void server_answer(PoolJob *requests, DbSession *session);

/*
 * Starts serving on a thread of its own; the pool must have been started.  False: the
 * log says why.
 */
extern bool server_start(const ServerOptions *options);

/*
 * Accepts no more connections, and waits until all requests are answered, at most
 * for the given time.
 */
extern void server_drain(int timeout_s);

/* Closes all connections.  Called after pool_stop(). */
extern void server_stop(void);

#endif							/* SPINE_HTTP_SERVER_H */

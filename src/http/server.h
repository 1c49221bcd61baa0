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
	const char *port;			/* "0": any that is free */
} ServerOptions;

/* The work of the pool: requests, of which those that ask the same share an answer. */
extern bool server_may_share(const PoolJob *request, const PoolJob *first);
extern void server_answer(PoolJob *requests, DbSession *session);

/*
 * Starts serving, on a thread of its own; the pool must be there.  False: it has
 * said why.
 */
extern bool server_start(const ServerOptions *options);

/*
 * Takes no more connections, and waits until what was asked is answered, for so
 * long at most.
 */
extern void server_drain(int timeout_s);

/* Closes all connections; after pool_stop(). */
extern void server_stop(void);

#endif							/* SPINE_HTTP_SERVER_H */

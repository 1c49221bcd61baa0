/*
 * connections.h
 *		Who is connected, and how long we have been waiting for each.
 *
 * Slow clients are served like all others as long as there is room.  When room gets
 * scarce, those that have been slowest to ask, or to take their answer, are cut off.
 * Only the thread that serves HTTP calls these functions.
 */
#ifndef SPINE_HTTP_CONNECTIONS_H
#define SPINE_HTTP_CONNECTIONS_H

typedef struct Connection Connection;

typedef enum ConnectionState
{
	CONNECTION_ASKS,			/* we wait for its next request, or for the rest of it */
	CONNECTION_WAITS,			/* it waits for us */
	CONNECTION_TAKES,			/* we are sending it an answer */
	CONNECTION_STATES
} ConnectionState;

/* A connection in CONNECTION_ASKS.  NULL: out of memory, so it is not watched. */
extern Connection *connection_open(int fd);

/* Called before the descriptor is closed.  NULL is fine here and in the next function. */
extern void connection_close(Connection *connection);

extern void connection_set_state(Connection *connection, ConnectionState state);

/* Cuts off connections that are slow to ask, while there are more than max. */
extern void connections_cut_askers(unsigned max);

/* Cuts off all connections that are slow to take their answers. */
extern void connections_cut_takers(void);

#endif							/* SPINE_HTTP_CONNECTIONS_H */

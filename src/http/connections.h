/*
 * connections.h
 *		Who is connected, and since when we wait for them.
 *
 * Slow clients are served like others as long as there is room.  When there is not,
 * those are cut off that we have waited for longest: to ask, or to take their answer.
 * All of it is for the thread that serves HTTP.
 */
#ifndef SPINE_HTTP_CONNECTIONS_H
#define SPINE_HTTP_CONNECTIONS_H

typedef struct Connection Connection;

typedef enum ConnectionState
{
	CONNECTION_ASKS,			/* its next request has not come, or not all of it */
	CONNECTION_WAITS,			/* for us */
	CONNECTION_TAKES,			/* is being sent an answer */
	CONNECTION_STATES
} ConnectionState;

/* In CONNECTION_ASKS.  NULL: out of memory; such a one is not watched. */
extern Connection *connection_open(int fd);

/* Before its descriptor is closed; NULL is fine, as in the next. */
extern void connection_close(Connection *connection);

extern void connection_set_state(Connection *connection, ConnectionState state);

/* When there are more connections than so many, cuts off those that are slow to ask. */
extern void connections_cut_askers(unsigned max);

/* Cuts off those that are slow to take their answers. */
extern void connections_cut_takers(void);

#endif							/* SPINE_HTTP_CONNECTIONS_H */

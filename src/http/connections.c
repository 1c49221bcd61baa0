/*
 * connections.c
 *		A list for each state; its first connection has been in that state longest.
 */
#include "connections.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "clock.h"

#define SLOW_US			(10 * 1000 * 1000)

struct Connection
{
	int			fd;
	bool		is_cut;
	ConnectionState state;
	int64_t		since_us;
	Connection *before;
	Connection *behind;
};

typedef struct List
{
	Connection *first;
	Connection *last;
} List;

static List lists[CONNECTION_STATES];
static unsigned nopen;			/* does not count those that were cut off */

static void
append(Connection *connection, ConnectionState state)
{
	List	   *list = &lists[state];

	connection->state = state;
	connection->since_us = clock_us();
	connection->before = list->last;
	connection->behind = NULL;
	*(list->last ? &list->last->behind : &list->first) = connection;
	list->last = connection;
}

static void
take_out(Connection *connection)
{
	List	   *list = &lists[connection->state];

	*(connection->before ? &connection->before->behind : &list->first) = connection->behind;
	*(connection->behind ? &connection->behind->before : &list->last) = connection->before;
}

Connection *
connection_open(int fd)
{
	Connection *connection = calloc(1, sizeof(Connection));

	if (connection)
	{
		connection->fd = fd;
		append(connection, CONNECTION_ASKS);
		nopen++;
	}
	return connection;
}

/* Shuts the socket down.  libmicrohttpd notices that, and closes the connection. */
static void
cut(Connection *connection)
{
	take_out(connection);
	connection->is_cut = true;
	nopen--;
	shutdown(connection->fd, SHUT_RDWR);
}

void
connection_close(Connection *connection)
{
	if (connection && !connection->is_cut)
	{
		take_out(connection);
		nopen--;
	}
	free(connection);
}

void
connection_set_state(Connection *connection, ConnectionState state)
{
	if (connection && !connection->is_cut)
	{
		take_out(connection);
		append(connection, state);
	}
}

static Connection *
first_slow(ConnectionState state)
{
	Connection *first = lists[state].first;

	return first && clock_us() - first->since_us > SLOW_US ? first : NULL;
}

void
connections_cut_askers(unsigned max)
{
	Connection *slow;

	while (nopen > max && (slow = first_slow(CONNECTION_ASKS)) != NULL)
		cut(slow);
}

void
connections_cut_takers(void)
{
	Connection *slow;

	while ((slow = first_slow(CONNECTION_TAKES)) != NULL)
		cut(slow);
}

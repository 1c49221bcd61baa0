/*
 * relay.h
 *		Passes on what the broker and its clients send to each other.
 */
#ifndef BROKER_RELAY_H
#define BROKER_RELAY_H

#include <sys/socket.h>
#include <sys/un.h>

/* The version of Fetch that is answered as soon as there is something. */
#define RELAY_FETCH_VERSION	11

typedef struct Relay
{
	int			listener;		/* where clients connect */
	struct sockaddr_un broker;	/* where the mock cluster is */
	socklen_t	broker_len;
} Relay;

/* Serves the clients.  Returns when `channel` is readable, and is then to be called again. */
extern void relay_until_readable(const Relay *relay, int channel);

#endif							/* BROKER_RELAY_H */

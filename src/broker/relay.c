/*
 * relay.c
 *		Passes on what the mock cluster and its clients send to each other, and lets a
 *		Fetch be answered as soon as there is something.
 *
 * The mock cluster composes the answer to a Fetch at once.  If that answer is empty, it
 * is sent when the client's wait is over, whatever is produced meanwhile.  So the relay
 * tells the mock cluster not to wait, and waits itself: it keeps an empty answer back
 * until somebody has produced, or the client asks for something else, or the time is
 * over.  The client then asks again, and gets the records.
 *
 * Whatever else passes is not looked at.  The bytes may be hostile: a length is trusted
 * only for the number of bytes to pass on.
 */
#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_CLIENTS		256		/* each has three descriptors in this process */
#define BUFFER_BYTES	65536

#define PRODUCE			0		/* of Kafka's request types */
#define FETCH			1

/* Bytes on their way in one direction. */
typedef struct Flow
{
	size_t		start;			/* bytes[start] to bytes[end - 1] are there */
	size_t		end;
	size_t		passing;		/* bytes that may pass, some of which may not be there yet */
	char		bytes[BUFFER_BYTES];
} Flow;

typedef struct Client
{
	int			fd;
	int			broker_fd;		/* its connection to the mock cluster */
	bool		is_gone;
	bool		has_produced;
	bool		is_fetching;	/* the answer to a Fetch has not passed yet ... */
	uint32_t	fetch_id;		/* ... which has this correlation id */
	int64_t		wait_until;		/* how long an empty answer is kept back, in ms */
	bool		is_hurried;		/* it is not to be kept back any longer */
	bool		is_holding;		/* it is kept back now */
	Flow		requests;
	Flow		answers;
} Client;

static Client *clients[MAX_CLIENTS];
static int	n_clients = 0;

static int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint32_t
get_32(const char *bytes)
{
	uint32_t	number;

	memcpy(&number, bytes, sizeof(number));
	return ntohl(number);
}

static uint16_t
get_16(const char *bytes)
{
	uint16_t	number;

	memcpy(&number, bytes, sizeof(number));
	return ntohs(number);
}

/* Reads what has come, as far as there is room.  False: the sender is gone. */
static bool
fill(Flow *flow, int fd)
{
	ssize_t		len;

	memmove(flow->bytes, flow->bytes + flow->start, flow->end - flow->start);
	flow->end -= flow->start;
	flow->start = 0;
	len = recv(fd, flow->bytes + flow->end, BUFFER_BYTES - flow->end, MSG_DONTWAIT);
	if (len < 0)
		return errno == EAGAIN || errno == EINTR;
	flow->end += len;
	return len > 0;
}

static bool
has_room(const Flow *flow)
{
	return flow->end - flow->start < BUFFER_BYTES;
}

/* Can bytes be sent as soon as the receiver takes them? */
static bool
can_send(const Flow *flow)
{
	return flow->passing > 0 && flow->end > flow->start;
}

/* Sends what may pass.  False: the receiver is gone. */
static bool
drain(Flow *flow, int fd)
{
	while (can_send(flow))
	{
		size_t		there = flow->end - flow->start;
		ssize_t		len = send(fd, flow->bytes + flow->start, there < flow->passing ? there : flow->passing,
							   MSG_DONTWAIT | MSG_NOSIGNAL);

		if (len < 0)
			return errno == EAGAIN || errno == EINTR;
		flow->start += len;
		flow->passing -= len;
	}
	return true;
}

/*
 * Lets the next request pass when enough of it is there to be looked at: its length, type,
 * version, correlation id and, of a Fetch, what follows up to its wait.  False: nothing
 * more can pass.
 */
static bool
pass_request(Client *client)
{
	Flow	   *flow = &client->requests;
	char	   *request = flow->bytes + flow->start;
	size_t		there = flow->end - flow->start;
	size_t		name;
	char	   *wait;

	if (there < 14)
		return false;
	name = (int16_t) get_16(request + 12) > 0 ? get_16(request + 12) : 0;
	if (get_16(request + 4) != FETCH || get_16(request + 6) != RELAY_FETCH_VERSION)
	{
		client->has_produced |= get_16(request + 4) == PRODUCE;
		client->is_hurried = true;
	}
	else if (there < 22 + name)
		return false;
	else
	{
		wait = request + 18 + name;
		client->is_fetching = true;
		client->is_hurried = false;
		client->fetch_id = get_32(request + 8);
		client->wait_until = now_ms() + (int32_t) get_32(wait);
		memset(wait, 0, 4);
	}
	flow->passing = (size_t) get_32(request) + 4;
	return true;
}

/* Is this answer to a Fetch without records and errors?  One that is not understood is not. */
static bool
is_empty(const char *answer, size_t size)
{
	const size_t topics_at = 18;	/* behind the length, the correlation id, the throttle time,
									 * an error and the session */
	const size_t partition_size = 42;	/* a number, an error, three offsets, the count of aborted
										 * transactions, a replica, the length of the records */
	size_t		at = topics_at + 4;

	if (size < at)
		return false;
	for (uint32_t topics = get_32(answer + topics_at); topics > 0; topics--)
	{
		uint32_t	partitions;

		if (size - at < 2 || size - at < 6 + (size_t) get_16(answer + at))
			return false;
		at += 2 + get_16(answer + at);
		partitions = get_32(answer + at);
		at += 4;
		for (; partitions > 0; partitions--, at += partition_size)
		{
			if (size - at < partition_size)
				return false;
			if (get_16(answer + at + 4) != 0 || get_32(answer + at + 30) != 0 || (int32_t) get_32(answer + at + 38) > 0)
				return false;
		}
	}
	return at == size;
}

static void
hurry_all(void)
{
	for (int i = 0; i < n_clients; i++)
		clients[i]->is_hurried = true;
}

/* Lets the next answer pass, or keeps it back.  False: nothing more can pass. */
static bool
pass_answer(Client *client)
{
	Flow	   *flow = &client->answers;
	const char *answer = flow->bytes + flow->start;
	size_t		there = flow->end - flow->start;
	size_t		size;

	if (there < 8)
		return false;
	size = (size_t) get_32(answer) + 4;
	if (client->is_fetching && get_32(answer + 4) == client->fetch_id)
	{
		if (there < size && size <= BUFFER_BYTES)
			return false;
		client->is_holding = !client->is_hurried && client->wait_until > now_ms() &&
			there >= size && is_empty(answer, size);
		if (client->is_holding)
			return false;
		client->is_fetching = false;
	}
	else if (client->has_produced)
		hurry_all();			/* by now the mock cluster has the records */
	flow->passing = size;
	return true;
}

static void
pass_what_can(Client *client)
{
	bool		alive = true;

	while (alive && (client->requests.passing > 0 || pass_request(client)))
	{
		alive = drain(&client->requests, client->broker_fd);
		if (client->requests.passing > 0)
			break;
	}
	while (alive && (client->answers.passing > 0 || pass_answer(client)))
	{
		alive = drain(&client->answers, client->fd);
		if (client->answers.passing > 0)
			break;
	}
	client->is_gone |= !alive;
}

static void
read_from(Client *client, short client_events, short broker_events)
{
	if (client_events & POLLIN)
		client->is_gone |= !fill(&client->requests, client->fd);
	else if (client_events)
		client->is_gone = true;
	if (broker_events & POLLIN)
		client->is_gone |= !fill(&client->answers, client->broker_fd);
	else if (broker_events & (POLLERR | POLLHUP))
		client->is_gone = true;
}

static void
take_client(const Relay *relay)
{
	int			on = 1;
	Client	   *client = calloc(1, sizeof(Client));

	if (client == NULL)
		return;
	client->fd = accept(relay->listener, NULL, NULL);
	client->broker_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (client->fd >= 0 && client->broker_fd >= 0 &&
		connect(client->broker_fd, (const struct sockaddr *) &relay->broker, relay->broker_len) == 0)
	{
		(void) setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		clients[n_clients++] = client;
		return;
	}
	close(client->fd);
	close(client->broker_fd);
	free(client);
}

static void
remove_gone(void)
{
	int			kept = 0;

	for (int i = 0; i < n_clients; i++)
	{
		Client	   *client = clients[i];

		if (!client->is_gone)
		{
			clients[kept++] = client;
			continue;
		}
		close(client->fd);
		close(client->broker_fd);
		free(client);
	}
	n_clients = kept;
}

/* How long to sleep until an empty answer is to be sent; -1: until something comes. */
static int
sleep_ms(void)
{
	int64_t		until = INT64_MAX;

	for (int i = 0; i < n_clients; i++)
	{
		int64_t		its_end = clients[i]->is_hurried ? 0 : clients[i]->wait_until;

		if (clients[i]->is_holding && its_end < until)
			until = its_end;
	}
	if (until == INT64_MAX)
		return -1;
	until -= now_ms();
	return until < 0 ? 0 : until > INT32_MAX ? INT32_MAX : (int) until;
}

void
relay_until_readable(const Relay *relay, int channel)
{
	struct pollfd fds[2 + 2 * MAX_CLIENTS];

	for (;;)
	{
		int			n = n_clients;	/* those that are polled */

		fds[0] = (struct pollfd) {.fd = channel, .events = POLLIN};
		fds[1] = (struct pollfd) {.fd = n < MAX_CLIENTS ? relay->listener : -1, .events = POLLIN};
		for (int i = 0; i < n; i++)
		{
			Client	   *client = clients[i];

			fds[2 + 2 * i] = (struct pollfd) {
				.fd = client->fd,
				.events = (has_room(&client->requests) ? POLLIN : 0) | (can_send(&client->answers) ? POLLOUT : 0)
			};
			fds[3 + 2 * i] = (struct pollfd) {
				.fd = client->broker_fd,
				.events = (has_room(&client->answers) ? POLLIN : 0) | (can_send(&client->requests) ? POLLOUT : 0)
			};
		}
		if (poll(fds, 2 + 2 * n, sleep_ms()) < 0)
			continue;

		for (int i = 0; i < n; i++)
			read_from(clients[i], fds[2 + 2 * i].revents & ~POLLOUT, fds[3 + 2 * i].revents);
		for (int i = 0; i < n; i++)
			pass_what_can(clients[i]);
		remove_gone();
		if (fds[1].revents & POLLIN)
			take_client(relay);
		if (fds[0].revents)
			return;
	}
}

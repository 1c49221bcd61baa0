/*
 * test_relay.c
 *		The relay between the embedded broker's mock cluster and its clients.  The test is
 *		both: it decides which answer comes first.
 *
 * What would break this: an empty answer that is kept back although somebody has produced
 * since the Fetch was sent, or with nobody to wake it; an answer that is passed on too
 * early, in another order, or not whole; a read outside of a buffer, whatever comes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <unistd.h>

#include "broker/relay.h"

#define PRODUCE		0
#define FETCH		1
#define METADATA	3
#define FOREVER_MS	3600000

/* A connection through the relay: the end of the client, and that of the mock cluster. */
typedef struct Pair
{
	int			client;
	int			broker;
} Pair;

typedef struct Frame
{
	size_t		size;
	char		bytes[300];
} Frame;

static Relay relay;
static int	inner;				/* where the relay connects */
static int	channel[2];
static pthread_t thread;

static void *
run_relay(void *arg)
{
	relay_until_readable(&relay, channel[0]);
	return arg;
}

static int
start(void **state)
{
	struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	(void) state;
	relay.broker = (struct sockaddr_un) {.sun_family = AF_UNIX};
	relay.broker_len = sizeof(relay.broker);
	inner = socket(AF_UNIX, SOCK_STREAM, 0);
	relay.listener = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(inner, (struct sockaddr *) &relay.broker, sizeof(relay.broker.sun_family)), 0);
	assert_int_equal(getsockname(inner, (struct sockaddr *) &relay.broker, &relay.broker_len), 0);
	assert_int_equal(bind(relay.listener, (struct sockaddr *) &loopback, sizeof(loopback)), 0);
	assert_int_equal(listen(inner, 10), 0);
	assert_int_equal(listen(relay.listener, 10), 0);
	assert_int_equal(pipe(channel), 0);
	return pthread_create(&thread, NULL, run_relay, NULL);
}

static int
stop(void **state)
{
	(void) state;
	close(channel[1]);
	pthread_join(thread, NULL);
	close(channel[0]);
	close(relay.listener);
	close(inner);
	return 0;
}

static Pair
connect_pair(void)
{
	struct sockaddr_in address;
	socklen_t	len = sizeof(address);
	Pair		pair = {.client = socket(AF_INET, SOCK_STREAM, 0)};

	assert_int_equal(getsockname(relay.listener, (struct sockaddr *) &address, &len), 0);
	assert_int_equal(connect(pair.client, (struct sockaddr *) &address, len), 0);
	pair.broker = accept(inner, NULL, NULL);
	assert_true(pair.broker >= 0);
	return pair;
}

static void
put(Frame *frame, uint32_t number, int bytes)
{
	while (bytes-- > 0)
		frame->bytes[frame->size++] = number >> 8 * bytes;
	number = htonl(frame->size - 4);
	memcpy(frame->bytes, &number, 4);
}

static Frame
request(int key, int version, uint32_t id)
{
	Frame		frame = {.size = 4};

	put(&frame, key, 2);
	put(&frame, version, 2);
	put(&frame, id, 4);
	put(&frame, 1, 2);			/* the client's name */
	put(&frame, 'c', 1);
	return frame;
}

static Frame
fetch(uint32_t id, uint32_t wait_ms)
{
	Frame		frame = request(FETCH, RELAY_FETCH_VERSION, id);

	put(&frame, -1, 4);
	put(&frame, wait_ms, 4);
	put(&frame, 1, 4);			/* and more, which nobody looks at */
	return frame;
}

static Frame
answer(uint32_t id)
{
	Frame		frame = {.size = 4};

	put(&frame, id, 4);
	put(&frame, 7, 4);
	return frame;
}

/* The answer to a Fetch of one partition. */
static Frame
records(uint32_t id, int error, const char *text)
{
	Frame		frame = {.size = 4};

	put(&frame, id, 4);
	put(&frame, 0, 4);			/* throttle time */
	put(&frame, 0, 2);			/* error */
	put(&frame, 0, 4);			/* session */
	put(&frame, 1, 4);			/* topics */
	put(&frame, 1, 2);
	put(&frame, 't', 1);
	put(&frame, 1, 4);			/* partitions */
	put(&frame, 0, 4);
	put(&frame, error, 2);
	for (int i = 0; i < 6; i++)	/* three offsets */
		put(&frame, 5, 4);
	put(&frame, 0, 4);			/* aborted transactions */
	put(&frame, -1, 4);			/* replica */
	put(&frame, strlen(text), 4);
	while (*text)
		put(&frame, *text++, 1);
	return frame;
}

static void
give(int fd, Frame frame)
{
	assert_int_equal(send(fd, frame.bytes, frame.size, 0), frame.size);
}

static void
expect(int fd, Frame frame)
{
	char		bytes[sizeof(frame.bytes)];

	assert_int_equal(recv(fd, bytes, frame.size, MSG_WAITALL), frame.size);
	assert_memory_equal(bytes, frame.bytes, frame.size);
}

/* Gives at one end what comes out at the other. */
static void
carry(int from, int to, Frame frame)
{
	give(from, frame);
	expect(to, frame);
}

static void
expect_fetch(Pair pair, uint32_t id, uint32_t wait_ms)
{
	give(pair.client, fetch(id, wait_ms));
	expect(pair.broker, fetch(id, 0));
}

static void
expect_nothing(int fd)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&ready, 1, 0), 0);
}

static void
produce(Pair pair, uint32_t id)
{
	carry(pair.client, pair.broker, request(PRODUCE, 7, id));
	carry(pair.broker, pair.client, answer(id));
}

static void
let_go(Pair pair)
{
	close(pair.client);
	assert_int_equal(recv(pair.broker, &pair, 1, 0), 0);
	close(pair.broker);
}

/* The relay has seen what was given before.  It reads the connections in their order. */
static void
round_trip(Pair last)
{
	for (int i = 0; i < 2; i++)
	{
		carry(last.client, last.broker, request(METADATA, 1, 99));
		carry(last.broker, last.client, answer(99));
	}
}

static void
test_waits_until_produced(void **state)
{
	Pair		reader = connect_pair();
	Pair		producer = connect_pair();
	Pair		other = connect_pair();
	(void) state;

	for (uint32_t id = 1; id < 100; id += 2)
	{
		expect_fetch(reader, id, FOREVER_MS);
		give(reader.broker, records(id, 0, ""));
		round_trip(other);
		expect_nothing(reader.client);
		produce(producer, id);
		expect(reader.client, records(id, 0, ""));
		expect_fetch(reader, id + 1, FOREVER_MS);
		carry(reader.broker, reader.client, records(id + 1, 0, "record"));
	}
	let_go(reader);
	let_go(producer);
	let_go(other);
}

static void
test_produced_meanwhile(void **state)
{
	Pair		producer = connect_pair();
	Pair		reader = connect_pair();
	(void) state;

	/* the mock cluster has looked for records before it got some */
	expect_fetch(reader, 1, FOREVER_MS);
	produce(producer, 1);
	carry(reader.broker, reader.client, records(1, 0, ""));
	let_go(reader);
	let_go(producer);
}

static void
test_passes_at_once(void **state)
{
	Pair		reader = connect_pair();
	(void) state;

	expect_fetch(reader, 1, FOREVER_MS);
	carry(reader.broker, reader.client, records(1, 3, ""));	/* an error */
	expect_fetch(reader, 2, 0);
	carry(reader.broker, reader.client, records(2, 0, ""));
	expect_fetch(reader, 3, 1);
	carry(reader.broker, reader.client, records(3, 0, ""));
	expect_fetch(reader, 4, -1);
	carry(reader.broker, reader.client, records(4, 0, ""));

	/* behind a fetch that waits */
	expect_fetch(reader, 5, FOREVER_MS);
	give(reader.broker, records(5, 0, ""));
	carry(reader.client, reader.broker, request(METADATA, 1, 6));
	expect(reader.client, records(5, 0, ""));
	carry(reader.broker, reader.client, answer(6));

	/* a version that is left to the mock cluster */
	carry(reader.client, reader.broker, request(FETCH, 4, 7));
	carry(reader.broker, reader.client, records(7, 0, ""));
	let_go(reader);
}

static void
test_own_answers(void **state)
{
	Pair		both = connect_pair();
	Pair		other = connect_pair();
	Pair		quiet = connect_pair();
	Pair		waiting = connect_pair();
	(void) state;

	/* a client that produces and fetches is not woken by the answers to its own fetches */
	produce(both, 1);
	for (uint32_t id = 2; id < 10; id++)
	{
		expect_fetch(both, id, FOREVER_MS);
		give(both.broker, records(id, 0, ""));
		round_trip(quiet);
		expect_nothing(both.client);
		produce(other, id);
		expect(both.client, records(id, 0, ""));
	}

	/* and wakes nobody with them */
	expect_fetch(waiting, 1, FOREVER_MS);
	give(waiting.broker, records(1, 0, ""));
	expect_fetch(both, 10, FOREVER_MS);
	carry(both.broker, both.client, records(10, 0, "record"));
	round_trip(quiet);
	expect_nothing(waiting.client);
	let_go(both);
	let_go(other);
	let_go(quiet);
	let_go(waiting);
}

/* The relay's end of a client's connection: it runs in this process. */
static int
relay_end(int client)
{
	struct sockaddr_in own;
	struct sockaddr_in peer;
	socklen_t	len = sizeof(own);

	assert_int_equal(getsockname(client, (struct sockaddr *) &own, &len), 0);
	for (int fd = 0; fd < FD_SETSIZE; fd++)
	{
		len = sizeof(peer);
		if (getpeername(fd, (struct sockaddr *) &peer, &len) == 0 && peer.sin_family == AF_INET &&
			peer.sin_port == own.sin_port)
			return fd;
	}
	fail();
	return -1;
}

/*
 * Waits until nothing is unread.  With FIONREAD of the receiving socket; a Unix socket that
 * sends knows it by SIOCOUTQ.
 */
static void
await_read(int fd, unsigned long request)
{
	int			unread;

	do
	{
		sched_yield();
		assert_int_equal(ioctl(fd, request, &unread), 0);
	} while (unread > 0);
}

static void
test_bytes_one_by_one(void **state)
{
	Pair		reader = connect_pair();
	int			received = relay_end(reader.client);
	Frame		sent = fetch(1, FOREVER_MS);
	Frame		back = records(1, 0, "record");
	(void) state;

	for (size_t i = 0; i < sent.size; i++)
	{
		assert_int_equal(send(reader.client, sent.bytes + i, 1, 0), 1);
		await_read(received, FIONREAD);
	}
	expect(reader.broker, fetch(1, 0));
	for (size_t i = 0; i < back.size; i++)
	{
		assert_int_equal(send(reader.broker, back.bytes + i, 1, 0), 1);
		await_read(reader.broker, SIOCOUTQ);
	}
	expect(reader.client, back);
	let_go(reader);
}

/* More than a buffer holds, in both directions. */
static void
test_large(void **state)
{
	enum
	{
		SIZE = 300000
	};
	Pair		pair = connect_pair();
	char	   *sent = calloc(1, SIZE);
	char	   *got = calloc(1, SIZE);
	uint32_t	size = htonl(SIZE - 4);
	(void) state;

	for (int i = 14; i < SIZE; i++)
		sent[i] = i % 251;
	for (int round = 0; round < 2; round++)
	{
		int			from = round ? pair.broker : pair.client;
		int			to = round ? pair.client : pair.broker;

		if (round)				/* the bytes are also an answer to this */
			expect_fetch(pair, 0, FOREVER_MS);
		memcpy(sent, &size, 4);
		for (size_t done = 0; done < SIZE;)
		{
			ssize_t		len = send(from, sent + done, SIZE - done < 10000 ? SIZE - done : 10000, 0);

			assert_true(len > 0);
			assert_int_equal(recv(to, got + done, len, MSG_WAITALL), len);
			done += len;
		}
		assert_memory_equal(sent, got, SIZE);
	}
	free(sent);
	free(got);
	let_go(pair);
}

/* Whatever the bytes are, they come out as they went in, except for the wait of a fetch. */
static void
test_random(void **state)
{
	(void) state;
	srand(1);
	for (int round = 0; round < 3000; round++)
	{
		Pair		pair = connect_pair();
		Frame		there = request(rand() % 3, rand() % RELAY_FETCH_VERSION, round);
		Frame		back = records(round, 0, rand() % 2 ? "record" : "");

		if (rand() % 2)
			expect_fetch(pair, round, 1);
		else
			carry(pair.client, pair.broker, there);
		for (int i = rand() % 4; i > 0; i--)
			back.bytes[8 + rand() % (back.size - 8)] = rand();
		back.bytes[18 + rand() % 4] = rand() % 8 ? 0 : rand();
		carry(pair.broker, pair.client, back);
		for (int i = rand() % 40; i > 0; i--)
			there.bytes[rand() % there.size] = rand();
		(void) send(pair.client, there.bytes, there.size, MSG_NOSIGNAL);
		(void) send(pair.broker, back.bytes, rand() % back.size, MSG_NOSIGNAL);
		shutdown(rand() % 2 ? pair.client : pair.broker, SHUT_WR);
		close(pair.client);
		close(pair.broker);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits_until_produced),
		cmocka_unit_test(test_produced_meanwhile),
		cmocka_unit_test(test_passes_at_once),
		cmocka_unit_test(test_own_answers),
		cmocka_unit_test(test_bytes_one_by_one),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("relay", tests, start, stop);
}

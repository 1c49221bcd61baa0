/*
 * log.c
 *		The log is librdkafka's mock cluster.  It keeps its topics in memory, about 5 MB
 *		for each partition, and then drops the oldest records.  Clients reach it through a
 *		relay.
 *
 * The mock cluster was made for librdkafka's own tests, whose clients mean well.  Any
 * other client can end this process with one packet.  main.c and PostgreSQL's
 * background worker exist to survive that.
 */
#include "log.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay.h"

#define FETCH				1	/* of Kafka's request types */
#define TOPIC_PARTITIONS	3	/* the mock cluster would make four by itself */

/* librdkafka complains that this client has no broker; but it is one. */
static void
ignore_log(const rd_kafka_t *rk, int level, const char *facility, const char *message)
{
	(void) rk;
	(void) level;
	(void) facility;
	(void) message;
}

static rd_kafka_mock_cluster_t *
start_cluster(void)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_mock_cluster_t *cluster = NULL;
	rd_kafka_t *handle;
	char		errstr[256] = "";

	rd_kafka_conf_set_log_cb(conf, ignore_log);
	handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (handle)
		cluster = rd_kafka_mock_cluster_new(handle, 1);
	if (cluster == NULL)
	{
		fprintf(stderr, "spine-broker: could not start: %s\n", errstr);
		_exit(1);
	}
	return cluster;
}

/* The mock cluster's listening socket: this process has no other one for TCP. */
static int
find_listener(void)
{
	for (int fd = 0; fd < FD_SETSIZE; fd++)
	{
		struct sockaddr_in address;
		socklen_t	len = sizeof(address);
		int			listens = 0;
		socklen_t	listens_len = sizeof(listens);

		if (getsockname(fd, (struct sockaddr *) &address, &len) == 0 && address.sin_family == AF_INET &&
			getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_len) == 0 && listens)
			return fd;
	}
	return -1;
}

/*
 * Puts the relay between the mock cluster and its clients.  The mock cluster tells its
 * clients its own address, and has no way to say another one.  So the relay takes its
 * listening socket, and a Unix socket gets the descriptor instead.
 */
static Relay
start_relay(rd_kafka_mock_cluster_t *cluster)
{
	Relay		relay = {.broker.sun_family = AF_UNIX, .broker_len = sizeof(relay.broker)};
	int			mock_fd = find_listener();
	int			inner = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	relay.listener = dup(mock_fd);

	/* with an address that the kernel chooses, which is not in the file system */
	if (relay.listener < 0 ||
		bind(inner, (struct sockaddr *) &relay.broker, sizeof(relay.broker.sun_family)) != 0 ||
		getsockname(inner, (struct sockaddr *) &relay.broker, &relay.broker_len) != 0 ||
		listen(inner, SOMAXCONN) != 0 ||
		listen(relay.listener, SOMAXCONN) != 0 ||
		dup2(inner, mock_fd) < 0)
	{
		perror("spine-broker: relay");
		_exit(1);
	}
	close(inner);

	/* and since its thread does this, it no longer waits for clients of the other socket */
	(void) rd_kafka_mock_set_apiversion(cluster, FETCH, 0, RELAY_FETCH_VERSION);
	return relay;
}

void
serve_log(int channel, const char *cluster_id)
{
	rd_kafka_mock_cluster_t *cluster = start_cluster();
	Relay		relay = start_relay(cluster);
	char		command[512];
	char		answer[512];
	ssize_t		len;

	/* nothing is destroyed at the end, as the process ends with it */
	while (relay_until_readable(&relay, channel),
		   (len = recv(channel, command, sizeof(command) - 1, 0)) > 0)
	{
		command[len] = '\0';
		if (strncmp(command, "topic ", 6) == 0)
			(void) rd_kafka_mock_topic_create(cluster, command + 6, TOPIC_PARTITIONS, 1);
		len = snprintf(answer, sizeof(answer), "listening %s %s",
					   rd_kafka_mock_cluster_bootstraps(cluster), cluster_id);
		(void) send(channel, answer, len, MSG_NOSIGNAL);
	}
	_exit(0);
}

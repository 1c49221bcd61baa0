/*
 * log.c
 *		The log is librdkafka's mock cluster.  It keeps its topics in memory, about 5 MB
 *		for each partition, and then drops the oldest records.
 *
 * The mock cluster was made for librdkafka's own tests, whose clients mean well.  Any
 * other client can end this process with one packet.  main.c and PostgreSQL's
 * background worker exist to survive that.
 */
#include "log.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

void
serve_log(int channel, const char *cluster_id)
{
	rd_kafka_mock_cluster_t *cluster = start_cluster();
	char		command[512];
	char		answer[512];
	ssize_t		len;

	/* nothing is destroyed at the end, as the process ends with it */
	while ((len = recv(channel, command, sizeof(command) - 1, 0)) > 0)
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

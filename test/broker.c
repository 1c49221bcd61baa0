/*
 * broker.c
 *		A Kafka-protocol broker for the tests: librdkafka's mock cluster in a
 *		program of its own, so that it outlives a PostgreSQL server that is killed.
 *
 *		broker TOPIC PARTITIONS [BROKERS]
 *
 * The first broker leads all partitions.  The program prints that broker's address, and
 * serves until its standard input ends.  It reads commands there, one a line, and prints
 * "done" after each:
 *
 *		hide TOPIC		pretend that there is no such topic (otherwise a topic is created
 *						when it is asked for)
 *		show TOPIC		stop pretending so
 *		cut				cut all connections to the first broker
 *		refuse			refuse one request to read
 *		stall GROUP		let the second broker coordinate the group, and not answer the
 *						next commit to it
 *		await commit	wait until that commit has come
 *		split GROUP		let the second broker lead partition 1, and the first one coordinate
 *						the group
 *		mute			let the second broker not answer questions for offsets any more
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FETCH			1		/* of Kafka's request types */
#define LIST_OFFSETS	2
#define OFFSET_COMMIT	8

int
main(int argc, char **argv)
{
	char		errstr[256];
	char		line[300];
	rd_kafka_t *handle;
	rd_kafka_mock_cluster_t *cluster;

	if (argc != 3 && argc != 4)
	{
		fprintf(stderr, "usage: broker TOPIC PARTITIONS [BROKERS]\n");
		return 2;
	}

	handle = rd_kafka_new(RD_KAFKA_PRODUCER, NULL, errstr, sizeof(errstr));
	cluster = handle ? rd_kafka_mock_cluster_new(handle, argc == 4 ? atoi(argv[3]) : 1) : NULL;
	if (cluster == NULL)
	{
		fprintf(stderr, "could not start a mock cluster\n");
		return 1;
	}
	rd_kafka_mock_topic_create(cluster, argv[1], atoi(argv[2]), 1);
	for (int p = 0; argc == 4 && atoi(argv[3]) > 1 && p < atoi(argv[2]); p++)	/* slow */
		rd_kafka_mock_partition_set_leader(cluster, argv[1], p, 1);
	printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	fflush(stdout);

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "hide ", 5) == 0)
			rd_kafka_mock_topic_set_error(cluster, line + 5, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
		else if (strncmp(line, "show ", 5) == 0)
			rd_kafka_mock_topic_set_error(cluster, line + 5, RD_KAFKA_RESP_ERR_NO_ERROR);
		else if (strcmp(line, "cut") == 0)
		{
			rd_kafka_mock_broker_set_down(cluster, 1);
			rd_kafka_mock_broker_set_up(cluster, 1);
		}
		else if (strcmp(line, "refuse") == 0)
			rd_kafka_mock_push_request_errors(cluster, FETCH, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
		else if (strncmp(line, "stall ", 6) == 0)
		{
			rd_kafka_mock_coordinator_set(cluster, "group", line + 6, 2);
			rd_kafka_mock_broker_push_request_error_rtts(cluster, 2, OFFSET_COMMIT, 1,
														 RD_KAFKA_RESP_ERR_NO_ERROR, 600 * 1000);
		}
		else if (strcmp(line, "await commit") == 0)
		{
			size_t		stalls = 1;

			while (rd_kafka_mock_broker_error_stack_cnt(cluster, 2, OFFSET_COMMIT, &stalls) == RD_KAFKA_RESP_ERR_NO_ERROR &&
				   stalls > 0)
				usleep(10000);
		}
		else if (strncmp(line, "split ", 6) == 0)
		{
			rd_kafka_mock_partition_set_leader(cluster, argv[1], 1, 2);
			rd_kafka_mock_coordinator_set(cluster, "group", line + 6, 1);
		}
		else if (strcmp(line, "mute") == 0)
		{
			for (int i = 0; i < 1000; i++)
				rd_kafka_mock_broker_push_request_error_rtts(cluster, 2, LIST_OFFSETS, 1,
															 RD_KAFKA_RESP_ERR_NO_ERROR, 600 * 1000);
		}
		printf("done\n");
		fflush(stdout);
	}
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(handle);
	return 0;
}

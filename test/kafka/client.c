/*
 * client.c
 *		What the tests need and kcat cannot do: manage topics, use transactions, and send
 *		through a restart of the broker.
 *
 *		client BROKERS create TOPIC PARTITIONS [SETTING=VALUE...]
 *		client BROKERS grow TOPIC PARTITIONS
 *		client BROKERS delete TOPIC
 *		client BROKERS trim TOPIC PARTITION OFFSET		delete the records before it
 *		client BROKERS commit|abort TOPIC PARTITION		send the lines of standard input
 *														as records of one transaction
 *		client BROKERS group GROUP						print "topic partition offset" lines of what
 *														a consumer group has committed
 *		client BROKERS send TOPIC						send each line "key<TAB>value" once,
 *														however long the broker is away
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS		120000
#define SEND_TIMEOUT_MS	600000

static rd_kafka_t *rk;
static int	undelivered = 0;

static void
die(const char *what, const char *reason)
{
	fprintf(stderr, "client: %s: %s\n", what, reason);
	exit(1);
}

static void
die_of(const char *what, rd_kafka_error_t *error)
{
	if (error)
		die(what, rd_kafka_error_string(error));
}

static void
note_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
	(void) client;
	(void) opaque;
	if (message->err)
		undelivered++;
}

static void
start_client(const char *brokers, int transactional)
{
	char		errstr[256];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	rd_kafka_conf_set(conf, "bootstrap.servers", brokers, NULL, 0);
	rd_kafka_conf_set(conf, "enable.idempotence", "true", NULL, 0);
	rd_kafka_conf_set_dr_msg_cb(conf, note_delivery);
	if (transactional)
		rd_kafka_conf_set(conf, "transactional.id", "test", NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (rk == NULL)
		die("could not start", errstr);
}

/* The answer to an administrative request about one topic. */
static void
check_answer(const char *what, rd_kafka_queue_t *queue)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT_MS);
	const rd_kafka_topic_result_t **results = NULL;
	const rd_kafka_topic_partition_list_t *trimmed;
	size_t		n = 0;

	if (event == NULL)
		die(what, "no answer");
	if (rd_kafka_event_error(event))
		die(what, rd_kafka_event_error_string(event));

	switch (rd_kafka_event_type(event))
	{
		case RD_KAFKA_EVENT_CREATETOPICS_RESULT:
			results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
			break;
		case RD_KAFKA_EVENT_CREATEPARTITIONS_RESULT:
			results = rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(event), &n);
			break;
		case RD_KAFKA_EVENT_DELETETOPICS_RESULT:
			results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n);
			break;
		case RD_KAFKA_EVENT_DELETERECORDS_RESULT:
			trimmed = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
			if (trimmed->elems[0].err)
				die(what, rd_kafka_err2str(trimmed->elems[0].err));
			break;
		default:
			die(what, rd_kafka_event_name(event));
	}
	if (n > 0 && rd_kafka_topic_result_error(results[0]))
		die(what, rd_kafka_topic_result_error_string(results[0]));
	rd_kafka_event_destroy(event);
}

static void
administer(int argc, char **argv)
{
	const char *what = argv[2];
	const char *topic = argv[3];
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	char		errstr[256] = "usage";

	if (strcmp(what, "create") == 0 && argc >= 5)
	{
		rd_kafka_NewTopic_t *new = rd_kafka_NewTopic_new(topic, atoi(argv[4]), 1, errstr, sizeof(errstr));

		for (int i = 5; i < argc; i++)
		{
			char	   *value = strchr(argv[i], '=');

			if (value == NULL)
				die(what, argv[i]);
			*value++ = '\0';
			rd_kafka_NewTopic_set_config(new, argv[i], value);
		}
		rd_kafka_CreateTopics(rk, &new, 1, NULL, queue);
		rd_kafka_NewTopic_destroy(new);
	}
	else if (strcmp(what, "grow") == 0 && argc == 5)
	{
		rd_kafka_NewPartitions_t *new = rd_kafka_NewPartitions_new(topic, atoi(argv[4]), errstr, sizeof(errstr));

		rd_kafka_CreatePartitions(rk, &new, 1, NULL, queue);
		rd_kafka_NewPartitions_destroy(new);
	}
	else if (strcmp(what, "delete") == 0 && argc == 4)
	{
		rd_kafka_DeleteTopic_t *gone = rd_kafka_DeleteTopic_new(topic);

		rd_kafka_DeleteTopics(rk, &gone, 1, NULL, queue);
		rd_kafka_DeleteTopic_destroy(gone);
	}
	else if (strcmp(what, "trim") == 0 && argc == 6)
	{
		rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(1);
		rd_kafka_DeleteRecords_t *records;

		rd_kafka_topic_partition_list_add(before, topic, atoi(argv[4]))->offset = atoll(argv[5]);
		records = rd_kafka_DeleteRecords_new(before);
		rd_kafka_DeleteRecords(rk, &records, 1, NULL, queue);
		rd_kafka_DeleteRecords_destroy(records);
		rd_kafka_topic_partition_list_destroy(before);
	}
	else
		die(what, "unknown command, or arguments missing");

	check_answer(what, queue);
	rd_kafka_queue_destroy(queue);
}

static void
print_group(const char *group)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_ListConsumerGroupOffsets_t *request = rd_kafka_ListConsumerGroupOffsets_new(group, NULL);
	rd_kafka_event_t *event;
	const rd_kafka_group_result_t **groups;
	const rd_kafka_topic_partition_list_t *list;
	size_t		n;

	rd_kafka_ListConsumerGroupOffsets(rk, &request, 1, NULL, queue);
	event = rd_kafka_queue_poll(queue, TIMEOUT_MS);
	if (event == NULL || rd_kafka_event_error(event))
		die("group", event ? rd_kafka_event_error_string(event) : "no answer");
	groups = rd_kafka_ListConsumerGroupOffsets_result_groups(rd_kafka_event_ListConsumerGroupOffsets_result(event), &n);
	if (n != 1 || (list = rd_kafka_group_result_partitions(groups[0])) == NULL)
		die("group", "no such group");
	for (int i = 0; i < list->cnt; i++)
		printf("%s %d %lld\n", list->elems[i].topic, (int) list->elems[i].partition, (long long) list->elems[i].offset);
	rd_kafka_event_destroy(event);
	rd_kafka_ListConsumerGroupOffsets_destroy(request);
	rd_kafka_queue_destroy(queue);
}

static void
send_lines(const char *topic)
{
	char		line[4096];

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		size_t		key_len = strcspn(line, "\t");
		char	   *value = line + key_len + 1;
		rd_kafka_resp_err_t err;

		/* the queue has room again once the callbacks have run */
		while ((err = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic),
										RD_KAFKA_V_KEY(line, key_len),
										RD_KAFKA_V_VALUE(value, strcspn(value, "\n")),
										RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
										RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
			rd_kafka_poll(rk, 100);
		if (err)
			die("produce", rd_kafka_err2str(err));
		rd_kafka_poll(rk, 0);
	}
	if (rd_kafka_flush(rk, SEND_TIMEOUT_MS) || undelivered > 0)
		die("produce", "not acknowledged");
}

static void
run_transaction(const char *end, const char *topic, int partition)
{
	char		line[4096];

	die_of("init", rd_kafka_init_transactions(rk, TIMEOUT_MS));
	die_of("begin", rd_kafka_begin_transaction(rk));
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		rd_kafka_resp_err_t err = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
													RD_KAFKA_V_VALUE(line, strcspn(line, "\n")),
													RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);

		if (err)
			die("produce", rd_kafka_err2str(err));
	}
	/* otherwise an abort would drop the records before they are sent */
	if (rd_kafka_flush(rk, TIMEOUT_MS))
		die("produce", "not acknowledged");
	if (strcmp(end, "commit") == 0)
		die_of(end, rd_kafka_commit_transaction(rk, TIMEOUT_MS));
	else
		die_of(end, rd_kafka_abort_transaction(rk, TIMEOUT_MS));
}

int
main(int argc, char **argv)
{
	int			transactional;

	if (argc < 4)
		die("usage", "client BROKERS COMMAND TOPIC ...");
	transactional = strcmp(argv[2], "commit") == 0 || strcmp(argv[2], "abort") == 0;
	if (transactional && argc != 5)
		die(argv[2], "arguments missing");

	start_client(argv[1], transactional);
	if (transactional)
		run_transaction(argv[2], argv[3], atoi(argv[4]));
	else if (strcmp(argv[2], "send") == 0)
		send_lines(argv[3]);
	else if (strcmp(argv[2], "group") == 0)
		print_group(argv[3]);
	else
		administer(argc, argv);
	rd_kafka_destroy(rk);
	return 0;
}

/*
 * load.c
 *		The load of the benchmark: makes order events, sends them at full speed or
 *		at a steady rate, and watches how long a plain consumer waits for them.
 *
 *		load BROKERS create TOPIC PARTITIONS
 *		load BROKERS trim TOPIC PARTITIONS	deletes all records but the last of each partition
 *		load BROKERS fill TOPIC EVENTS PARTITIONS TENANTS ORDERS SEED
 *		load BROKERS pace TOPIC EVENTS PARTITIONS TENANTS ORDERS SEED RATE
 *		load BROKERS blast TOPIC EVENTS		sends as spine_produce does: one tenant, the
 *											same settings; the events are made before the
 *											clock starts
 *		load BROKERS watch TOPIC PARTITIONS	says "ready"; then reads until its input ends,
 *											and prints the microseconds from each event's
 *											event_time to its arrival
 *		load - lines EVENTS					what blast sends, as "key<TAB>value"
 *
 * Events look like those of spine_produce.  Those of tenant i go to partition
 * i % PARTITIONS, so that all partitions have the same share.  ORDERS is the
 * number of orders of each tenant.
 */
#include <librdkafka/rdkafka.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS			60000
#define EVENT_SIZE			256
#define BLAST_ORDERS		100000	/* as spine_produce has */
#define WATCH_CHUNK			1000

/* Events that are due so soon are sent at once, so that a high rate does not cost a core. */
#define TICK_US		200

typedef struct Keyspace
{
	int			partitions;
	int			tenants;
	int			orders;
} Keyspace;

static rd_kafka_t *rk;
static int	undelivered = 0;
static uint64_t random_state;

static const char *const event_types[] = {
	"order_placed", "order_placed", "order_placed", "order_placed", "order_placed",
	"order_paid", "order_paid", "order_paid", "order_paid",
	"order_shipped", "order_shipped", "order_shipped",
	"order_cancelled"
};

static void
die(const char *what, const char *reason)
{
	fprintf(stderr, "load: %s: %s\n", what, reason);
	exit(1);
}

static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

static double
cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* splitmix64 (Sebastiano Vigna, https://prng.di.unimi.it, public domain) */
static uint64_t
draw(void)
{
	uint64_t	z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static size_t
make_event(char *buf, const char *tenant, int orders, int64_t time_us)
{
	static time_t written_second = -1;
	static char second[32];
	uint64_t	high = draw();
	uint64_t	low = draw();
	uint64_t	dice = draw();
	time_t		unix_second = time_us / 1000000;

	if (unix_second != written_second)
	{
		struct tm	tm;

		gmtime_r(&unix_second, &tm);
		strftime(second, sizeof(second), "%Y-%m-%dT%H:%M:%S", &tm);
		written_second = unix_second;
	}
	return snprintf(buf, EVENT_SIZE,
					"{\"event_id\":\"%08x-%04x-4%03x-%04x-%012llx\",\"tenant\":\"%s\","
					"\"event_type\":\"%s\",\"order_id\":\"ord-%u\",\"amount_cents\":%u,"
					"\"event_time\":\"%s.%06dZ\"}",
					(unsigned) (high >> 32), (unsigned) (high >> 16) & 0xffff, (unsigned) high & 0xfff,
					0x8000 | ((unsigned) (low >> 48) & 0x3fff),
					(unsigned long long) (low & UINT64_C(0xffffffffffff)), tenant,
					event_types[dice % 13], 1 + (unsigned) ((dice >> 8) % orders),
					500 + (unsigned) ((dice >> 40) % 49501), second, (int) (time_us % 1000000));
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
set_option(rd_kafka_conf_t *conf, const char *key, const char *value)
{
	char		errstr[256];

	if (rd_kafka_conf_set(conf, key, value, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
		die(key, errstr);
}

static void
start_client(rd_kafka_type_t type, rd_kafka_conf_t *conf, const char *brokers)
{
	char		errstr[256];

	set_option(conf, "bootstrap.servers", brokers);
	set_option(conf, "socket.nagle.disable", "true");
	set_option(conf, "log_level", "3");		/* do not report that a new Kafka is not quite ready */
	rk = rd_kafka_new(type, conf, errstr, sizeof(errstr));
	if (rk == NULL)
		die("could not start", errstr);
}

/* The settings of spine's producers; linger differs. */
static void
start_producer(const char *brokers, const char *linger_ms)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	set_option(conf, "enable.idempotence", "true");
	set_option(conf, "compression.type", "lz4");
	set_option(conf, "partitioner", "murmur2_random");
	set_option(conf, "linger.ms", linger_ms);
	rd_kafka_conf_set_dr_msg_cb(conf, note_delivery);
	start_client(RD_KAFKA_PRODUCER, conf, brokers);
}

static void
create(const char *topic, int partitions)
{
	char		errstr[256];
	rd_kafka_NewTopic_t *new = rd_kafka_NewTopic_new(topic, partitions, 1, errstr, sizeof(errstr));
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	const rd_kafka_topic_result_t **results;
	rd_kafka_event_t *event;
	size_t		n;

	if (new == NULL)
		die(topic, errstr);
	/* so that what is trimmed leaves the disk */
	rd_kafka_NewTopic_set_config(new, "segment.bytes", "67108864");
	rd_kafka_NewTopic_set_config(new, "file.delete.delay.ms", "1000");
	rd_kafka_CreateTopics(rk, &new, 1, NULL, queue);
	rd_kafka_NewTopic_destroy(new);
	event = rd_kafka_queue_poll(queue, TIMEOUT_MS);
	if (event == NULL)
		die(topic, "no answer");
	if (rd_kafka_event_error(event))
		die(topic, rd_kafka_event_error_string(event));
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	if (rd_kafka_topic_result_error(results[0]))
		die(topic, rd_kafka_topic_result_error_string(results[0]));
	rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
}

/* The last record stays: spine reads it again, to see that it is the same log. */
static void
trim(const char *topic, int partitions)
{
	rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(partitions);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_DeleteRecords_t *request;
	rd_kafka_event_t *event;

	for (int i = 0; i < partitions; i++)
	{
		int64_t		low,
					high;
		rd_kafka_resp_err_t err = rd_kafka_query_watermark_offsets(rk, topic, i, &low, &high, TIMEOUT_MS);

		if (err)
			die(topic, rd_kafka_err2str(err));
		if (high - 1 > low)
			rd_kafka_topic_partition_list_add(before, topic, i)->offset = high - 1;
	}
	request = rd_kafka_DeleteRecords_new(before);
	rd_kafka_topic_partition_list_destroy(before);
	rd_kafka_DeleteRecords(rk, &request, 1, NULL, queue);
	rd_kafka_DeleteRecords_destroy(request);
	event = rd_kafka_queue_poll(queue, TIMEOUT_MS);
	if (event == NULL)
		die(topic, "no answer");
	if (rd_kafka_event_error(event))
		die(topic, rd_kafka_event_error_string(event));
	rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
}

/*
 * partition -1: by the key.  When the client's queue is full, only its delivery
 * reports make room, so RD_KAFKA_MSG_F_BLOCK would wait for ever.
 */
static void
send_record(const char *topic, int partition, const char *key, const char *value, size_t len)
{
	rd_kafka_resp_err_t err;

	while ((err = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
									RD_KAFKA_V_KEY(key, strlen(key)), RD_KAFKA_V_VALUE((void *) value, len),
									RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
									RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		rd_kafka_poll(rk, 10);
	if (err)
		die(topic, rd_kafka_err2str(err));
}

static void
await_delivery(const char *topic)
{
	if (rd_kafka_flush(rk, 10 * TIMEOUT_MS) || undelivered > 0)
		die(topic, "not acknowledged");
}

static void
send_one(const char *topic, const Keyspace *keys, int64_t time_us)
{
	char		value[EVENT_SIZE];
	char		tenant[32];
	int			i = draw() % keys->tenants;

	snprintf(tenant, sizeof(tenant), "tenant-%03d", i);
	send_record(topic, i % keys->partitions, tenant, value, make_event(value, tenant, keys->orders, time_us));
}

/* A backlog: no two events have the same time, and no time is in the future. */
static void
fill(const char *topic, const Keyspace *keys, int64_t n)
{
	int64_t		start_us = now_us() - n;

	for (int64_t i = 0; i < n; i++)
	{
		send_one(topic, keys, start_us + i);
		if (i % 1000 == 0)
			rd_kafka_poll(rk, 0);
	}
	await_delivery(topic);
}

/*
 * Event i is due at i / rate.  Its event_time is the time when it is sent.  The
 * longest delay after the due time is printed, because an overload of the generator
 * must not count as anybody's latency.
 */
static void
pace(const char *topic, const Keyspace *keys, int64_t n, double rate)
{
	int64_t		start_us = now_us();
	int64_t		latest_us = 0;

	for (int64_t i = 0; i < n; i++)
	{
		int64_t		due_us = start_us + (int64_t) (i * 1e6 / rate);
		int64_t		early_us = due_us - now_us();

		if (early_us > TICK_US)
		{
			rd_kafka_poll(rk, 0);
			usleep(early_us);
		}
		send_one(topic, keys, now_us());
		if (now_us() - due_us > latest_us)
			latest_us = now_us() - due_us;
	}
	await_delivery(topic);
	printf("{\"sent\": %lld, \"seconds\": %.3f, \"latest_ms\": %.3f}\n", (long long) n,
		   (now_us() - start_us) / 1e6, latest_us / 1e3);
}

/* The first event makes the connection, before the clock starts. */
static void
blast(const char *topic, int64_t n)
{
	char	   *values = malloc(n * EVENT_SIZE);
	size_t	   *lens = malloc(n * sizeof(size_t));
	int64_t		start_us;
	double		cpu;

	if (values == NULL || lens == NULL || n < 1)
		die(topic, "too many events, or none");
	for (int64_t i = 0; i < n; i++)
		lens[i] = make_event(values + i * EVENT_SIZE, "acme", BLAST_ORDERS, now_us());
	send_record(topic, RD_KAFKA_PARTITION_UA, "acme", values, lens[0]);
	await_delivery(topic);

	start_us = now_us();
	cpu = cpu_seconds();
	for (int64_t i = 0; i < n; i++)
	{
		send_record(topic, RD_KAFKA_PARTITION_UA, "acme", values + i * EVENT_SIZE, lens[i]);
		if (i % 1000 == 0)
			rd_kafka_poll(rk, 0);
	}
	await_delivery(topic);
	printf("{\"events\": %lld, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", (long long) n,
		   (now_us() - start_us) / 1e6, cpu_seconds() - cpu);
	free(values);
	free(lens);
}

static void
print_lines(int64_t n)
{
	char		value[EVENT_SIZE];

	for (int64_t i = 0; i < n; i++)
	{
		make_event(value, "acme", BLAST_ORDERS, now_us());
		printf("acme\t%s\n", value);
	}
}

/* The event_time is at the end: "2026-01-02T03:04:05.678901Z"} */
static int64_t
event_time_us(const char *value, size_t len)
{
	struct tm	tm = {0};
	int			us;

	if (len < 30 || sscanf(value + len - 29, "%d-%d-%dT%d:%d:%d.%d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
						   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &us) != 7)
		die("watch", "not an event of ours");
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	return timegm(&tm) * INT64_C(1000000) + us;
}

static int
input_has_ended(void)
{
	struct pollfd input = {STDIN_FILENO, POLLIN, 0};
	char		c;

	return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, &c, 1) <= 0;
}

static void
watch(const char *brokers, const char *topic, int partitions)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
	rd_kafka_queue_t *queue;
	int			at_end = 0;

	set_option(conf, "group.id", "watch");
	set_option(conf, "enable.auto.commit", "false");
	set_option(conf, "enable.partition.eof", "true");
	start_client(RD_KAFKA_CONSUMER, conf, brokers);
	for (int i = 0; i < partitions; i++)
		rd_kafka_topic_partition_list_add(list, topic, i)->offset = RD_KAFKA_OFFSET_END;
	rd_kafka_assign(rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_poll_set_consumer(rk);
	queue = rd_kafka_queue_get_consumer(rk);

	while (!input_has_ended())
	{
		rd_kafka_message_t *messages[WATCH_CHUNK];
		rd_kafka_message_t *first = rd_kafka_consumer_poll(rk, 100);
		ssize_t		n = 0;
		int64_t		now;

		if (first == NULL)
			continue;
		messages[0] = first;
		n = 1 + rd_kafka_consume_batch_queue(queue, 0, messages + 1, WATCH_CHUNK - 1);
		now = now_us();
		for (ssize_t i = 0; i < n; i++)
		{
			if (messages[i]->err == RD_KAFKA_RESP_ERR_NO_ERROR)
				printf("%lld\n", (long long) (now - event_time_us(messages[i]->payload, messages[i]->len)));
			else if (messages[i]->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
				die("watch", rd_kafka_message_errstr(messages[i]));
			else if (++at_end == partitions)
				puts("ready");
			rd_kafka_message_destroy(messages[i]);
		}
		fflush(stdout);			/* the reader counts the lines */
	}
	rd_kafka_queue_destroy(queue);
}

int
main(int argc, char **argv)
{
	const char *command = argc > 2 ? argv[2] : "";
	const char *topic = argc > 3 ? argv[3] : "";
	int64_t		events = argc > 4 ? atoll(argv[4]) : 0;
	Keyspace	keys = {0};

	if (argc >= 9)
	{
		keys = (Keyspace) {atoi(argv[5]), atoi(argv[6]), atoi(argv[7])};
		random_state = strtoull(argv[8], NULL, 10);
	}
	else
		random_state = now_us();

	if (strcmp(command, "lines") == 0 && argc == 4)
		print_lines(atoll(argv[3]));
	else if (strcmp(command, "watch") == 0 && argc == 5)
		watch(argv[1], topic, atoi(argv[4]));
	else if (strcmp(command, "create") == 0 && argc == 5)
	{
		start_producer(argv[1], "0");
		create(topic, atoi(argv[4]));
	}
	else if (strcmp(command, "trim") == 0 && argc == 5)
	{
		start_producer(argv[1], "0");
		trim(topic, atoi(argv[4]));
	}
	else if (strcmp(command, "fill") == 0 && argc == 9)
	{
		start_producer(argv[1], "100");
		fill(topic, &keys, events);
	}
	else if (strcmp(command, "pace") == 0 && argc == 10)
	{
		start_producer(argv[1], "0.5");	/* or 20,000 packets a second would be most of the machine's work */
		pace(topic, &keys, events, atof(argv[9]));
	}
	else if (strcmp(command, "blast") == 0 && argc == 5)
	{
		start_producer(argv[1], "2");
		blast(topic, events);
	}
	else
		die("usage", "see the head of load.c");
	if (rk)
		rd_kafka_destroy(rk);
	return 0;
}

/*
 * order_sender.c
 *		Sends synthetic events through a client and counts their delivery
 *		reports.  Used by spine_produce and by the producer worker.
 */
#include "compat.h"

#include "orders/backpressure.h"
#include "process/counters.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "process/settings.h"
#include "orders/order_sender.h"
#include "kafka/client_cache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What a record takes at the broker besides its key and value. */
#define RECORD_OVERHEAD		40

/* How long a new client is given to find the broker. */
#define FIRST_CONTACT_MS	1000

/* How long the embedded broker may take to say where its log ends. */
#define LEARN_MS			10000

/* Events on their way at a time: enough to keep a broker busy. */
#define MAX_IN_FLIGHT		20000

/* Room at the embedded broker is reserved for many events at a time. */
#define RESERVE_BYTES		(64 * 1024)

/*
 * What this process has reserved at the embedded broker, and how much of that
 * is not used yet.  Given back when the client goes, since its reports will
 * never come.
 */
static int64 reserved_bytes = 0;
static int64 unused_bytes = 0;

static bool
reserve(int64 bytes)
{
	if (unused_bytes < bytes)
	{
		int64		more = Max(bytes, RESERVE_BYTES);

		if (!spine_backpressure_reserve(more))
			return false;
		reserved_bytes += more;
		unused_bytes += more;
	}
	unused_bytes -= bytes;
	return true;
}

static void
release(int64 bytes)
{
	spine_backpressure_release(bytes);
	reserved_bytes -= bytes;
}

/* Gives back all that is reserved: the delivery is over, or the client goes. */
static void
release_reservation(void *owner)
{
	unused_bytes = 0;
	release(reserved_bytes);
}

void
spine_tenant_init(SpineTenant *tenant, const char *utf8_name)
{
	char	   *literal;

	tenant->len = strlen(utf8_name);
	if (tenant->len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tenant must not be empty")));
	if (tenant->len > SPINE_MAX_TENANT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tenant is too long"),
				 errdetail("It has %zu bytes; %d are allowed.", tenant->len, SPINE_MAX_TENANT_BYTES)));
	if (!pg_verify_mbstr(PG_UTF8, utf8_name, tenant->len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("tenant is not valid UTF-8")));

	literal = spine_generate_tenant_literal(utf8_name, tenant->len);
	if (literal == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	tenant->name = pstrdup(utf8_name);
	tenant->literal = pstrdup(literal);
	tenant->message_size = strlen(literal) + 256;
	free(literal);
}

void
spine_delivery_begin(SpineDelivery *delivery, SpineClient *client, const char *topic)
{
	static uint64 last_id = 0;
	uint64		seed;

	if (!pg_strong_random(&seed, sizeof(seed)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));

	memset(delivery, 0, sizeof(*delivery));
	delivery->client = client;
	delivery->topic = topic;
	delivery->id = ++last_id;
	delivery->buffer_size = SPINE_MAX_TENANT_BYTES * 6 + 512; /* every byte escaped */
	delivery->buffer = palloc(delivery->buffer_size);
	spine_random_seed(&delivery->random, seed);
	client->before_release = release_reservation;

	/*
	 * The library asks for a topic's partitions as the first record is sent,
	 * and if it is not connected by then, only a second later.  So ask now.
	 * A broker that does not answer is found out by the delivery itself.
	 */
	if (client->topic == NULL || strcmp(rd_kafka_topic_name(client->topic), topic) != 0)
		(void) spine_client_count_partitions(client, topic, FIRST_CONTACT_MS);
	if (!spine_backpressure_learn(client, topic, LEARN_MS))
		spine_client_raise_error(client);
}

bool
spine_delivery_send(SpineDelivery *delivery, const SpineTenant *tenant)
{
	int64		unix_time_us = GetCurrentTimestamp() +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	size_t		len;
	int64		bytes;
	rd_kafka_resp_err_t err;

	if (delivery->sent - delivery->acknowledged - delivery->failed >= MAX_IN_FLIGHT)
		return false;

	len = spine_generate_event(&delivery->random, tenant->literal, unix_time_us,
							   delivery->buffer, delivery->buffer_size);
	bytes = len + tenant->len + RECORD_OVERHEAD;
	if (!reserve(bytes))
		return false;

	err = rd_kafka_producev(delivery->client->rk,
							RD_KAFKA_V_TOPIC(delivery->topic),
							RD_KAFKA_V_KEY(tenant->name, tenant->len),
							RD_KAFKA_V_VALUE(delivery->buffer, len),
							RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
							RD_KAFKA_V_OPAQUE((void *) (uintptr_t) delivery->id),
							RD_KAFKA_V_END);
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		delivery->sent++;
		return true;
	}

	unused_bytes += bytes;
	if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not send to topic \"%s\": %s", delivery->topic,
						rd_kafka_err2str(err))));
	return false;
}

static void
count_report(SpineDelivery *delivery, const rd_kafka_message_t *message)
{
	int64		bytes = message->len + message->key_len + RECORD_OVERHEAD;

	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		spine_backpressure_acknowledged(delivery->client, rd_kafka_topic_name(message->rkt),
										message->partition, message->offset, bytes);

	/* of an earlier delivery, which has given back what it had reserved */
	if ((uint64) (uintptr_t) message->_private != delivery->id)
		return;

	release(bytes);
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		delivery->acknowledged++;
	else if (delivery->failed++ == 0)
		strlcpy(delivery->error, rd_kafka_err2str(message->err), sizeof(delivery->error));
}

static bool
have_same_key(const rd_kafka_message_t *a, const rd_kafka_message_t *b)
{
	return a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0;
}

/* Counts each report, and what was acknowledged by tenant, run by run. */
static void
count_reports(SpineDelivery *delivery, rd_kafka_event_t *event)
{
	const rd_kafka_message_t *message;
	const rd_kafka_message_t *last = NULL;	/* acknowledged; its key is the tenant */
	int64		run_length = 0;

	while ((message = rd_kafka_event_message_next(event)) != NULL)
	{
		count_report(delivery, message);
		if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
			continue;
		if (last && !have_same_key(last, message))
		{
			spine_count_produced(last->key, last->key_len, run_length);
			run_length = 0;
		}
		last = message;
		run_length++;
	}
	if (last)
		spine_count_produced(last->key, last->key_len, run_length);
}

void
spine_delivery_poll(SpineDelivery *delivery)
{
	rd_kafka_event_t *event;

	spine_client_drain_wakeups(delivery->client);
	while ((event = rd_kafka_queue_poll(delivery->client->queue, 0)) != NULL)
	{
		switch (rd_kafka_event_type(event))
		{
			case RD_KAFKA_EVENT_DR:
				count_reports(delivery, event);
				break;
			case RD_KAFKA_EVENT_ERROR:
				spine_client_note_error(delivery->client, rd_kafka_event_error(event),
										rd_kafka_event_error_string(event));
				break;
			default:
				break;
		}
		rd_kafka_event_destroy(event);
	}
}

void
spine_delivery_end(SpineDelivery *delivery)
{
	/* never waits; what is dropped is reported like any other failure */
	if (delivery->acknowledged < delivery->sent)
		rd_kafka_purge(delivery->client->rk,
					   RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING);
	spine_delivery_poll(delivery);
	release_reservation(NULL);
}

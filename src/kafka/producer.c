/*
 * producer.c
 *		Sends records and hands out their delivery reports.
 *
 * The library delivers reports in events, each with those of many records.  The event
 * whose reports are being handed out belongs to the client, which releases it if
 * nobody asks for the rest.
 */
#include "kafka/producer.h"

#include "kafka/library.h"

void
spine_producer_prepare(SpineClient *client, const char *topic, int timeout_ms)
{
	if (client->topic == NULL || strcmp(rd_kafka_topic_name(client->topic), topic) != 0)
		(void) spine_client_count_partitions(client, topic, timeout_ms);
}

/* NULL: there are none. */
static rd_kafka_headers_t *
make_headers(const SpineMessage *message)
{
	rd_kafka_headers_t *headers = message->nheaders > 0 ? rd_kafka_headers_new(message->nheaders) : NULL;

	for (int i = 0; i < message->nheaders; i++)
		(void) rd_kafka_header_add(headers, message->headers[i].name, -1, message->headers[i].value,
								   message->headers[i].value_len);
	return headers;
}

bool
spine_producer_send(SpineClient *client, const SpineMessage *message)
{
	rd_kafka_headers_t *headers = make_headers(message);
	rd_kafka_resp_err_t err;

	err = rd_kafka_producev(client->rk,
							RD_KAFKA_V_TOPIC(message->topic),
							RD_KAFKA_V_PARTITION(message->partition < 0 ? RD_KAFKA_PARTITION_UA : message->partition),
							RD_KAFKA_V_KEY(message->key, message->key_len),
							RD_KAFKA_V_VALUE((void *) message->value, message->value_len),
							RD_KAFKA_V_HEADERS(headers),
							RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
							RD_KAFKA_V_OPAQUE((void *) (uintptr_t) message->tag),
							RD_KAFKA_V_END);

	/* the library has taken the headers if it has taken the record */
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR && headers)
		rd_kafka_headers_destroy(headers);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR && err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not send to topic \"%s\": %s", message->topic, rd_kafka_err2str(err))));
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* The next event with reports becomes the client's.  False: there is none. */
static bool
next_reports(SpineClient *client)
{
	if (client->reports)
		rd_kafka_event_destroy(client->reports);
	while ((client->reports = rd_kafka_queue_poll(client->queue, 0)) != NULL)
	{
		if (rd_kafka_event_type(client->reports) == RD_KAFKA_EVENT_DR)
			return true;
		if (rd_kafka_event_type(client->reports) == RD_KAFKA_EVENT_ERROR)
			spine_client_note_error(client, rd_kafka_event_error(client->reports),
									rd_kafka_event_error_string(client->reports));
		rd_kafka_event_destroy(client->reports);
	}
	return false;
}

bool
spine_producer_poll(SpineClient *client, SpineReport *report)
{
	const rd_kafka_message_t *message;

	if (client->reports == NULL)
		spine_client_drain_wakeups(client);
	while (client->reports == NULL || (message = rd_kafka_event_message_next(client->reports)) == NULL)
	{
		if (!next_reports(client))
			return false;
	}

	report->error = message->err == RD_KAFKA_RESP_ERR_NO_ERROR ? NULL : rd_kafka_err2str(message->err);
	report->is_purged = message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE;
	report->tag = (uintptr_t) message->_private;
	report->topic = rd_kafka_topic_name(message->rkt);
	report->partition = message->partition;
	report->offset = message->offset;
	report->key = message->key;
	report->key_len = message->key_len;
	report->value_len = message->len;
	return true;
}

void
spine_producer_purge(SpineClient *client)
{
	(void) rd_kafka_purge(client->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

bool
spine_producer_is_broken(const SpineClient *client)
{
	return rd_kafka_fatal_error(client->rk, NULL, 0) != RD_KAFKA_RESP_ERR_NO_ERROR;
}

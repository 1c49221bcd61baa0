/*
 * send.c
 *		spine_send: one record to a topic, and where it is in the log.
 *
 * What is sent is not part of the transaction: a ROLLBACK does not take it back.  When the
 * call is cancelled, the record may still arrive.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "kafka/client_cache.h"
#include "kafka/producer.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "process/server_cluster.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(spine_send_text);
PG_FUNCTION_INFO_V1(spine_send_jsonb);
PG_FUNCTION_INFO_V1(spine_send_bytea);

/* How long the broker may take to tell of a topic that the client does not know yet. */
#define PREPARE_MS		1000

/* Tags of the records that are sent here: the tags of other code do not have this bit. */
#define OWN_TAG			(UINT64CONST(1) << 62)

/* Kafka's texts are UTF-8. */
static char *
to_utf8(char *text, size_t len, size_t *utf8_len)
{
	char	   *utf8 = pg_server_to_any(text, len, PG_UTF8);

	*utf8_len = utf8 == text ? len : strlen(utf8);
	return utf8;
}

static const void *
text_argument(text *value, size_t *len)
{
	return to_utf8(text_to_cstring(value), VARSIZE_ANY_EXHDR(value), len);
}

/* A member of the object `headers`: a text as it is, anything else as JSON. */
static SpineHeader
make_header(JsonbValue *name, JsonbValue *value)
{
	SpineHeader header = {0};
	size_t		len;

	header.name = to_utf8(pnstrdup(name->val.string.val, name->val.string.len), name->val.string.len, &len);
	if (value->type == jbvString)
		header.value = to_utf8(pnstrdup(value->val.string.val, value->val.string.len), value->val.string.len,
							   &header.value_len);
	else if (value->type != jbvNull)
	{
		Jsonb	   *json = JsonbValueToJsonb(value);
		char	   *text = JsonbToCString(NULL, &json->root, VARSIZE(json));

		header.value = to_utf8(text, strlen(text), &header.value_len);
	}
	return header;
}

static void
set_headers(SpineMessage *message, Jsonb *json)
{
	SpineHeader *headers;
	JsonbIterator *iterator;
	JsonbValue	name;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers must be a JSON object"),
				 errhint("For example '{\"trace-id\": \"4711\"}'.")));
	headers = palloc0(Max(JB_ROOT_COUNT(json), 1) * sizeof(SpineHeader));
	iterator = JsonbIteratorInit(&json->root);
	(void) JsonbIteratorNext(&iterator, &name, true);	/* the object itself */
	while (JsonbIteratorNext(&iterator, &name, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		headers[message->nheaders++] = make_header(&name, &value);
	}
	message->headers = headers;
}

/* All that the arguments say, except key and value. */
static SpineMessage
message_argument(FunctionCallInfo fcinfo)
{
	SpineMessage message = {.partition = -1};

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("topic must not be null")));
	message.topic = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(3))
		set_headers(&message, PG_GETARG_JSONB_P(3));
	if (!PG_ARGISNULL(4))
		message.partition = PG_GETARG_INT32(4);
	if (!PG_ARGISNULL(4) && message.partition < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition must not be negative")));
	return message;
}

/* A client that has met a fatal error would refuse this record, too. */
static SpineClient *
get_client(const SpineCluster *cluster)
{
	SpineClient *client = spine_client_cache_get(cluster);

	if (!spine_producer_is_broken(client))
		return client;
	spine_client_cache_close(client);
	return spine_client_cache_get(cluster);
}

/* Sends the record, and waits until the broker has acknowledged it. */
static SpineReport
deliver(SpineClient *client, SpineMessage *message)
{
	static uint64 last_tag = OWN_TAG;
	SpineReport report;
	bool		is_sent = false;

	message->tag = ++last_tag;
	spine_producer_prepare(client, message->topic, PREPARE_MS);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!is_sent)
			is_sent = spine_producer_send(client, message);
		while (spine_producer_poll(client, &report))
		{
			if (report.tag == message->tag)
				return report;
		}
		spine_client_wait(client, 100);
	}
}

/* The record's place in the log, as a spine_token. */
static Datum
send_message(FunctionCallInfo fcinfo, SpineMessage *message)
{
	SpineCluster cluster = spine_server_cluster_await(PG_ARGISNULL(5) ? NULL : NameStr(*PG_GETARG_NAME(5)),
													  GetUserId());
	SpineClient *client = get_client(&cluster);
	SpineReport report = deliver(client, message);
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false};

	if (report.error)
	{
		const SpineError *trouble = spine_client_error(client);

		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not send to topic \"%s\": %s", message->topic, report.error),
				 trouble->class == SPINE_NO_ERROR ? 0 : errdetail("The last trouble: %s", trouble->message),
				 errhint("%s", spine_client_advice(client))));
	}
	spine_client_cache_rest(client);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(message->topic);
	values[1] = Int32GetDatum(report.partition);
	values[2] = Int64GetDatum(report.offset);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
spine_send_text(PG_FUNCTION_ARGS)
{
	SpineMessage message = message_argument(fcinfo);

	if (!PG_ARGISNULL(1))
		message.key = text_argument(PG_GETARG_TEXT_PP(1), &message.key_len);
	if (!PG_ARGISNULL(2))
		message.value = text_argument(PG_GETARG_TEXT_PP(2), &message.value_len);
	return send_message(fcinfo, &message);
}

Datum
spine_send_jsonb(PG_FUNCTION_ARGS)
{
	SpineMessage message = message_argument(fcinfo);

	if (!PG_ARGISNULL(1))
		message.key = text_argument(PG_GETARG_TEXT_PP(1), &message.key_len);
	if (!PG_ARGISNULL(2))
	{
		Jsonb	   *json = PG_GETARG_JSONB_P(2);
		char	   *text = JsonbToCString(NULL, &json->root, VARSIZE(json));

		message.value = to_utf8(text, strlen(text), &message.value_len);
	}
	return send_message(fcinfo, &message);
}

Datum
spine_send_bytea(PG_FUNCTION_ARGS)
{
	SpineMessage message = message_argument(fcinfo);

	if (!PG_ARGISNULL(1))
	{
		bytea	   *key = PG_GETARG_BYTEA_PP(1);

		message.key = VARDATA_ANY(key);
		message.key_len = VARSIZE_ANY_EXHDR(key);
	}
	if (!PG_ARGISNULL(2))
	{
		bytea	   *value = PG_GETARG_BYTEA_PP(2);

		message.value = VARDATA_ANY(value);
		message.value_len = VARSIZE_ANY_EXHDR(value);
	}
	return send_message(fcinfo, &message);
}

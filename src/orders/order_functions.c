/*
 * order_functions.c
 *		The SQL functions that make order events: spine_produce and spine_make_event.
 *
 * What is sent is not part of the transaction: a ROLLBACK does not take it
 * back.
 */
#include "orders/order_sender.h"

#include "catalog/pipeline.h"
#include "fmgr.h"
#include "kafka/client_cache.h"
#include "kafka/producer.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "process/server_cluster.h"
#include "process/shared.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(spine_produce);
PG_FUNCTION_INFO_V1(spine_make_event);

/* How long the embedded broker may be full before that is an error. */
#define STANDSTILL_MS	30000

static char *
tenant_argument(FunctionCallInfo fcinfo)
{
	text	   *tenant;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("tenant must not be null")));
	tenant = PG_GETARG_TEXT_PP(0);
	return pg_server_to_any(text_to_cstring(tenant), VARSIZE_ANY_EXHDR(tenant), PG_UTF8);
}

/* Says in any error, a cancellation too, how far the delivery came. */
static void
deliver_error_context(void *arg)
{
	const SpineOrderSender *sender = arg;

	errcontext("spine_produce: the broker has acknowledged " INT64_FORMAT " events",
			   sender->acknowledged);
}

static void
report_failure(const SpineOrderSender *sender, int64 wanted)
{
	const SpineError *trouble = spine_client_error(sender->client);

	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not deliver all events: %s", sender->error),
			 errdetail(INT64_FORMAT " of " INT64_FORMAT " events were acknowledged by the broker.%s%s",
					   sender->acknowledged, wanted,
					   trouble->class == SPINE_NO_ERROR ? "" : " The last trouble: ", trouble->message),
			 errhint("%s", spine_client_advice(sender->client))));
}

/*
 * The embedded broker is full: nothing of ours is on its way, and the workers
 * have not made room.  They may only be busy.
 */
static void
wait_for_workers(TimestampTz full_since)
{
	if (TimestampDifferenceExceeds(full_since, GetCurrentTimestamp(), STANDSTILL_MS))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("the embedded broker is full, and nothing was applied for %d seconds",
						STANDSTILL_MS / 1000),
				 errdetail("It keeps a few megabytes in memory, until the pipelines that read the topic have applied them."),
				 errhint("See spine_status for what keeps the workers, or set \"spine.brokers\".")));

	(void) ConditionVariableTimedSleep(&spine_shared->progress, 1000, PG_WAIT_EXTENSION);
}

/* Sends n events and waits for their reports. */
static void
deliver(SpineOrderSender *sender, const SpineTenant *tenant, int64 n)
{
	TimestampTz moved_at = GetCurrentTimestamp();
	int64		moved_to = 0;

	while (sender->acknowledged < n)
	{
		bool		room = true;

		CHECK_FOR_INTERRUPTS();
		spine_order_sender_poll(sender);
		if (sender->failed > 0)
			report_failure(sender, n);

		for (int i = 0; i < 1000 && room && sender->sent < n; i++)
			room = spine_order_sender_send(sender, tenant);

		if (sender->sent != moved_to)
		{
			moved_to = sender->sent;
			moved_at = GetCurrentTimestamp();
		}
		if (sender->acknowledged < sender->sent && (!room || sender->sent == n))
		{
			/*
			 * A broadcast while we wait here would take us off the condition
			 * variable's list, and wait_for_workers would miss the next one.
			 */
			ConditionVariableCancelSleep();
			spine_client_wait(sender->client, 100);
		}
		else if (!room)
			wait_for_workers(moved_at);
	}
}

/*
 * Returns how many events the broker has acknowledged: all of them.  server: NULL for the
 * default cluster.
 */
static int64
produce(const SpineTenant *tenant, int64 n, const char *server)
{
	SpineCluster cluster = spine_server_cluster_await(server, GetUserId());
	SpineOrderSender sender;
	ErrorContextCallback callback = {error_context_stack, deliver_error_context, &sender};

	spine_order_sender_begin(&sender, spine_client_cache_get(&cluster), pstrdup(spine_topic));

	error_context_stack = &callback;
	PG_TRY();
	{
		deliver(&sender, tenant, n);
	}
	PG_CATCH();
	{
		spine_order_sender_end(&sender);
		if (spine_producer_is_broken(sender.client))
			spine_client_cache_close(sender.client);
		ConditionVariableCancelSleep();
		PG_RE_THROW();
	}
	PG_END_TRY();
	error_context_stack = callback.previous;

	spine_order_sender_end(&sender);
	spine_client_cache_rest(sender.client);
	ConditionVariableCancelSleep();
	return sender.acknowledged;
}

Datum
spine_produce(PG_FUNCTION_ARGS)
{
	SpineTenant tenant;
	const char *server = NULL;
	int32		n;

	spine_tenant_init(&tenant, tenant_argument(fcinfo));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("number of events must not be null")));
	n = PG_GETARG_INT32(1);
	if (n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of events must not be negative")));
	if (PG_NARGS() > 2 && !PG_ARGISNULL(2))
		server = NameStr(*PG_GETARG_NAME(2));
	PG_RETURN_INT64(n == 0 ? 0 : produce(&tenant, n, server));
}

Datum
spine_make_event(PG_FUNCTION_ARGS)
{
	SpineTenant tenant;
	char		json[SPINE_MAX_EVENT_BYTES];
	size_t		len;

	spine_tenant_init(&tenant, tenant_argument(fcinfo));
	len = spine_tenant_make_event(&tenant, json);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(pg_any_to_server(json, len, PG_UTF8)));
}

/*
 * order_sender.c
 *		Sends synthetic order events through a client and counts their delivery
 *		reports.  Used by spine_produce and by the producer worker.
 */
#include "orders/order_sender.h"

#include "kafka/producer.h"
#include "orders/backpressure.h"
#include "orders/produced.h"

/* What a record takes at the broker besides its key and value. */
#define RECORD_OVERHEAD		40

/* How long a new client is given to find the broker. */
#define FIRST_CONTACT_MS	1000

/* How long the embedded broker may take to say where its log ends. */
#define LEARN_MS			10000

/* Events on their way at a time: enough to keep a broker busy. */
#define MAX_IN_FLIGHT		20000

void
spine_order_sender_begin(SpineOrderSender *sender, SpineClient *client, const char *topic)
{
	static uint64 last_id = 0;

	*sender = (SpineOrderSender) {.client = client, .topic = topic, .id = ++last_id};
	spine_producer_prepare(client, topic, FIRST_CONTACT_MS);
	if (!spine_backpressure_learn(client, topic, LEARN_MS))
		spine_client_raise_error(client);
}

bool
spine_order_sender_send(SpineOrderSender *sender, const SpineTenant *tenant)
{
	char		event[SPINE_MAX_EVENT_BYTES];
	size_t		len;
	int64		bytes;
	SpineMessage message;

	if (sender->sent - sender->acknowledged - sender->failed >= MAX_IN_FLIGHT)
		return false;

	len = spine_tenant_make_event(tenant, event);
	bytes = len + tenant->len + RECORD_OVERHEAD;
	if (!spine_backpressure_reserve(sender->client, bytes))
		return false;
	message = (SpineMessage) {
		.topic = sender->topic,
		.partition = -1,
		.key = tenant->name,
		.key_len = tenant->len,
		.value = event,
		.value_len = len,
		.tag = sender->id
	};
	if (!spine_producer_send(sender->client, &message))
	{
		spine_backpressure_release(sender->client, bytes);
		return false;
	}
	sender->sent++;
	return true;
}

static void
count_report(SpineOrderSender *sender, const SpineReport *report)
{
	int64		bytes = report->key_len + report->value_len + RECORD_OVERHEAD;

	if (report->error == NULL)
		spine_backpressure_acknowledge(sender->client, report->topic, report->partition,
									   report->offset, bytes);

	/* of an earlier sender, which has released what it had reserved */
	if (report->tag != sender->id)
		return;

	spine_backpressure_release(sender->client, bytes);
	if (report->error == NULL)
		sender->acknowledged++;
	else if (report->is_purged)
		sender->sent--;			/* together with what an earlier sender had left: it is sent again */
	else if (sender->failed++ == 0)
		sender->error = report->error;
}

/* Acknowledged events of one tenant in a row: they are counted together. */
typedef struct Run
{
	char		tenant[SPINE_MAX_TENANT_BYTES];
	size_t		len;
	int64		n;
} Run;

static void
end_run(Run *run)
{
	if (run->n > 0)
		spine_produced_add(run->tenant, run->len, run->n);
	run->n = 0;
}

static void
add_to_run(Run *run, const SpineReport *report)
{
	if (run->n > 0 &&
		(run->len != report->key_len || memcmp(run->tenant, report->key, run->len) != 0))
		end_run(run);
	if (run->n++ > 0)
		return;
	run->len = Min(report->key_len, sizeof(run->tenant));
	memcpy(run->tenant, report->key, run->len);
}

void
spine_order_sender_poll(SpineOrderSender *sender)
{
	SpineReport report;
	Run			run;

	run.n = 0;
	while (spine_producer_poll(sender->client, &report))
	{
		count_report(sender, &report);
		if (report.error == NULL)
			add_to_run(&run, &report);
	}
	end_run(&run);
}

void
spine_order_sender_end(SpineOrderSender *sender)
{
	/* what is dropped is reported like any other failure */
	if (sender->acknowledged < sender->sent)
		spine_producer_purge(sender->client);
	spine_order_sender_poll(sender);
	spine_backpressure_release_all();
}

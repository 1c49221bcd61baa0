/*
 * producer_worker.c
 *		The producer worker: synthetic order events, all the time, for a list of
 *		tenants at a set rate.  Off unless spine.producer_rate is set.
 */
#include "orders/producer_worker.h"

#include "orders/order_sender.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "catalog/pipeline.h"
#include "kafka/client_cache.h"
#include "process/settings.h"
#include "process/shared.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#define TICK_MS			50
#define RETRY_MS		1000
#define COMPLAIN_MS		60000

/* The tenants of the setting, in the current memory context. */
static SpineTenant *
read_tenants(int *n)
{
	List	   *names = NIL;
	ListCell   *cell;
	SpineTenant *tenants;

	/* the check hook has accepted it */
	(void) SplitGUCList(pstrdup(spine_producer_tenants), ',', &names);
	tenants = palloc0((list_length(names) + 1) * sizeof(SpineTenant));
	*n = 0;
	foreach(cell, names)
		spine_tenant_init(&tenants[(*n)++], lfirst(cell));
	return tenants;
}

static void
complain(const char *text)
{
	static TimestampTz complained_at = 0;

	if (!TimestampDifferenceExceeds(complained_at, GetCurrentTimestamp(), COMPLAIN_MS))
		return;
	complained_at = GetCurrentTimestamp();
	ereport(LOG, (errmsg("producer could not deliver events: %s", text)));
}

/* Sends at the rate until the configuration changes. */
static void
produce_until_reload(void)
{
	SpineDelivery delivery;
	SpineClient *client = spine_session_client();
	int			ntenants;
	SpineTenant *tenants = read_tenants(&ntenants);
	int			next_tenant = 0;
	int64		reported_failures = 0;
	TimestampTz last_tick = GetCurrentTimestamp();
	double		due = 0;

	spine_delivery_begin(&delivery, client, pstrdup(spine_topic));
	while (!ConfigReloadPending && ntenants > 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();

		/* what could not be sent for lack of room is not made up for later */
		due = Min(due + spine_producer_rate * (now - last_tick) / USECS_PER_SEC,
				  Max(spine_producer_rate, 1));
		last_tick = now;
		while (due >= 1 && spine_delivery_send(&delivery, &tenants[next_tenant]))
		{
			next_tenant = (next_tenant + 1) % ntenants;
			due -= 1;
		}

		spine_delivery_poll(&delivery);
		if (delivery.failed > reported_failures)
		{
			complain(delivery.error);
			reported_failures = delivery.failed;
		}
		spine_client_wait(client, Max(1000.0 / Max(spine_producer_rate, 1), TICK_MS));

		/* the embedded broker may have been started anew */
		if (!spine_session_is_current())
			break;
	}
}

void
spine_producer_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!spine_claim(&spine_shared->producer_pid))
		proc_exit(0);

	/* to no database: only so that pg_stat_activity shows the process */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	context = AllocSetContextCreate(TopMemoryContext, "spine producer", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		produce_until_reload();
	}
}

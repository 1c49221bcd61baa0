/*
 * producer_worker.c
 *		The producer worker: synthetic order events, all the time, for a list of
 *		tenants at a set rate.  Off unless spine.producer_rate is set.
 */
#include "orders/producer_worker.h"

#include "catalog/pipeline.h"
#include "kafka/client_cache.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "orders/order_sender.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "process/default_cluster.h"
#include "process/launcher.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#define TICK_MS			50
#define COMPLAIN_MS		60000

static double producer_rate = 0;	/* events per second; 0: off */
static char *producer_tenants = NULL;

/* The tenants of the setting, in the current memory context. */
static List *
read_tenants(void)
{
	List	   *names = NIL;
	List	   *tenants = NIL;
	ListCell   *cell;

	/* the check hook has accepted it */
	(void) SplitGUCList(pstrdup(producer_tenants), ',', &names);
	foreach(cell, names)
	{
		SpineTenant *tenant = palloc(sizeof(SpineTenant));

		spine_tenant_init(tenant, lfirst(cell));
		tenants = lappend(tenants, tenant);
	}
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

/* Is the default cluster still this one?  The embedded broker may have been started again. */
static bool
is_current(const SpineCluster *cluster)
{
	SpineCluster now = spine_default_cluster();

	return spine_cluster_is_same(cluster, &now);
}

/* Sends at the rate until the configuration or the cluster changes. */
static void
produce_until_reload(void)
{
	SpineCluster cluster = spine_default_cluster_await();
	SpineOrderSender sender;
	List	   *tenants = read_tenants();
	MemoryContext tick_context = AllocSetContextCreate(CurrentMemoryContext, "spine producer tick",
													   ALLOCSET_SMALL_SIZES);
	int64		reported_failures = 0;
	TimestampTz last_tick = GetCurrentTimestamp();
	double		due = 0;

	spine_order_sender_begin(&sender, spine_client_cache_get(&cluster), pstrdup(spine_topic));
	MemoryContextSwitchTo(tick_context);
	while (!ConfigReloadPending && is_current(&cluster))
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(tick_context);

		/* what could not be sent for lack of room is not made up for later */
		due = Min(due + producer_rate * (now - last_tick) / USECS_PER_SEC, Max(producer_rate, 1));
		last_tick = now;
		while (tenants && due >= 1 &&
			   spine_order_sender_send(&sender, list_nth(tenants, sender.sent % list_length(tenants))))
			due -= 1;

		spine_order_sender_poll(&sender);
		if (sender.failed > reported_failures)
		{
			complain(sender.error);
			reported_failures = sender.failed;
		}
		spine_client_wait(sender.client, Max(1000.0 / Max(producer_rate, 1), TICK_MS));
	}
	spine_order_sender_end(&sender);
	spine_client_cache_rest(sender.client);
}

void
spine_producer_worker_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!spine_launcher_claim(arg))
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

static bool
is_wanted(void)
{
	return producer_rate > 0;
}

static bool
check_tenants(char **newval, void **extra, GucSource source)
{
	List	   *tenants = NIL;
	ListCell   *cell;

	/* the producer has no database, and so no encoding except JSON's own */
	if (!pg_verify_mbstr(PG_UTF8, *newval, strlen(*newval), true))
	{
		GUC_check_errdetail("Tenant names must be valid UTF-8.");
		return false;
	}
	if (!SplitGUCList(pstrdup(*newval), ',', &tenants))
	{
		GUC_check_errdetail("List syntax is invalid.");
		return false;
	}
	foreach(cell, tenants)
	{
		size_t		len = strlen(lfirst(cell));

		if (len == 0 || len > SPINE_MAX_TENANT_BYTES)
		{
			GUC_check_errdetail("A tenant's name has 1 to %d bytes.", SPINE_MAX_TENANT_BYTES);
			return false;
		}
	}
	return true;
}

void
spine_producer_worker_init(void)
{
	DefineCustomRealVariable("spine.producer_rate",
							 "Synthetic order events that the producer worker sends per second; 0 turns it off.",
							 NULL,
							 &producer_rate, 0, 0, 1000000,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("spine.producer_tenants",
							   "The tenants that the producer worker makes events for, separated by commas.",
							   NULL,
							   &producer_tenants, "acme",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_tenants, NULL, NULL);

	spine_launcher_add("spine_producer_worker_main", "spine producer", is_wanted);
}

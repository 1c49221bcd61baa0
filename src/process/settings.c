/*
 * settings.c
 *		Defines the spine.* settings and checks their values.
 *
 * Settings that every process must agree on (the broker) come from the
 * configuration file alone.  The others may also be set per database or, by a
 * superuser, per session.
 */
#include "process/settings.h"

#include <limits.h>

#include "kafka/options.h"
#include "mb/pg_wchar.h"
#include "utils/guc.h"
#include "utils/varlena.h"

char	   *spine_brokers_setting = NULL;
char	   *spine_kafka_options = NULL;
bool		spine_enabled = true;
int			spine_workers = 1;
int			spine_batch_rows = 50000;
int			spine_batch_interval_ms = 10;
int			spine_breaker_records = 1000;
int			spine_max_record_memory_kb = 96 * 1024;
int			spine_log_interval_s = 5;
double		spine_producer_rate = 0;
char	   *spine_producer_tenants = NULL;

static emit_log_hook_type previous_log_hook = NULL;

static bool
check_kafka_options(char **newval, void **extra, GucSource source)
{
	char		reason[256];

	if (spine_kafka_options_check(*newval, reason, sizeof(reason)))
		return true;

	/* the usual message would quote the value, which may hold a secret */
	GUC_check_errmsg("invalid value for parameter \"%s\"", "spine.kafka_options");
	GUC_check_errdetail("%s", reason);
	GUC_check_errhint("The options that can be set are listed in spine's docs/CONFIGURATION.md.");
	return false;
}

/*
 * On a reload, the postmaster logs each setting that has changed with its new
 * value, which here may hold a secret.
 */
static void
hide_secret(ErrorData *edata)
{
	if (edata->message_id && strcmp(edata->message_id, "parameter \"%s\" changed to \"%s\"") == 0 &&
		strstr(edata->message, "spine.kafka_options") != NULL)	/* whatever quotes lc_messages asks for */
	{
		pfree(edata->message);
		edata->message = pstrdup("parameter \"spine.kafka_options\" changed");
	}
	if (previous_log_hook)
		previous_log_hook(edata);
}

static bool
check_producer_tenants(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *tenants = NIL;
	ListCell   *cell;
	bool		ok = true;

	if (!SplitGUCList(copy, ',', &tenants))
	{
		GUC_check_errdetail("List syntax is invalid.");
		ok = false;
	}
	else if (!pg_verify_mbstr(PG_UTF8, *newval, strlen(*newval), true))
	{
		/* the producer has no database, and so no encoding but JSON's own */
		GUC_check_errdetail("Tenant names must be valid UTF-8.");
		ok = false;
	}
	foreach(cell, tenants)
	{
		size_t		len = strlen(lfirst(cell));

		if (ok && (len == 0 || len > SPINE_MAX_TENANT_BYTES))
		{
			GUC_check_errdetail("A tenant's name has 1 to %d bytes.", SPINE_MAX_TENANT_BYTES);
			ok = false;
		}
	}
	list_free(tenants);
	pfree(copy);
	return ok;
}

void
spine_settings_init(void)
{
	DefineCustomStringVariable("spine.brokers",
							   "Brokers to connect to, as host:port[,...].",
							   "Empty: an embedded, in-memory broker for trying and testing.",
							   &spine_brokers_setting, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("spine.kafka_options",
							   "More options for librdkafka, as key=value pairs separated by spaces.",
							   "A value with spaces is quoted: key='a value'.",
							   &spine_kafka_options, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_kafka_options, NULL, NULL);

	DefineCustomBoolVariable("spine.enabled",
							 "Lets workers run in this database.",
							 "Turn off while restoring a dump.",
							 &spine_enabled, true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("spine.workers",
							"Workers per pipeline.",
							"Partition p belongs to worker p modulo this.",
							&spine_workers, 1, 1, 32,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.batch_rows",
							"The most records applied in one transaction.",
							NULL,
							&spine_batch_rows, 50000, 1, 500000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.batch_interval",
							"The longest a record waits for others to be applied with it.",
							NULL,
							&spine_batch_interval_ms, 10, 0, 10000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.breaker_records",
							"So many records in a row that the database refuses for one reason fail the pipeline.",
							"The table is then held to be at fault; 0 makes dead letters of them all.",
							&spine_breaker_records, 1000, 0, INT_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.max_record_memory",
							"The most memory that jsonb of one record may take while it is made, about.",
							"A record that would take more becomes a dead letter.",
							&spine_max_record_memory_kb, 96 * 1024, 1024, INT_MAX,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.log_interval",
							"At most one summary line in the log per worker in this time; -1 turns them off.",
							NULL,
							&spine_log_interval_s, 5, -1, INT_MAX / 1000,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomRealVariable("spine.producer_rate",
							 "Synthetic order events that the producer worker sends per second; 0 turns it off.",
							 NULL,
							 &spine_producer_rate, 0, 0, 1000000,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("spine.producer_tenants",
							   "The tenants that the producer worker makes events for, separated by commas.",
							   NULL,
							   &spine_producer_tenants, "acme",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_producer_tenants, NULL, NULL);

	MarkGUCPrefixReserved("spine");

	previous_log_hook = emit_log_hook;
	emit_log_hook = hide_secret;
}

/*
 * default_cluster.c
 *		Makes a cluster of the settings and of what shared memory says about the
 *		embedded broker.
 *
 * Every process must agree on the cluster, so its settings come from the configuration
 * file alone.
 */
#include "process/default_cluster.h"

#include "fmgr.h"
#include "kafka/options.h"
#include "process/shared.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(spine_brokers);

/* How long the embedded broker may take to come up. */
#define BROKER_START_MS			10000

static char *brokers = NULL;	/* "": the embedded broker */
static char *options = NULL;

static emit_log_hook_type previous_log_hook = NULL;

bool
spine_default_cluster_is_embedded(void)
{
	return brokers[0] == '\0';
}

SpineCluster
spine_default_cluster(void)
{
	SpineCluster cluster = {.embedded = spine_default_cluster_is_embedded()};

	cluster.options = pstrdup(options);
	if (!cluster.embedded)
	{
		cluster.address = pstrdup(brokers);
		return cluster;
	}

	/* with its identity: another one may be found on the same port */
	LWLockAcquire(spine_shared->lock, LW_SHARED);
	if (spine_shared->broker.address[0])
		cluster.address = pstrdup(spine_shared->broker.address);
	strlcpy(cluster.identity, spine_shared->broker.cluster_id, sizeof(cluster.identity));
	LWLockRelease(spine_shared->lock);
	return cluster;
}

SpineCluster
spine_default_cluster_await(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BROKER_START_MS);
	SpineCluster cluster;

	ConditionVariablePrepareToSleep(&spine_shared->progress);
	while ((cluster = spine_default_cluster()).address == NULL && GetCurrentTimestamp() < deadline)
		(void) ConditionVariableTimedSleep(&spine_shared->progress, 1000, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();

	if (cluster.address == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_DOES_NOT_EXIST),
				 errmsg("the embedded broker is not running"),
				 errdetail("It is started when \"spine.brokers\" is empty and a database has the extension."),
				 errhint("See the server's log, or set \"spine.brokers\".")));
	return cluster;
}

Datum
spine_brokers(PG_FUNCTION_ARGS)
{
	SpineCluster cluster = spine_default_cluster_await();

	PG_RETURN_TEXT_P(cstring_to_text(cluster.address));
}

static bool
check_options(char **newval, void **extra, GucSource source)
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
 * value, which may hold a secret here.
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

void
spine_default_cluster_init(void)
{
	DefineCustomStringVariable("spine.brokers",
							   "Brokers to connect to, as host:port[,...].",
							   "Empty: an embedded, in-memory broker for trying and testing.",
							   &brokers, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("spine.kafka_options",
							   "More options for librdkafka, as key=value pairs separated by spaces.",
							   "A value with spaces is quoted: key='a value'.",
							   &options, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_options, NULL, NULL);

	previous_log_hook = emit_log_hook;
	emit_log_hook = hide_secret;
}

/*
 * default_cluster.c
 *		Makes a cluster of the settings and of what shared memory says of the
 *		embedded broker.
 */
#include "process/default_cluster.h"

#include "process/settings.h"
#include "process/shared.h"
#include "storage/condition_variable.h"
#include "utils/timestamp.h"

/* How long the embedded broker may take to come up. */
#define BROKER_START_MS			10000

SpineCluster
spine_default_cluster(void)
{
	SpineCluster cluster = {.embedded = spine_brokers_setting[0] == '\0'};

	cluster.options = pstrdup(spine_kafka_options);
	if (!cluster.embedded)
	{
		cluster.address = pstrdup(spine_brokers_setting);
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

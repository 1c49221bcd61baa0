/*
 * broker.c
 *		An in-memory broker that speaks Kafka's protocol on a loopback port:
 *		librdkafka's mock cluster in a background worker.
 *
 * For trying and testing.  Its log is gone when the process ends, and it keeps
 * about 5 MB a partition and drops the oldest beyond that; backpressure.c keeps
 * spine's own producers from overrunning it.  It asks for no password: whoever
 * can connect to loopback can read and write it.
 */
#include "broker.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "kafka.h"
#include "miscadmin.h"
#include "offsets.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shared.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#define TOPIC_PARTITIONS	3

static rd_kafka_t *handle = NULL;
static rd_kafka_mock_cluster_t *cluster = NULL;

/* The library complains that this client has no broker: it is one. */
static void
ignore_log(const rd_kafka_t *rk, int level, const char *facility, const char *message)
{
}

/* Takes the address back first, so that nobody connects to what is going. */
static void
stop_broker(int code, Datum arg)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->broker.address[0] = '\0';
	spine_wake_workers(InvalidOid);
	LWLockRelease(spine_shared->lock);

	if (cluster)
		rd_kafka_mock_cluster_destroy(cluster);
	if (handle)
		rd_kafka_destroy(handle);
}

static void
start_broker(void)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	sigset_t	old_mask;
	char		errstr[256];

	rd_kafka_conf_set_log_cb(conf, ignore_log);

	/* the mock cluster's thread does not block signals by itself */
	old_mask = spine_block_signals();
	handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (handle)
		cluster = rd_kafka_mock_cluster_new(handle, 1);
	spine_restore_signals(old_mask);

	if (cluster == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start the embedded broker%s%s",
						handle ? "" : ": ", handle ? "" : errstr)));
}

/* A log of its own: nothing that was known of an earlier one holds for it. */
static void
publish_broker(void)
{
	uint64		id;
	HASH_SEQ_STATUS scan;
	SpineLogEnd *end;

	if (!pg_strong_random(&id, sizeof(id)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, spine_log_ends);
	while ((end = hash_seq_search(&scan)) != NULL)
		hash_search(spine_log_ends, &end->key, HASH_REMOVE, NULL);
	spine_shared->broker.in_flight_bytes = 0;
	snprintf(spine_shared->broker.cluster_id, sizeof(spine_shared->broker.cluster_id),
			 SPINE_EMBEDDED_PREFIX "%016llx", (unsigned long long) id);
	strlcpy(spine_shared->broker.address, rd_kafka_mock_cluster_bootstraps(cluster),
			sizeof(spine_shared->broker.address));
	spine_wake_workers(InvalidOid);
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);
}

void
spine_broker_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!spine_claim(&spine_shared->broker.pid))
		proc_exit(0);

	/* to no database: only so that pg_stat_activity shows the process */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	before_shmem_exit(stop_broker, 0);
	start_broker();
	(void) rd_kafka_mock_topic_create(cluster, spine_topic, TOPIC_PARTITIONS, 1);
	publish_broker();
	ereport(LOG,
			(errmsg("embedded broker listening on %s", rd_kafka_mock_cluster_bootstraps(cluster)),
			 errdetail("It keeps its log in memory: it is for trying and testing.")));

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			/* fails when it is there already */
			(void) rd_kafka_mock_topic_create(cluster, spine_topic, TOPIC_PARTITIONS, 1);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/*
 * worker_startup.c
 *		How a worker comes to read: it loads the pipeline, connects, and takes positions.
 */
#include "process/worker_internal.h"

#include "apply/transaction.h"
#include "catalog/extension.h"
#include "catalog/topics.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "process/assignment.h"
#include "process/default_cluster.h"
#include "process/find_topics.h"
#include "process/server_cluster.h"
#include "process/settings.h"
#include "process/share.h"
#include "process/status.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define BROKER_START_MS			5000	/* that the embedded broker may take */
#define BROKER_TIMEOUT_MS		5000	/* for an answer */

/* Replaces a string that outlives the transaction it came from. */
static void
remember(const char **string, const char *value)
{
	char	   *copy = MemoryContextStrdup(TopMemoryContext, value);

	if (*string)
		pfree((void *) *string);
	*string = copy;
}

/* --------------------------------------------------------------------------
 * LOADING
 * -------------------------------------------------------------------------- */

/* Step: reads the pipeline and its targets. */
static bool
load_pipeline(void *arg)
{
	SpineWorker	   *worker = arg;
	char	   *schema = spine_extension_schema();

	if (schema == NULL)
		return false;
	worker->pipeline = spine_pipeline_load(schema, &worker->pipeline_name);
	if (worker->pipeline == NULL)
		return false;
	worker->plan = spine_plan_make(worker->pipeline, (size_t) spine_max_record_memory_kb * 1024);
	spine_trust_check(worker->plan->trust);
	remember(&worker->log.schema, schema);
	remember(&worker->log.topics, worker->pipeline->topic);
	(void) spine_topics_match(worker->log.topics, "");	/* or the expression is not valid */
	return true;
}

SpineCluster
spine_worker_cluster(const SpineWorker *worker)
{
	return OidIsValid(worker->cluster.server) ? worker->cluster : spine_default_cluster();
}

/* Step: the cluster, as the pipeline's owner may use it now. */
static bool
find_cluster(void *arg)
{
	SpineWorker	   *worker = arg;
	SpineCluster cluster = {0};
	SpineCluster old = worker->cluster;

	if (worker->pipeline->server)
	{
		cluster = spine_server_cluster(worker->pipeline->server, worker->pipeline->owner);
		cluster = spine_cluster_copy(&cluster, TopMemoryContext);
	}
	worker->cluster = cluster;
	if (OidIsValid(old.server))
		spine_cluster_free(&old);
	return true;
}

SpineStage
spine_worker_load(SpineWorker *worker)
{
	switch (spine_transaction_run(load_pipeline, worker, &worker->error))
	{
		case SPINE_COMMITTED:
			break;
		case SPINE_ROLLED_BACK:
			proc_exit(0);		/* dropped or paused; the launcher knows */
		case SPINE_ABORTED:
			spine_worker_forget_pipeline(worker);
			return spine_worker_meet_error(worker);
	}

	/* whoever lost the right to read a cluster does not stay connected */
	if (spine_transaction_run(find_cluster, worker, &worker->error) == SPINE_ABORTED)
	{
		spine_worker_leave_log(worker);
		return spine_worker_meet_error(worker);
	}
	return spine_worker_next_stage(worker);
}

/* --------------------------------------------------------------------------
 * CONNECTING
 * -------------------------------------------------------------------------- */

/* Step: starts the client.  False: the embedded broker is not running. */
static bool
open_consumer(void *arg)
{
	SpineWorker	   *worker = arg;
	SpineCluster cluster;

	/* rights may have changed that lead to the server's */
	(void) find_cluster(worker);
	cluster = spine_worker_cluster(worker);
	if (worker->consumer && !spine_consumer_is_for(worker->consumer, &cluster, worker->log.topics, spine_settings_max_piece()))
		spine_worker_leave_log(worker);
	if (worker->consumer == NULL)
	{
		char	   *group = psprintf("spine-%s-%s", get_database_name(MyDatabaseId),
									 NameStr(worker->pipeline_name));

		if (cluster.address == NULL)
			return false;
		worker->consumer = spine_consumer_create(&cluster, worker->log.topics, group, spine_settings_max_piece());
	}
	spine_consumer_connect(worker->consumer);
	return true;
}

/* The broker sets the latches of the workers when it is up, shortly after the first one. */
static SpineStage
await_embedded_broker(SpineWorker *worker)
{
	SpineWorkerSlot *slot = worker->status.slot;

	if (slot->state == SPINE_RUNNING)
		spine_status_set_state(slot, SPINE_STARTING, NULL);
	if (!spine_worker_is_due(slot->state_since, BROKER_START_MS))
	{
		worker->rest_ms = BROKER_START_MS;
		return SPINE_RESTING;
	}

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	spine_error_set(&worker->error, SPINE_TRANSIENT, "the embedded broker is not running%s%s",
					spine_shared->broker.why_not[0] ? ": " : "", spine_shared->broker.why_not);
	LWLockRelease(spine_shared->lock);
	return spine_worker_meet_error(worker);
}

SpineStage
spine_worker_connect(SpineWorker *worker)
{
	switch (spine_transaction_run(open_consumer, worker, &worker->error))
	{
		case SPINE_COMMITTED:
			break;
		case SPINE_ROLLED_BACK:
			return await_embedded_broker(worker);
		case SPINE_ABORTED:
			return spine_worker_meet_error(worker);
	}
	if (!worker->has_stuck)
		spine_status_set_state(worker->status.slot, SPINE_STARTING, NULL);
	return spine_worker_next_stage(worker);
}

/* --------------------------------------------------------------------------
 * ASSIGNING
 * -------------------------------------------------------------------------- */

/* Has any of them a partition?  Those of a list that do not exist have none. */
static bool
has_partition(const SpineTopic *topics, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (topics[i].npartitions > 0)
			return true;
	}
	return false;
}

static void
set_no_topic_error(SpineWorker *worker, int n)
{
	const char *topics = worker->log.topics;

	if (spine_topics_is_one(topics))
		spine_error_set(&worker->error, SPINE_TRANSIENT, "topic \"%s\" does not exist", topics);
	else if (n > 0)
		spine_error_set(&worker->error, SPINE_TRANSIENT, "none of the topics \"%s\" exists", topics);
	else
		spine_error_set(&worker->error, SPINE_TRANSIENT, "no topic matches the regular expression \"%s\"", topics);
	spine_error_set_hint(&worker->error, "Create it, or change \"topic\" in spine_pipelines or the setting spine.topic.");
}

bool
spine_worker_find_topics(SpineWorker *worker)
{
	int			n = 0;
	SpineTopic *topics = spine_topics_find(spine_consumer_client(worker->consumer), worker->log.topics,
										   &n, BROKER_TIMEOUT_MS);

	worker->asked_at = GetCurrentTimestamp();
	if (topics == NULL)
	{
		worker->broker_is_silent = true;
		spine_consumer_explain_silence(worker->consumer, &worker->error);
		return false;
	}
	if (!has_partition(topics, n))
	{
		worker->broker_is_silent = true;
		worker->is_assigned = false;
		set_no_topic_error(worker, n);
		return false;
	}

	if (!spine_topics_are_same(topics, n, worker->topics, worker->ntopics) ||
		strcmp(spine_consumer_cluster_id(worker->consumer), worker->cluster_id) != 0)
		worker->is_assigned = false;
	if (worker->topics)
		pfree(worker->topics);
	worker->topics = spine_topics_copy(topics, n, TopMemoryContext);
	worker->ntopics = n;

	/* without an assignment, whether all is well is yet to be seen */
	if (worker->broker_is_silent && worker->is_assigned)
		spine_worker_report_running(worker);
	worker->broker_is_silent = false;
	return true;
}

/*
 * The embedded broker is another one than the one that was read.  What the old one had,
 * and was not applied, nobody has: that is said, and the new one is read.
 */
static void
report_lost_log(SpineWorker *worker)
{
	char		reason[sizeof(spine_shared->broker.last_end)];
	SpineError	error;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	strlcpy(reason, spine_shared->broker.last_end, sizeof(reason));
	LWLockRelease(spine_shared->lock);
	spine_error_set(&error, SPINE_TRANSIENT, "the embedded broker ended (%s); records that were acknowledged but not applied are lost",
					reason[0] ? reason : "with the server");
	ereport(LOG,
			(errmsg("pipeline \"%s\": %s", NameStr(worker->pipeline_name), error.message)));
	spine_status_set_state(worker->status.slot, worker->status.slot->state, &error);
}

SpineStage
spine_worker_assign(SpineWorker *worker)
{
	SpineAssignmentRequest request = {
		.log = &worker->log,
		.plan = worker->plan,
		.consumer = worker->consumer,
		.index = worker->index,
		.workers = worker->workers,
		.starts_at_latest = worker->pipeline->starts_at_latest
	};
	SpinePosition *positions;
	int			n;

	spine_share_begin_assignment(worker->status.slot);
	if (!spine_worker_find_topics(worker))
		return spine_worker_meet_error(worker);
	request.topics = worker->topics;
	request.ntopics = worker->ntopics;
	strlcpy(worker->cluster_id, spine_consumer_cluster_id(worker->consumer), sizeof(worker->cluster_id));
	worker->log.cluster_id = worker->cluster_id;

	positions = spine_assignment_make(&request, &n, &worker->lost_log, &worker->error);
	if (positions == NULL)
		return spine_worker_meet_error(worker);
	if (!spine_consumer_assign(worker->consumer, positions, n, &worker->error))
		return spine_consumer_is_connected(worker->consumer) ? spine_worker_meet_error(worker) : SPINE_CONNECTING;

	/* only now, so that it is not the trouble on the way here that stays to be read */
	if (worker->lost_log && spine_worker_cluster(worker).embedded)
		report_lost_log(worker);
	worker->lost_log = false;

	worker->is_assigned = true;
	spine_status_set_topics(&worker->log, worker->topics, worker->ntopics);
	spine_worker_publish(worker);
	spine_worker_report_running(worker);
	return SPINE_READING;
}

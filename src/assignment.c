/*
 * assignment.c
 *		Which partitions a worker reads, and from where: asked of the broker
 *		and of the database.
 */
#include "assignment.h"

#include "attempt.h"
#include "settings.h"
#include "status.h"
#include "trouble.h"
#include "utils/timestamp.h"

#define BROKER_TIMEOUT_MS		5000

/* A reason that will not pass by itself? */
static bool
needs_a_person(rd_kafka_resp_err_t error)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return true;
		default:
			return false;
	}
}

bool
spine_count_partitions(SpineWorker *worker)
{
	SpineClient *client = worker->consumer->client;
	int			count = spine_client_partition_count(client, worker->log.topic, BROKER_TIMEOUT_MS);
	char		text[SPINE_MAX_ERROR_LEN];

	worker->partitions_checked = GetCurrentTimestamp();

	if (count > 0)
	{
		client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
		worker->consumer->topic_is_gone = false;
		if (count != worker->consumer->npartitions)
			worker->assigned = false;
		worker->consumer->npartitions = count;
		if (worker->broker_trouble)
			spine_report_running(worker);
		worker->broker_trouble = false;
		return true;
	}
	worker->broker_trouble = true;

	if (count == 0)
	{
		snprintf(text, sizeof(text), "topic \"%s\" does not exist HINT: Create it, or change \"topic\" in spine_pipelines or the setting spine.topic.",
				 worker->log.topic);
		worker->assigned = false;
		spine_wait_out(worker, text);
		return false;
	}

	snprintf(text, sizeof(text), "the broker does not answer: %s", client->error_text);

	/* serve the library's reports: they may know more than "timed out" */
	client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
	(void) spine_consumer_poll(worker->consumer, spine_batch_rows);
	if (client->error != RD_KAFKA_RESP_ERR_NO_ERROR)
		snprintf(text, sizeof(text), "the broker does not answer: %s", client->error_text);

	if (needs_a_person(client->error))
		spine_wait_for_help(worker, text);
	else
		spine_wait_out(worker, text);
	return false;
}

typedef struct Assignment
{
	SpineWorker *worker;
	SpinePosition *positions;
	int			n;
	bool		known_topic;
} Assignment;

static bool
load_offsets(void *arg)
{
	Assignment *assignment = arg;

	spine_offsets_load(&assignment->worker->log, assignment->positions, assignment->n,
					   &assignment->known_topic);
	return true;
}

static bool
insert_offsets(void *arg)
{
	Assignment *assignment = arg;

	spine_offsets_insert(&assignment->worker->log, assignment->positions, assignment->n);
	spine_offsets_load(&assignment->worker->log, assignment->positions, assignment->n,
					   &assignment->known_topic);
	return true;
}

/*
 * The first offset of partitions that were never read: written down before the
 * first record is, so that "latest" means what was latest then.
 */
static bool
find_first_offsets(Assignment *assignment)
{
	SpineWorker *worker = assignment->worker;


	for (int i = 0; i < assignment->n; i++)
	{
		SpinePosition *position = &assignment->positions[i];
		int64		low;
		int64		high;

		if (position->next_offset >= 0)
			continue;
		if (!spine_client_watermarks(worker->consumer->client, worker->log.topic,
									 position->partition, &low, &high, BROKER_TIMEOUT_MS))
			return false;

		/* a partition that joins a topic we know is new: all of it */
		position->next_offset = worker->pipeline->starts_at_latest && !assignment->known_topic ?
			high : low;
	}
	return true;
}

static Assignment
list_partitions(SpineWorker *worker)
{
	Assignment	assignment = {.worker = worker};

	assignment.positions = palloc0((worker->consumer->npartitions / worker->workers + 1) *
								   sizeof(SpinePosition));
	for (int p = worker->index; p < worker->consumer->npartitions; p += worker->workers)
	{
		assignment.positions[assignment.n].partition = p;
		assignment.positions[assignment.n].high_watermark = -1;
		assignment.n++;
	}
	return assignment;
}

bool
spine_take_assignment(SpineWorker *worker)
{
	Assignment	assignment;
	SpineOutcome outcome;

	if (worker->assigned)
		return true;
	if (!spine_count_partitions(worker))
		return false;
	worker->log.cluster_id = worker->consumer->client->cluster_id;

	assignment = list_partitions(worker);
	if (assignment.n > 2 * worker->prefetch_share)
	{
		/* each would prefetch more than its share: start again with theirs */
		worker->prefetch_share = assignment.n;
		spine_disconnect(worker);
		return false;
	}

	outcome = spine_attempt(load_offsets, &assignment, &worker->error);
	if (outcome == SPINE_DONE)
	{
		if (!find_first_offsets(&assignment))
		{
			spine_wait_out(worker, worker->consumer->client->error_text);
			return false;
		}
		outcome = spine_attempt(insert_offsets, &assignment, &worker->error);
	}
	if (outcome != SPINE_DONE)
	{
		spine_handle_outcome(worker, outcome);
		return false;
	}

	spine_consumer_assign(worker->consumer, assignment.positions, assignment.n);
	worker->assigned = true;
	worker->batch_started = 0;
	spine_publish_progress(&worker->log, assignment.positions, assignment.n, -1);
	pfree(assignment.positions);
	spine_report_running(worker);
	return true;
}

void
spine_report_lost_partition(SpineWorker *worker)
{
	SpineConsumer *consumer = worker->consumer;
	char		text[SPINE_MAX_ERROR_LEN];
	int64		next_offset = 0;
	int64		low;
	int64		high;

	for (int i = 0; i < consumer->npositions; i++)
	{
		if (consumer->positions[i].partition == consumer->lost_partition)
			next_offset = consumer->positions[i].read_to;
	}
	if (!spine_client_watermarks(consumer->client, worker->log.topic, consumer->lost_partition,
								 &low, &high, BROKER_TIMEOUT_MS))
		snprintf(text, sizeof(text), "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not there",
				 next_offset, consumer->lost_partition, worker->log.topic);
	else if (next_offset < low)
		snprintf(text, sizeof(text), "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone from the log before they were applied"
				 " HINT: To go on without them, set next_offset to " INT64_FORMAT " in spine_offsets.",
				 next_offset, low - 1, consumer->lost_partition, worker->log.topic, low);
	else
		snprintf(text, sizeof(text), "partition %d of topic \"%s\" ends at offset " INT64_FORMAT ", before the position " INT64_FORMAT ": it is not the log that was read before"
				 " HINT: To read it from its start, set next_offset to " INT64_FORMAT " in spine_offsets.",
				 consumer->lost_partition, worker->log.topic, high, next_offset, low);

	worker->assigned = false;
	spine_wait_for_help(worker, text);
}

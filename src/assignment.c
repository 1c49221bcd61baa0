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
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define BROKER_TIMEOUT_MS		5000
#define STUCK_RETRY_MS			5000

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
	rd_kafka_resp_err_t error;
	int			count = spine_client_partition_count(client, worker->log.topic, BROKER_TIMEOUT_MS);
	char		text[SPINE_MAX_ERROR_LEN];

	worker->partitions_checked = GetCurrentTimestamp();

	if (count > 0)
	{
		client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
		if (count != worker->consumer->npartitions || worker->consumer->topic_is_gone ||
			strcmp(client->cluster_id, worker->cluster_id) != 0)
			worker->assigned = false;
		worker->consumer->topic_is_gone = false;
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
	error = client->error;

	/* serve the library's reports: they may know more than "timed out" */
	client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
	(void) spine_consumer_poll(worker->consumer, spine_batch_rows);
	if (client->error != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		snprintf(text, sizeof(text), "the broker does not answer: %s", client->error_text);
		error = client->error;
	}

	if (needs_a_person(error))
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

/* Every step-th partition from `first` on. */
static Assignment
list_partitions(SpineWorker *worker, int first, int step)
{
	Assignment	assignment = {.worker = worker};

	assignment.positions = palloc0((worker->consumer->npartitions / step + 1) *
								   sizeof(SpinePosition));
	for (int p = first; p < worker->consumer->npartitions; p += step)
	{
		assignment.positions[assignment.n].partition = p;
		assignment.positions[assignment.n].high_watermark = -1;
		assignment.n++;
	}
	return assignment;
}

/* Fills the worker's positions from the database, adding rows where need be. */
static SpineOutcome
find_offsets(SpineWorker *worker, Assignment *mine)
{
	Assignment	all;
	Assignment *unknown = mine;
	SpineOutcome outcome = spine_attempt(load_offsets, mine, &worker->error);

	if (outcome != SPINE_DONE)
		return outcome;

	/*
	 * On a topic that was never read, the first worker writes down where all
	 * of it begins: otherwise the next would take its own for newly added.
	 */
	if (!mine->known_topic)
	{
		all = list_partitions(worker, 0, 1);
		for (int i = 0; i < all.n; i++)
			all.positions[i].next_offset = -1;
		unknown = &all;
	}
	if (!find_first_offsets(unknown))
	{
		strlcpy(worker->error.text, worker->consumer->client->error_text,
				sizeof(worker->error.text));
		return SPINE_TRANSIENT;
	}
	outcome = spine_attempt(insert_offsets, unknown, &worker->error);
	if (outcome == SPINE_DONE && unknown != mine)
		outcome = spine_attempt(load_offsets, mine, &worker->error);
	return outcome;
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
	strlcpy(worker->cluster_id, worker->consumer->client->cluster_id, sizeof(worker->cluster_id));
	worker->log.cluster_id = worker->cluster_id;

	assignment = list_partitions(worker, worker->index, worker->workers);
	if (assignment.n > 2 * worker->prefetch_share)
	{
		/* each would prefetch more than its share: start again with theirs */
		worker->prefetch_share = assignment.n;
		spine_disconnect(worker);
		return false;
	}

	outcome = find_offsets(worker, &assignment);
	if (outcome != SPINE_DONE)
	{
		spine_handle_outcome(worker, outcome);
		return false;
	}

	spine_consumer_assign(worker->consumer, assignment.positions, assignment.n);
	worker->assigned = true;
	worker->batch_started = 0;
	spine_prune_progress(&worker->log, worker->consumer->npartitions);
	spine_publish_progress(&worker->log, assignment.positions, assignment.n, -1);
	spine_report_running(worker);
	return true;
}

void
spine_note_partitions(SpineWorker *worker)
{
	SpineConsumer *consumer = worker->consumer;
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	bool		was_well = bms_is_empty(worker->stuck);

	for (int i = 0; i < consumer->npositions; i++)
	{
		const SpinePosition *position = &consumer->positions[i];

		if (position->is_stuck)
			worker->stuck = bms_add_member(worker->stuck, position->partition);
		else if (position->is_read)
			worker->stuck = bms_del_member(worker->stuck, position->partition);
	}
	MemoryContextSwitchTo(old_context);

	if (!was_well && bms_is_empty(worker->stuck))
	{
		worker->stuck_reported = 0;
		spine_report_running(worker);
	}
}

bool
spine_partitions_need_help(const SpineWorker *worker)
{
	return worker->consumer->stuck_partition >= 0 &&
		TimestampDifferenceExceeds(worker->stuck_reported, GetCurrentTimestamp(), STUCK_RETRY_MS);
}

/* The exact range that is missing, for a position that the log does not have. */
static void
describe_lost_offset(SpineWorker *worker, const SpinePosition *position, char *text, size_t size)
{
	SpineConsumer *consumer = worker->consumer;
	int64		next_offset = position->read_to;
	int64		low;
	int64		high;

	if (!spine_client_watermarks(consumer->client, worker->log.topic, position->partition,
								 &low, &high, BROKER_TIMEOUT_MS))
		snprintf(text, size, "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not there",
				 next_offset, position->partition, worker->log.topic);
	else if (next_offset < low)
		snprintf(text, size, "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone from the log before they were applied"
				 " HINT: To go on without them, set next_offset to " INT64_FORMAT " in spine_offsets.",
				 next_offset, low - 1, position->partition, worker->log.topic, low);
	else
		snprintf(text, size, "partition %d of topic \"%s\" ends at offset " INT64_FORMAT ", before the position " INT64_FORMAT ": it is not the log that was read before"
				 " HINT: To read it from its start, set next_offset to " INT64_FORMAT " in spine_offsets.",
				 position->partition, worker->log.topic, high, next_offset, low);
}

void
spine_report_stuck_partition(SpineWorker *worker)
{
	SpineConsumer *consumer = worker->consumer;
	char		text[SPINE_MAX_ERROR_LEN];

	for (int i = 0; i < consumer->npositions; i++)
	{
		const SpinePosition *position = &consumer->positions[i];

		if (position->partition != consumer->stuck_partition)
			continue;
		if (consumer->stuck_error == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
			consumer->stuck_error == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)
			describe_lost_offset(worker, position, text, sizeof(text));
		else
			snprintf(text, sizeof(text), "partition %d of topic \"%s\" cannot be read from offset " INT64_FORMAT ": %s",
					 position->partition, worker->log.topic, position->read_to, consumer->stuck_text);
		spine_report_failed(worker, text);
	}
	worker->stuck_reported = GetCurrentTimestamp();
	spine_disconnect(worker);
}

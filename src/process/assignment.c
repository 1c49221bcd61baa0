/*
 * assignment.c
 *		Which partitions a worker reads, and from where: asked of the broker
 *		and of the database.
 */
#include "process/assignment.h"

#include "apply/transaction.h"
#include "process/settings.h"
#include "process/status.h"
#include "process/trouble.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define BROKER_TIMEOUT_MS		5000
#define ENOUGH_BYTES			(1024 * 1024)	/* to judge records by */

#define SILENT_BROKER			"the broker does not answer: "

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
	char		reason[sizeof(client->error_text)];
	SpineError	silence;
	bool		was_silent;

	worker->partitions_checked = GetCurrentTimestamp();

	if (count > 0)
	{
		client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
		if (count != worker->consumer->npartitions || worker->consumer->topic_is_gone ||
			strcmp(client->cluster_id, worker->cluster_id) != 0)
			worker->assigned = false;
		worker->consumer->topic_is_gone = false;
		worker->consumer->npartitions = count;
		/* without an assignment, whether all is well is yet to be seen */
		if (worker->broker_trouble && worker->assigned)
			spine_report_running(worker);
		worker->broker_trouble = false;
		return true;
	}
	was_silent = worker->broker_trouble && worker->logged.class != SPINE_NO_ERROR &&
		strncmp(worker->logged.message, SILENT_BROKER, strlen(SILENT_BROKER)) == 0;
	worker->broker_trouble = true;

	if (count == 0)
	{
		spine_error_set(&silence, SPINE_TRANSIENT, "topic \"%s\" does not exist", worker->log.topic);
		spine_error_set_hint(&silence, "Create it, or change \"topic\" in spine_pipelines or the setting spine.topic.");
		worker->assigned = false;
		spine_wait_out(worker, &silence);
		return false;
	}

	/* serve the library's reports: they may know more than "timed out" */
	error = client->error;
	strlcpy(reason, client->error_text, sizeof(reason));
	client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
	(void) spine_consumer_poll(worker->consumer, spine_batch_limit(worker));
	if (client->error != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		error = client->error;
		strlcpy(reason, client->error_text, sizeof(reason));
	}

	/* for as long as it is silent, the best reason so far stands, and is no news */
	if (was_silent && strcmp(reason, rd_kafka_err2str(error)) == 0)
		silence = worker->logged;
	else
	{
		spine_error_set(&silence, needs_a_person(error) ? SPINE_STRUCTURAL : SPINE_TRANSIENT,
						SILENT_BROKER "%s", reason);
		if (error == RD_KAFKA_RESP_ERR__SSL)
			spine_error_set_hint(&silence, "Its certificate must be valid today, for its name, and signed by an authority of ssl.ca.location.");
	}
	if (silence.class == SPINE_STRUCTURAL)
		spine_wait_for_help(worker, &silence);
	else
		spine_wait_out(worker, &silence);
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

	spine_trust_check(assignment->worker->plan->trust);
	spine_offsets_load(&assignment->worker->log, assignment->positions, assignment->n,
					   &assignment->known_topic, &assignment->worker->lost_log);
	return true;
}

static bool
insert_offsets(void *arg)
{
	Assignment *assignment = arg;

	spine_trust_check(assignment->worker->plan->trust);
	spine_offsets_insert(&assignment->worker->log, assignment->positions, assignment->n);
	spine_offsets_load(&assignment->worker->log, assignment->positions, assignment->n,
					   &assignment->known_topic, &assignment->worker->lost_log);
	return true;
}

/*
 * Asks for an offset of each partition, see spine_client_find_offsets; NULL,
 * with worker->error, when the broker does not answer.
 */
static int64 *
ask_for_offsets(Assignment *assignment, int64 time_ms)
{
	SpineWorker *worker = assignment->worker;
	SpineClient *client = worker->consumer->client;
	int32	   *partitions = palloc(Max(assignment->n, 1) * sizeof(int32));
	int64	   *offsets = palloc(Max(assignment->n, 1) * sizeof(int64));

	for (int i = 0; i < assignment->n; i++)
		partitions[i] = assignment->positions[i].partition;
	if (spine_client_find_offsets(client, worker->log.topic, assignment->n, partitions,
								  time_ms, offsets, BROKER_TIMEOUT_MS))
		return offsets;
	spine_error_set(&worker->error, SPINE_TRANSIENT, SILENT_BROKER "%s", client->error_text);
	return NULL;
}

/*
 * The first offset of partitions that were never read: written down before the
 * first record is, so that "latest" means what was latest then.
 */
static bool
find_first_offsets(Assignment *assignment)
{
	/* a partition that joins a topic we know is new: all of it; and so is a new log */
	bool		latest = assignment->worker->pipeline->starts_at_latest &&
		!assignment->known_topic && !assignment->worker->lost_log;
	int64	   *offsets = NULL;

	for (int i = 0; i < assignment->n; i++)
	{
		if (assignment->positions[i].next_offset >= 0)
			continue;
		if (offsets == NULL)
			offsets = ask_for_offsets(assignment, latest ? SPINE_LOG_END : SPINE_LOG_START);
		if (offsets == NULL)
			return false;
		if (offsets[i] < 0)
		{
			spine_error_set(&assignment->worker->error, SPINE_TRANSIENT,
							"the broker does not say where partition %d of topic \"%s\" begins",
					 assignment->positions[i].partition, assignment->worker->log.topic);
			return false;
		}
		assignment->positions[i].next_offset = offsets[i];
	}
	return true;
}

/*
 * Which partitions can be checked by their mark: retention may have taken it,
 * and the position is as good without.
 */
static bool
find_marks(Assignment *assignment)
{
	int64	   *starts = NULL;

	for (int i = 0; i < assignment->n; i++)
	{
		SpinePosition *position = &assignment->positions[i];

		position->is_checked = true;
		if (position->mark_offset < 0)
			continue;
		if (starts == NULL)
			starts = ask_for_offsets(assignment, SPINE_LOG_START);
		if (starts == NULL)
			return false;
		position->is_checked = position->mark_offset < starts[i];
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

/*
 * Fills the worker's positions from the database, adding rows where need be.  False:
 * worker->error says why not.
 */
static bool
find_offsets(SpineWorker *worker, Assignment *mine)
{
	Assignment	all;
	Assignment *unknown = mine;

	if (spine_transaction_run(load_offsets, mine, &worker->error) != SPINE_COMMITTED)
		return false;

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
	return find_first_offsets(unknown) &&
		spine_transaction_run(insert_offsets, unknown, &worker->error) == SPINE_COMMITTED &&
		(unknown == mine ||
		 spine_transaction_run(load_offsets, mine, &worker->error) == SPINE_COMMITTED) &&
		find_marks(mine);
}

/*
 * The embedded broker is another than the one that was read.  What that had, and
 * was not applied, nobody has: that is said, and the new one read.
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
	spine_set_worker_state(worker->slot, worker->slot->state, &error);
}

bool
spine_take_assignment(SpineWorker *worker)
{
	Assignment	assignment;

	if (worker->assigned)
		return true;
	if (!spine_count_partitions(worker))
		return false;
	strlcpy(worker->cluster_id, worker->consumer->client->cluster_id, sizeof(worker->cluster_id));
	worker->log.cluster_id = worker->cluster_id;

	assignment = list_partitions(worker, worker->index, worker->workers);
	if (assignment.n > 2 * worker->prefetch.partitions)
	{
		/* each would prefetch more than its share: start again with theirs */
		worker->prefetch.partitions = assignment.n;
		spine_disconnect(worker);
		return false;
	}

	if (!find_offsets(worker, &assignment))
	{
		spine_handle_error(worker);
		return false;
	}

	/* only now, so that it is not the trouble on the way here that stays to be read */
	if (worker->lost_log && worker->consumer->client->embedded)
		report_lost_log(worker);
	worker->lost_log = false;

	spine_consumer_assign(worker->consumer, assignment.positions, assignment.n);
	for (int p = -1; (p = bms_next_member(worker->stuck, p)) >= 0;)
	{
		/* the topic was deleted and made again, with fewer */
		if (p >= worker->consumer->npartitions)
			worker->stuck = bms_del_member(worker->stuck, p);
	}
	worker->assigned = true;
	worker->batch_started = 0;
	spine_prune_progress(&worker->log, worker->consumer->npartitions);
	spine_publish_progress(&worker->log, assignment.positions, assignment.n, -1);
	spine_report_running(worker);
	return true;
}

bool
spine_bound_prefetch(SpineWorker *worker)
{
	const SpineConsumer *consumer = worker->consumer;
	int			records;

	if (consumer->bytes < ENOUGH_BYTES || consumer->bytes < 2 * consumer->value_bytes)
		return false;
	records = SPINE_PREFETCH_KB * 1024.0 / consumer->bytes * consumer->nrecords;
	if (records >= worker->prefetch.records / 2)
		return false;
	worker->prefetch.records = Max(records, 1);
	spine_disconnect(worker);
	return true;
}

/* Does the log not have the position? */
static bool
is_lost(const SpinePosition *position)
{
	return position->stuck_error == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
		position->stuck_error == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
}

void
spine_note_partitions(SpineWorker *worker)
{
	SpineConsumer *consumer = worker->consumer;
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	bool		was_well = bms_is_empty(worker->stuck);

	for (int i = 0; i < consumer->npositions; i++)
	{
		SpinePosition *position = &consumer->positions[i];

		if (position->is_stuck)
		{
			worker->stuck = bms_add_member(worker->stuck, position->partition);

			/*
			 * It was read, and is no longer there: where the topic was made again,
			 * others may have grown beyond their positions.  Read all from their
			 * marks.
			 */
			if (position->is_read && is_lost(position))
				worker->assigned = false;
		}
		else if (position->is_read)
		{
			worker->stuck = bms_del_member(worker->stuck, position->partition);
			position->explained_at = 0;
		}
	}
	MemoryContextSwitchTo(old_context);

	if (!was_well && bms_is_empty(worker->stuck))
		spine_report_running(worker);
}

/*
 * What is wrong with a position that the log does not have.  False: nothing, by
 * now.
 */
static bool
describe_lost_offset(SpineWorker *worker, const SpinePosition *position, SpineError *error)
{
	SpineClient *client = worker->consumer->client;
	const char *topic = worker->log.topic;
	const char *pipeline = quote_literal_cstr(NameStr(worker->pipeline_name));
	int32		partition = position->partition;
	int64		next_offset = position->read_to;
	int64		start;
	int64		end;

	if (!spine_client_find_offsets(client, topic, 1, &partition, SPINE_LOG_START, &start, BROKER_TIMEOUT_MS) ||
		!spine_client_find_offsets(client, topic, 1, &partition, SPINE_LOG_END, &end, BROKER_TIMEOUT_MS))
		spine_error_set(error, SPINE_STRUCTURAL, "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not there",
						next_offset, partition, topic);
	else if (next_offset < start)
	{
		spine_error_set(error, SPINE_STRUCTURAL, "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone from the log before they were applied",
						next_offset, start - 1, partition, topic);
		spine_error_set_hint(error, "To go on without them: SELECT spine_seek(%s, %d, 'earliest')", pipeline, partition);
	}
	else if (next_offset > end)
	{
		spine_error_set(error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" ends at offset " INT64_FORMAT ", before the position " INT64_FORMAT ": it is not the log that was read before",
						partition, topic, end, next_offset);
		spine_error_set_hint(error, "To read it from its start: SELECT spine_seek(%s, %d, 'earliest')", pipeline, partition);
	}
	else
		return false;
	return true;
}

/* What is wrong with the partition that is stuck.  False: nothing, by now. */
static bool
describe_stuck_partition(SpineWorker *worker, const SpinePosition *position, SpineError *error)
{
	if (is_lost(position))
		return describe_lost_offset(worker, position, error);
	if (position->stuck_error == RD_KAFKA_RESP_ERR__INCONSISTENT)
	{
		spine_error_set(error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" has another record at offset " INT64_FORMAT " than the one that was read: it is not the log that was read before",
						position->partition, worker->log.topic, position->mark_offset);
		spine_error_set_hint(error, "To read it from its start: SELECT spine_seek(%s, %d, 'earliest')",
							 quote_literal_cstr(NameStr(worker->pipeline_name)), position->partition);
	}
	else
		spine_error_set(error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" cannot be read from offset " INT64_FORMAT ": %s",
						position->partition, worker->log.topic, position->read_to,
						position->stuck_text ? position->stuck_text : rd_kafka_err2str(position->stuck_error));
	return true;
}

/* Says what is wrong; in the log the first time, for the next may be another's turn. */
static void
explain_stuck_partition(SpineWorker *worker, SpinePosition *position)
{
	SpineError	error;

	if (describe_stuck_partition(worker, position, &error))
	{
		if (position->explained_at != 0)
			worker->logged = error;
		spine_report_failed(worker, &error);
	}
	position->explained_at = GetCurrentTimestamp();
}

bool
spine_help_partitions(SpineWorker *worker)
{
	SpineConsumer *consumer = worker->consumer;
	TimestampTz now = GetCurrentTimestamp();
	Assignment	again = {.worker = worker};
	SpinePosition **positions = NULL;
	bool		has_explained = false;

	for (int i = 0; i < consumer->npositions; i++)
	{
		SpinePosition *position = &consumer->positions[i];
		bool		is_due = position->is_stuck && !has_explained &&
			TimestampDifferenceExceeds(position->explained_at, now, SPINE_STUCK_RETRY_MS);

		if (!position->is_suspect && !is_due)
			continue;
		if (positions == NULL)
		{
			positions = palloc(consumer->npositions * sizeof(SpinePosition *));
			again.positions = palloc(consumer->npositions * sizeof(SpinePosition));
		}
		if (is_due)
			explain_stuck_partition(worker, position);
		has_explained = has_explained || is_due;
		spine_consumer_mark(consumer, position);
		positions[again.n] = position;
		again.positions[again.n++] = *position;
	}

	/* if the broker does not answer, the loop finds out why, and comes back here */
	if (again.n == 0)
		return false;
	if (!find_marks(&again))
		return true;
	for (int i = 0; i < again.n; i++)
		positions[i]->is_checked = again.positions[i].is_checked;
	if (!spine_consumer_restart(consumer, positions, again.n))
		worker->assigned = false;
	return true;
}

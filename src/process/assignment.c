/*
 * assignment.c
 *		Finds the positions of a worker's partitions: in the database, or where the
 *		database has none, at the broker.
 */
#include "process/assignment.h"

#include "apply/transaction.h"
#include "catalog/topics.h"
#include "common/hashfn.h"
#include "process/share.h"

/* Positions while they are looked for. */
typedef struct Search
{
	const SpineAssignmentRequest *request;
	SpinePosition *positions;
	int			n;
	bool		known_topics;	/* the database has a position of some partition */
	bool		lost_log;
} Search;

int
spine_assignment_worker(const char *topics, const char *topic, int32 partition, int workers)
{
	uint32		number = partition;

	if (!spine_topics_is_one(topics))
		number += DatumGetUInt32(hash_any((const unsigned char *) topic, strlen(topic)));
	return number % workers;
}

/* The partitions of the worker, or of all workers; never read, as far as is known. */
static Search
list_partitions(const SpineAssignmentRequest *request, bool of_all)
{
	Search		search = {.request = request};
	Size		npartitions = 0;

	for (int i = 0; i < request->ntopics; i++)
		npartitions += request->topics[i].npartitions;
	search.positions = palloc_extended(Max(npartitions, 1) * sizeof(SpinePosition), MCXT_ALLOC_HUGE);
	LWLockAcquire(spine_shared->lock, LW_SHARED);
	for (int i = 0; i < request->ntopics; i++)
	{
		const SpineTopic *topic = &request->topics[i];

		for (int p = 0; p < topic->npartitions; p++)
		{
			if (of_all || spine_share_reader(&request->log->pipeline, request->log->topics, topic->name, p,
											 request->workers) == request->index)
				search.positions[search.n++] = (SpinePosition) {
					.topic = topic->name, .partition = p, .next_offset = -1, .mark_offset = -1
				};
		}
	}
	LWLockRelease(spine_shared->lock);
	return search;
}

/* Step. */
static bool
load_positions(void *arg)
{
	Search	   *search = arg;

	spine_trust_check(search->request->plan->trust);
	spine_positions_load(search->request->log, search->positions, search->n,
						 &search->known_topics, &search->lost_log);
	return true;
}

/* Step. */
static bool
insert_positions(void *arg)
{
	Search	   *search = arg;

	spine_trust_check(search->request->plan->trust);
	spine_positions_insert(search->request->log, search->positions, search->n);

	/* another worker may have been first */
	spine_positions_load(search->request->log, search->positions, search->n,
						 &search->known_topics, &search->lost_log);
	return true;
}

/*
 * The first offset of partitions that were never read.  It is written down before the
 * first record is read, so that "latest" means what was latest then.
 */
static bool
find_first_offsets(Search *search, SpineError *error)
{
	const SpineAssignmentRequest *request = search->request;
	SpineTopicPartition *partitions = palloc_extended(Max(search->n, 1) * sizeof(SpineTopicPartition),
													  MCXT_ALLOC_HUGE);
	SpinePosition **unknown = palloc_extended(Max(search->n, 1) * sizeof(SpinePosition *), MCXT_ALLOC_HUGE);
	int64	   *offsets;
	int64		first = SPINE_LOG_START;
	int			n = 0;

	for (int i = 0; i < search->n; i++)
	{
		SpinePosition *position = &search->positions[i];

		if (position->next_offset >= 0)
			continue;
		partitions[n] = (SpineTopicPartition) {position->topic, position->partition};
		unknown[n++] = position;
	}

	/*
	 * In a partition or a topic that joins those we know, everything is new; so it is in a
	 * new log.
	 */
	if (request->starts_at_latest && !search->known_topics && !search->lost_log)
		first = SPINE_LOG_END;
	offsets = palloc_extended(Max(n, 1) * sizeof(int64), MCXT_ALLOC_HUGE);
	if (!spine_consumer_find_offsets(request->consumer, n, partitions, first, offsets, error))
		return false;

	for (int i = 0; i < n; i++)
	{
		if (offsets[i] < 0)
		{
			spine_error_set(error, SPINE_TRANSIENT, "the broker does not say where partition %d of topic \"%s\" begins",
							partitions[i].partition, partitions[i].topic);
			return false;
		}
		unknown[i]->next_offset = offsets[i];
	}
	return true;
}

SpinePosition *
spine_assignment_make(const SpineAssignmentRequest *request, int *n, bool *lost_log, SpineError *error)
{
	Search		mine = list_partitions(request, false);
	Search		all;
	Search	   *unknown = &mine;
	bool		found;

	mine.lost_log = *lost_log;
	found = spine_transaction_run(load_positions, &mine, error) == SPINE_COMMITTED;

	/*
	 * In topics that were never read, the first worker writes down where all of them
	 * begin.  Otherwise the next worker would take its partitions for newly added.
	 */
	if (found && !mine.known_topics)
	{
		all = list_partitions(request, true);
		all.lost_log = mine.lost_log;
		unknown = &all;
	}
	found = found && find_first_offsets(unknown, error) &&
		spine_transaction_run(insert_positions, unknown, error) == SPINE_COMMITTED &&
		(unknown == &mine ||
		 spine_transaction_run(load_positions, &mine, error) == SPINE_COMMITTED);

	*lost_log = mine.lost_log || unknown->lost_log;
	*n = mine.n;
	return found ? mine.positions : NULL;
}

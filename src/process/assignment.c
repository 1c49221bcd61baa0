/*
 * assignment.c
 *		Finds the positions of a worker's partitions: in the database, or where the
 *		database has none, at the broker.
 */
#include "process/assignment.h"

#include "apply/transaction.h"

/* Positions while they are looked for. */
typedef struct Search
{
	const SpineAssignmentRequest *request;
	SpinePosition *positions;
	int			n;
	bool		known_topic;	/* the database has a position of some partition */
	bool		lost_log;
} Search;

/* Every step-th partition from `first` on, never read as far as is known. */
static Search
list_partitions(const SpineAssignmentRequest *request, int first, int step)
{
	Search		search = {.request = request};

	search.positions = palloc0((request->npartitions / step + 1) * sizeof(SpinePosition));
	for (int p = first; p < request->npartitions; p += step)
	{
		search.positions[search.n].partition = p;
		search.positions[search.n].next_offset = -1;
		search.positions[search.n].mark_offset = -1;
		search.n++;
	}
	return search;
}

/* Step. */
static bool
load_positions(void *arg)
{
	Search	   *search = arg;

	spine_trust_check(search->request->plan->trust);
	spine_positions_load(search->request->log, search->positions, search->n,
						 &search->known_topic, &search->lost_log);
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
						 &search->known_topic, &search->lost_log);
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
	int32	   *partitions = palloc(Max(search->n, 1) * sizeof(int32));
	int64	   *offsets = palloc(Max(search->n, 1) * sizeof(int64));
	bool		all_known = true;
	int64		first = SPINE_LOG_START;

	for (int i = 0; i < search->n; i++)
	{
		partitions[i] = search->positions[i].partition;
		all_known &= search->positions[i].next_offset >= 0;
	}
	if (all_known)
		return true;

	/* in a partition that joins a topic we know, everything is new; so it is in a new log */
	if (request->starts_at_latest && !search->known_topic && !search->lost_log)
		first = SPINE_LOG_END;
	if (!spine_consumer_find_offsets(request->consumer, search->n, partitions, first, offsets, error))
		return false;

	for (int i = 0; i < search->n; i++)
	{
		if (search->positions[i].next_offset >= 0)
			continue;
		if (offsets[i] < 0)
		{
			spine_error_set(error, SPINE_TRANSIENT, "the broker does not say where partition %d of topic \"%s\" begins",
							partitions[i], request->log->topic);
			return false;
		}
		search->positions[i].next_offset = offsets[i];
	}
	return true;
}

SpinePosition *
spine_assignment_make(const SpineAssignmentRequest *request, int *n, bool *lost_log, SpineError *error)
{
	Search		mine = list_partitions(request, request->index, request->workers);
	Search		all;
	Search	   *unknown = &mine;
	bool		found;

	mine.lost_log = *lost_log;
	found = spine_transaction_run(load_positions, &mine, error) == SPINE_COMMITTED;

	/*
	 * On a topic that was never read, the first worker writes down where all of it
	 * begins.  Otherwise the next worker would take its partitions for newly added.
	 */
	if (found && !mine.known_topic)
	{
		all = list_partitions(request, 0, 1);
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

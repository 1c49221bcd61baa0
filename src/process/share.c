/*
 * share.c
 *		Who reads a partition, where that is not the worker that its number says.
 */
#include "process/share.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "process/assignment.h"
#include "process/status.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define STAY_MS		3000		/* that a partition is kept at least by whom it was given to */

PG_FUNCTION_INFO_V1(spine_partition_worker);

int
spine_share_reader(const NameData *pipeline, const char *topics, const char *topic,
				   int32 partition, int workers)
{
	const SpineProgress *progress = workers > 1 ? spine_status_find(pipeline, topic, partition) : NULL;

	/* what was said of another number of workers does not hold */
	if (progress && progress->given_of == workers)
		return progress->given_to;
	return spine_assignment_worker(topics, topic, partition, workers);
}

Datum
spine_partition_worker(PG_FUNCTION_ARGS)
{
	Name		pipeline = PG_GETARG_NAME(0);
	char	   *topics = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *topic = text_to_cstring(PG_GETARG_TEXT_PP(2));
	int			worker;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	worker = spine_share_reader(pipeline, topics, topic, PG_GETARG_INT32(3), Max(PG_GETARG_INT32(4), 1));
	LWLockRelease(spine_shared->lock);
	PG_RETURN_INT32(worker);
}

void
spine_share_begin_assignment(SpineWorkerSlot *slot)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	slot->share_changed = false;
	LWLockRelease(spine_shared->lock);
}

static bool
is_of_pipeline(const SpineWorkerSlot *slot, const NameData *pipeline, int workers)
{
	return slot->database == MyDatabaseId && slot->pid != 0 && slot->workers == workers &&
		strcmp(NameStr(slot->pipeline), NameStr(*pipeline)) == 0;
}

static void
announce(SpineWorkerSlot *slot)
{
	slot->share_changed = true;
	SetLatch(slot->latch);
}

void
spine_share_announce(const NameData *pipeline, int workers)
{
	Assert(LWLockHeldByMe(spine_shared->lock));
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		if (is_of_pipeline(&spine_shared->workers[i], pipeline, workers))
			announce(&spine_shared->workers[i]);
	}
}

void
spine_share_set_idle(SpineWorkerSlot *slot, bool is_idle)
{
	if (slot->is_idle == is_idle)
		return;
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	slot->is_idle = is_idle;
	LWLockRelease(spine_shared->lock);
}

/* NULL: nobody would take anything.  The caller holds the lock. */
static SpineWorkerSlot *
find_taker(const SpineWorkerSlot *giver)
{
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		SpineWorkerSlot *slot = &spine_shared->workers[i];

		if (slot != giver && is_of_pipeline(slot, &giver->pipeline, giver->workers) && slot->wanted &&
			slot->state == SPINE_RUNNING && slot->is_idle && !slot->share_changed)
			return slot;
	}
	return NULL;
}

bool
spine_share_has_taker(const SpineWorkerSlot *giver)
{
	bool		has_taker;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	has_taker = find_taker(giver) != NULL;
	LWLockRelease(spine_shared->lock);
	return has_taker;
}

bool
spine_share_may_give(const NameData *pipeline, const char *topic, int32 partition)
{
	TimestampTz now = GetCurrentTimestamp();
	const SpineProgress *progress;
	bool		may;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	progress = spine_status_find(pipeline, topic, partition);
	may = progress && TimestampDifferenceExceeds(progress->given_at, now, STAY_MS);
	LWLockRelease(spine_shared->lock);
	return may;
}

bool
spine_share_give(const SpineWorkerSlot *giver, const SpineTopicPartition *partitions, int n)
{
	TimestampTz now = GetCurrentTimestamp();
	SpineWorkerSlot *taker;
	bool		are_given;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	taker = find_taker(giver);
	are_given = taker != NULL;
	for (int i = 0; taker && i < n; i++)
	{
		SpineProgress *progress = spine_status_find(&giver->pipeline, partitions[i].topic, partitions[i].partition);

		if (progress == NULL)	/* another worker has seen no such topic */
		{
			are_given = false;
			continue;
		}
		progress->given_to = taker->index;
		progress->given_of = taker->workers;
		progress->given_at = now;
	}
	if (taker)
	{
		taker->is_idle = false;
		announce(taker);
	}
	LWLockRelease(spine_shared->lock);
	return are_given;
}

bool
spine_share_give_back(const SpineWorkerSlot *slot)
{
	HASH_SEQ_STATUS scan;
	SpineProgress *progress;
	bool		had_some = false;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, spine_progress);
	while ((progress = hash_seq_search(&scan)) != NULL)
	{
		if (progress->key.database != MyDatabaseId || progress->given_of != slot->workers ||
			progress->given_to != slot->index ||
			strcmp(NameStr(progress->key.pipeline), NameStr(slot->pipeline)) != 0)
			continue;
		progress->given_of = 0;
		had_some = true;
	}
	if (had_some)
		spine_share_announce(&slot->pipeline, slot->workers);
	LWLockRelease(spine_shared->lock);
	return had_some;
}

/*
 * share.h
 *		Which worker of a pipeline reads a partition, in shared memory.
 *
 * Each partition has a worker by its number (spine_assignment_worker).  A worker with a
 * backlog may give some of its partitions to an idle worker of the same pipeline: it stops
 * reading them, and then says here who reads them from now on.  That worker takes their
 * positions from the database.  So every partition always has exactly one worker, which
 * looks here whenever it assigns; a worker that ends gives back what it was given.  What is
 * said here holds as long as the pipeline has as many workers, and the server's shared
 * memory.
 *
 * Two workers may believe for a moment that a partition is theirs.  The fence of
 * positions.c makes that harmless.
 */
#ifndef SPINE_SHARE_H
#define SPINE_SHARE_H

#include "event/position.h"
#include "process/shared.h"

/* Which worker reads a partition of the pipeline.  The caller holds the lock. */
extern int spine_share_reader(const NameData *pipeline, const char *topics, const char *topic,
							  int32 partition, int workers);

/* The worker looks now which partitions are its own.  Takes the lock. */
extern void spine_share_begin_assignment(SpineWorkerSlot *slot);

/*
 * The workers of a pipeline, that run as so many, have to look which partitions are theirs.
 * The caller holds the lock.
 */
extern void spine_share_announce(const NameData *pipeline, int workers);

/* Would this worker take partitions from others?  Takes the lock if that has changed. */
extern void spine_share_set_idle(SpineWorkerSlot *slot, bool is_idle);

/* Is there another worker of the pipeline that would take partitions?  Takes the lock. */
extern bool spine_share_has_taker(const SpineWorkerSlot *giver);

/*
 * May a partition be given away: is it known to others, and was it not given to this worker a
 * moment ago?  Takes the lock.
 */
extern bool spine_share_may_give(const NameData *pipeline, const char *topic, int32 partition);

/*
 * Gives partitions, which this worker does not read any more, to one that would take them.
 * False: some are still this worker's, as there is none by now, or their topic is gone.  Takes
 * the lock.
 */
extern bool spine_share_give(const SpineWorkerSlot *giver, const SpineTopicPartition *partitions, int n);

/*
 * What was given to this worker goes back to the workers that have it by its number.
 * False: there was nothing.  Takes the lock.
 */
extern bool spine_share_give_back(const SpineWorkerSlot *slot);

#endif							/* SPINE_SHARE_H */

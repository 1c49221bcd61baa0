/*
 * assignment.h
 *		Which partitions a worker reads, and from where.
 */
#ifndef SPINE_ASSIGNMENT_H
#define SPINE_ASSIGNMENT_H

#include "process/worker_state.h"

/*
 * Asks the broker for the topic's partitions; a new number ends the
 * assignment.  False: it does not answer, or has no such topic, and the worker
 * has said so and rested.
 */
extern bool spine_count_partitions(SpineWorker *worker);

/*
 * Unless it has one: takes the assignment, from where the database stands.
 * False as above.
 */
extern bool spine_take_assignment(SpineWorker *worker);

/*
 * After each poll: are the records much larger than the library knows?  Then it
 * connects again, to prefetch fewer.  Drops the batch.
 */
extern bool spine_bound_prefetch(SpineWorker *worker);

/*
 * Then: remembers which partitions cannot be read further, and which
 * can again.  Ends the assignment when one is found to be another log.
 */
extern void spine_note_partitions(SpineWorker *worker);

/*
 * Then: says of each stuck partition what is wrong with it, at once and every
 * SPINE_STUCK_RETRY_MS, and tries it again, for the library reports such an error
 * only once.  Checks by their marks those that are read over another connection
 * than before.  The others go on meanwhile: it asks the broker about one that is
 * stuck at a time.  True: there may be more to do.
 */
#define SPINE_STUCK_RETRY_MS	5000
extern bool spine_help_partitions(SpineWorker *worker);

#endif							/* SPINE_ASSIGNMENT_H */

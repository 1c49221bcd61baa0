/*
 * assignment.h
 *		Which partitions a worker reads, and from where.
 */
#ifndef SPINE_ASSIGNMENT_H
#define SPINE_ASSIGNMENT_H

#include "worker_state.h"

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
 * After each poll: remembers which partitions cannot be read further, and which
 * can again.  The others go on meanwhile.
 */
extern void spine_note_partitions(SpineWorker *worker);

/* Is there a stuck partition that it is time to say something of? */
extern bool spine_partitions_need_help(const SpineWorker *worker);

/*
 * Says what is wrong with it, and connects anew: the library reports such an
 * error only once, and the position may have been changed.  Drops the batch.
 */
extern void spine_report_stuck_partition(SpineWorker *worker);

#endif							/* SPINE_ASSIGNMENT_H */

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
 * A position that the log does not have (any more): says which offsets are
 * missing, and rests.  The assignment is taken again afterwards.
 */
extern void spine_report_lost_partition(SpineWorker *worker);

#endif							/* SPINE_ASSIGNMENT_H */

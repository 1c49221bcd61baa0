/*
 * find_topics.h
 *		Which topics of the cluster a pipeline reads now.
 */
#ifndef SPINE_FIND_TOPICS_H
#define SPINE_FIND_TOPICS_H

#include "kafka/client.h"

/*
 * Asks the cluster.  The topics of a list, each with 0 partitions if it does not exist, or
 * those that match the expression; in the order of strcmp; palloc'ed.  NULL: there is no
 * answer, and spine_client_error says why.  In a transaction or not; waits, and serves
 * interrupts.
 */
extern SpineTopic *spine_topics_find(SpineClient *client, const char *topics, int *n, int timeout_ms);

/* Are the two answers the same? */
extern bool spine_topics_are_same(const SpineTopic *a, int na, const SpineTopic *b, int nb);

/* A copy in one piece of memory, which the caller frees with pfree. */
extern SpineTopic *spine_topics_copy(const SpineTopic *topics, int n, MemoryContext context);

#endif							/* SPINE_FIND_TOPICS_H */

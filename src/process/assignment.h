/*
 * assignment.h
 *		Which partitions of which topics a worker reads, and from where.
 */
#ifndef SPINE_ASSIGNMENT_H
#define SPINE_ASSIGNMENT_H

#include "apply/plan.h"
#include "error.h"
#include "kafka/consumer.h"
#include "process/positions.h"

/* What an assignment is made from. */
typedef struct SpineAssignmentRequest
{
	const SpineLog *log;
	const SpinePlan *plan;		/* whose sinks have to be trusted before rows are written */
	SpineConsumer *consumer;	/* connected */
	const SpineTopic *topics;	/* in order; those without partitions are left out */
	int			ntopics;
	int			index;			/* of the worker */
	int			workers;		/* of the pipeline */
	bool		starts_at_latest;	/* where nothing was ever read */
} SpineAssignmentRequest;

/*
 * Which worker reads a partition that was not given to another: for a pipeline of one topic by the partition's number;
 * otherwise by the topic's name as well, so that topics of one partition are spread.  The
 * set of topics does not matter: a new topic moves no partition of another to another
 * worker.
 */
extern int	spine_assignment_worker(const char *topics, const char *topic, int32 partition, int workers);

/*
 * The worker's partitions with their positions, by topic and number, palloc'ed.  Adds
 * rows to spine_offsets for partitions that were never read.  *lost_log is set when the
 * positions were those of an embedded broker that has ended; it is the caller's to
 * remember until an assignment succeeds.
 *
 * NULL: *error says why not.  Runs transactions of its own; waits for the broker.
 */
extern SpinePosition *spine_assignment_make(const SpineAssignmentRequest *request, int *n,
											bool *lost_log, SpineError *error);

#endif							/* SPINE_ASSIGNMENT_H */

/*
 * assignment.h
 *		Which partitions a worker reads, and from where.
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
	int			npartitions;	/* of the topic */
	int			index;			/* the worker takes the partitions p */
	int			workers;		/* with p % workers == index */
	bool		starts_at_latest;	/* where nothing was ever read */
} SpineAssignmentRequest;

/*
 * The worker's partitions with their positions, in ascending order, palloc'ed.  Adds
 * rows to spine_offsets for partitions that were never read.  *lost_log is set when the
 * positions were those of an embedded broker that has ended; it is the caller's to
 * remember until an assignment succeeds.
 *
 * NULL: *error says why not.  Runs transactions of its own; waits for the broker.
 */
extern SpinePosition *spine_assignment_make(const SpineAssignmentRequest *request, int *n,
											bool *lost_log, SpineError *error);

#endif							/* SPINE_ASSIGNMENT_H */

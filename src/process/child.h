/*
 * child.h
 *		A background worker that the launcher starts, and starts again when it has
 *		ended.
 */
#ifndef SPINE_CHILD_H
#define SPINE_CHILD_H

#include "compat.h"
#include "datatype/timestamp.h"
#include "postmaster/bgworker.h"

/* As only the launcher sees it; zero: never started. */
typedef struct SpineChild
{
	BackgroundWorkerHandle *handle; /* NULL: not started, or ended */
	TimestampTz start_after;	/* 0: at once */
	int			failures;		/* in a row, as the launcher counts them: the pauses double */
	int			signalled_pid;	/* told to end */
} SpineChild;

/* Is there no such process?  Notices that it has ended. */
extern bool spine_child_is_stopped(SpineChild *child);

/*
 * Starts the process, with an exported main function of spine.  The handle is kept in
 * the current memory context.  False: the server has no room for it now; start_after
 * says when to try again.
 */
extern bool spine_child_start(SpineChild *child, const char *function, const char *type,
							  const char *name, Datum argument);

/* Asks a process to end, once.  pid 0: it is not running. */
extern void spine_child_stop(SpineChild *child, int pid);

#endif							/* SPINE_CHILD_H */

/*
 * worker_status.h
 *		How a worker says how it is: in spine_status always, in the log when it is news.
 */
#ifndef SPINE_WORKER_STATUS_H
#define SPINE_WORKER_STATUS_H

#include "error.h"
#include "kafka/consumer.h"
#include "process/shared.h"

typedef struct SpineWorkerStatus
{
	SpineWorkerSlot *slot;
	NameData	pipeline;
	SpineError	reported;		/* the last one in the log; SPINE_NO_ERROR: all is well */
	int			retry_ms;		/* how long to rest after the next transient error */
} SpineWorkerStatus;

/*
 * The worker cannot go on, or only in part: it is waiting if the error will pass, and
 * failed otherwise.  is_news: the log is told even if it has the same error already.
 */
extern void spine_worker_status_trouble(SpineWorkerStatus *status, const SpineError *error, bool is_news);

/*
 * The same for a partition that cannot be read, with what to do about it.  one_topic: the
 * pipeline has one topic, which need not be named.
 */
extern void spine_worker_status_stuck(SpineWorkerStatus *status, const SpineStuck *stuck, bool one_topic);

/* All is well again; or, if not everything is, the worker stays failed. */
extern void spine_worker_status_running(SpineWorkerStatus *status, bool is_well);

/* How long to rest after this error: longer each time until all is well again. */
extern long spine_worker_status_rest_ms(SpineWorkerStatus *status, const SpineError *error);

#endif							/* SPINE_WORKER_STATUS_H */

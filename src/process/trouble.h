/*
 * trouble.h
 *		What a worker does when a step did not succeed.
 */
#ifndef SPINE_TROUBLE_H
#define SPINE_TROUBLE_H

#include "process/worker_state.h"

/* All is well (again). */
extern void spine_report_running(SpineWorker *worker);

/* Says that it needs a person, without resting. */
extern void spine_report_failed(SpineWorker *worker, const SpineError *error);

/* Says that it waits, and rests; longer each time until all is well again. */
extern void spine_wait_out(SpineWorker *worker, const SpineError *error);

/* Says that it needs a person, and rests for long. */
extern void spine_wait_for_help(SpineWorker *worker, const SpineError *error);

/* The above, by the class of worker->error. */
extern void spine_handle_error(SpineWorker *worker);

/* What a batch was not committed for. */
extern void spine_handle_outcome(SpineWorker *worker, SpineBatchOutcome outcome);

#endif							/* SPINE_TROUBLE_H */

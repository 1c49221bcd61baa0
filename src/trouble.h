/*
 * trouble.h
 *		What a worker does when a step did not succeed.
 */
#ifndef SPINE_TROUBLE_H
#define SPINE_TROUBLE_H

#include "worker_state.h"

/* All is well (again). */
extern void spine_report_running(SpineWorker *worker);

/* Says that it needs a person, without resting. */
extern void spine_report_failed(SpineWorker *worker, const char *text);

/* Says that it waits, and rests; longer each time until all is well again. */
extern void spine_wait_out(SpineWorker *worker, const char *text);

/* Says that it needs a person, and rests for long. */
extern void spine_wait_for_help(SpineWorker *worker, const char *text);

/* The above, by the outcome of an attempt; worker->error says what it was. */
extern void spine_handle_outcome(SpineWorker *worker, SpineOutcome outcome);

#endif							/* SPINE_TROUBLE_H */

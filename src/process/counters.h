/*
 * counters.h
 *		What the workers have done since the server started, for the view
 *		spine_metrics.
 *
 * These functions take the lock.  A pipeline for which there is no room is not
 * counted.
 */
#ifndef SPINE_COUNTERS_H
#define SPINE_COUNTERS_H

#include "apply/apply.h"
#include "process/shared.h"

/* n records of this pipeline were read from the broker. */
extern void spine_counters_add_records(const NameData *pipeline, size_t n);

/* A batch of this pipeline was committed. */
extern void spine_counters_add_batch(const NameData *pipeline, const SpineApplyCounts *counts,
									 double seconds);

#endif							/* SPINE_COUNTERS_H */

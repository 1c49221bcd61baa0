/*
 * status.h
 *		What workers publish, and the SQL functions that show it.
 */
#ifndef SPINE_STATUS_H
#define SPINE_STATUS_H

#include "kafka/consumer.h"
#include "process/positions.h"
#include "process/shared.h"

/*
 * Sets the state of this worker.  error: what is wrong, or NULL, which keeps the last
 * error to be read.  Takes the lock.
 */
extern void spine_status_set_state(SpineWorkerSlot *slot, SpineWorkerState state,
								   const SpineError *error);

/* A batch of this worker is under way from now on.  Takes the lock. */
extern void spine_status_begin_batch(SpineWorkerSlot *slot);

/*
 * Publishes positions and high watermarks, and wakes those who wait for progress.  Takes
 * the lock.
 */
extern void spine_status_publish_positions(const SpineLog *log, const SpineProgressReport *reports, int n);

/* The same for the moves of a batch that is committed. */
extern void spine_status_publish_batch(const SpineLog *log, const SpineMove *moves, int n, double batch_ms);

/*
 * These are the topics of the pipeline now, in the order of strcmp: publishes which of them
 * do not exist, and forgets what is published for other topics and for partitions that
 * they do not have.  Takes the lock.
 */
extern void spine_status_set_topics(const SpineLog *log, const SpineTopic *topics, int n);

/* What is published of a partition of this database, or NULL.  The caller holds the lock. */
extern SpineProgress *spine_status_find(const NameData *pipeline, const char *topic, int32 partition);

/*
 * The position that is published of a partition of this database, or -1 when none is for
 * this topic and cluster.  The caller holds the lock.
 */
extern int64 spine_status_applied_offset(const NameData *pipeline, const char *topic,
										 const char *cluster_id, int32 partition);

#endif							/* SPINE_STATUS_H */

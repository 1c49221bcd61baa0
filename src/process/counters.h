/*
 * counters.h
 *		What has been done since the server started, for the view spine_metrics.
 *
 * All of these take the lock.  What there is no room to count is left out; of
 * tenants, it is counted together.
 */
#ifndef SPINE_COUNTERS_H
#define SPINE_COUNTERS_H

#include "process/shared.h"

/* n records of this pipeline were read from the broker. */
extern void spine_count_consumed(const NameData *pipeline, size_t n);

/* A batch of this pipeline was committed, and wrote so many rows by upserts. */
extern void spine_count_batch(const NameData *pipeline, uint64 upserts, double seconds);

/* The broker acknowledged n events of a tenant, whose name is UTF-8. */
extern void spine_count_produced(const char *tenant, size_t len, int64 n);

/* Forgets pipelines of this database that are not among those given. */
extern void spine_keep_counters_of(const NameData *pipelines, uint64 n);

/* Forgets a database. */
extern void spine_forget_counters(Oid database);

#endif							/* SPINE_COUNTERS_H */

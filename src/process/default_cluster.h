/*
 * default_cluster.h
 *		The cluster that the settings name: spine.brokers with spine.kafka_options, or
 *		the embedded broker.
 */
#ifndef SPINE_DEFAULT_CLUSTER_H
#define SPINE_DEFAULT_CLUSTER_H

#include "kafka/cluster.h"

/* Defines the settings; called from _PG_init. */
extern void spine_default_cluster_init(void);

/* Is it the embedded broker, running or not? */
extern bool spine_default_cluster_is_embedded(void);

/*
 * The default cluster as it is now; its strings are palloc'ed.  Its address is NULL
 * while the embedded broker is not running.  Takes the lock of the shared memory.
 */
extern SpineCluster spine_default_cluster(void);

/*
 * The same, but waits for the embedded broker, which comes up shortly after CREATE
 * EXTENSION, and raises an error when it does not.  In a backend.  Takes the lock.
 */
extern SpineCluster spine_default_cluster_await(void);

#endif							/* SPINE_DEFAULT_CLUSTER_H */

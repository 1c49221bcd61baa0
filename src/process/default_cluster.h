/*
 * default_cluster.h
 *		The cluster that the settings name: spine.brokers, or the embedded broker.
 */
#ifndef SPINE_DEFAULT_CLUSTER_H
#define SPINE_DEFAULT_CLUSTER_H

#include "kafka/cluster.h"

/*
 * The default cluster as it is now; its strings are palloc'ed.  Its address is NULL
 * while the embedded broker is not running.  Takes the lock of the shared memory.
 */
extern SpineCluster spine_default_cluster(void);

/*
 * The same, but waits for the embedded broker, which comes up shortly after CREATE
 * EXTENSION; raises an error when it does not.  In a backend.
 */
extern SpineCluster spine_default_cluster_await(void);

#endif							/* SPINE_DEFAULT_CLUSTER_H */

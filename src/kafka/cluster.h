/*
 * cluster.h
 *		A Kafka cluster as a value: where it is, how to connect, and which one it is.
 *
 * Every function that starts a client is given a cluster.  A process may know several.
 */
#ifndef SPINE_CLUSTER_H
#define SPINE_CLUSTER_H

#include "compat.h"

#define SPINE_MAX_CLUSTER_LEN	64	/* of an identity, with its NUL */

typedef struct SpineCluster
{
	const char *address;		/* host:port[,...]; NULL: the embedded broker is not running */
	const char *options;		/* more options of librdkafka, as in spine.kafka_options */
	bool		embedded;
	char		identity[SPINE_MAX_CLUSTER_LEN];	/* of the embedded broker, which is
													 * new at each start; "" of others,
													 * which tell it themselves */
	Oid			server;			/* that declares the cluster; InvalidOid: the settings do */
	const char *server_name;	/* NULL: there is none */
} SpineCluster;

/* Would a client of one be a client of the other, too? */
extern bool spine_cluster_is_same(const SpineCluster *a, const SpineCluster *b);

/* A copy whose strings are in the given memory context. */
extern SpineCluster spine_cluster_copy(const SpineCluster *cluster, MemoryContext context);

/* Frees the strings of a copy. */
extern void spine_cluster_free(SpineCluster *copy);

#endif							/* SPINE_CLUSTER_H */

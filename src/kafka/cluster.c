/*
 * cluster.c
 *		Compares and copies clusters.
 */
#include "kafka/cluster.h"

bool
spine_cluster_is_same(const SpineCluster *a, const SpineCluster *b)
{
	if (a->address == NULL || b->address == NULL)
		return a->address == b->address;
	return a->embedded == b->embedded && a->server == b->server && strcmp(a->address, b->address) == 0 &&
		strcmp(a->options, b->options) == 0 && strcmp(a->identity, b->identity) == 0;
}

SpineCluster
spine_cluster_copy(const SpineCluster *cluster, MemoryContext context)
{
	SpineCluster copy = *cluster;

	copy.address = cluster->address ? MemoryContextStrdup(context, cluster->address) : NULL;
	copy.options = MemoryContextStrdup(context, cluster->options);
	copy.server_name = cluster->server_name ? MemoryContextStrdup(context, cluster->server_name) : NULL;
	return copy;
}

void
spine_cluster_free(SpineCluster *copy)
{
	const char *strings[] = {copy->address, copy->options, copy->server_name};

	for (int i = 0; i < (int) lengthof(strings); i++)
	{
		if (strings[i])
			pfree((void *) strings[i]);
	}
}

/*
 * client_cache.c
 *		Keeps a process's producers.
 *
 * Between its uses nobody polls a client, and a session may do nothing for days: the
 * client rests meanwhile.  When the declaration of a cluster has changed, or the embedded
 * broker was started again, the client of the old one is closed.
 */
#include "kafka/client_cache.h"

#include "kafka/library.h"

#define MAX_CLIENTS		4

typedef struct CachedClient
{
	SpineClient *client;		/* NULL: the entry is free */
	SpineCluster cluster;		/* that it was started with; strings in its context */
	uint64		use;			/* the number of its latest use */
	bool		in_use;
} CachedClient;

static CachedClient cache[MAX_CLIENTS];

/* The client goes; when the process ends, before its last use is over. */
static void
forget_client(void *entry)
{
	memset(entry, 0, sizeof(CachedClient));
}

/* A client that has to be polled cannot rest. */
static void
end_use(CachedClient *entry)
{
	entry->in_use = false;
	if (!spine_client_rest(entry->client))
		spine_client_destroy(entry->client);
}

/* Memory context callback: a use has ended, by an error if nobody said so before. */
static void
use_is_over(void *use)
{
	for (int i = 0; i < MAX_CLIENTS; i++)
	{
		if (cache[i].in_use && cache[i].use == (uintptr_t) use)
			end_use(&cache[i]);
	}
}

static CachedClient *
find_entry(const SpineClient *client)
{
	for (int i = 0; i < MAX_CLIENTS; i++)
	{
		if (cache[i].client == client)
			return &cache[i];
	}
	return NULL;
}

/* The entry of the cluster's client, or NULL.  Closes the client of what it was before. */
static CachedClient *
find_cluster(const SpineCluster *cluster)
{
	CachedClient *found = NULL;

	for (int i = 0; i < MAX_CLIENTS; i++)
	{
		CachedClient *entry = &cache[i];

		if (entry->client == NULL)
			continue;
		if (spine_cluster_is_same(cluster, &entry->cluster))
			found = entry;
		else if (entry->cluster.server == cluster->server && !entry->in_use)
			spine_client_destroy(entry->client);
	}
	return found;
}

/* A free entry, for which the client that has rested longest is closed if need be. */
static CachedClient *
free_entry(void)
{
	CachedClient *oldest = NULL;

	for (int i = 0; i < MAX_CLIENTS; i++)
	{
		if (cache[i].client == NULL)
			return &cache[i];
		if (!cache[i].in_use && (oldest == NULL || cache[i].use < oldest->use))
			oldest = &cache[i];
	}
	if (oldest == NULL)
		elog(ERROR, "more than %d Kafka clients are in use", MAX_CLIENTS);
	spine_client_destroy(oldest->client);
	return oldest;
}

SpineClient *
spine_client_cache_get(const SpineCluster *cluster)
{
	static uint64 last_use = 0;
	MemoryContextCallback *callback = palloc0(sizeof(*callback));
	CachedClient *entry = find_cluster(cluster);

	if (entry == NULL)
	{
		entry = free_entry();
		entry->client = spine_client_create(SPINE_PRODUCER, cluster, NULL, NULL);
		entry->client->before_release = forget_client;
		entry->client->owner = entry;
		entry->cluster = spine_cluster_copy(cluster, entry->client->context);
	}
	else
		spine_client_wake(entry->client);

	entry->in_use = true;
	entry->use = ++last_use;
	callback->func = use_is_over;
	callback->arg = (void *) (uintptr_t) entry->use;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	spine_client_forget_error(entry->client);
	return entry->client;
}

void
spine_client_cache_rest(SpineClient *client)
{
	CachedClient *entry = find_entry(client);

	Assert(entry != NULL);
	end_use(entry);
}

void
spine_client_cache_close(SpineClient *client)
{
	Assert(find_entry(client) != NULL);
	spine_client_destroy(client);
}

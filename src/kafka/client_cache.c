/*
 * client_cache.c
 *		Keeps a backend's producer, so that only the first call pays for
 *		connecting.
 *
 * Between the calls nobody polls it, and a session may be idle for days: meanwhile it
 * rests.
 */
#include "kafka/client_cache.h"

#include "kafka/library.h"
#include "process/default_cluster.h"
#include "utils/memutils.h"

static SpineClient *client = NULL;
static SpineCluster client_cluster; /* what it was started with */
static uint64 client_use = 0;	/* the number of the latest use */

bool
spine_session_is_current(void)
{
	SpineCluster cluster = spine_default_cluster();

	return client && spine_cluster_is_same(&cluster, &client_cluster);
}

void
spine_session_rest(void)
{
	if (client && !spine_client_rest(client))
		spine_session_close();
}

/* Memory context callback: a use has ended, by an error if nobody said so before. */
static void
end_use(void *use)
{
	if ((uint64) (uintptr_t) use == client_use)
		spine_session_rest();
}

SpineClient *
spine_session_client(void)
{
	MemoryContextCallback *callback = palloc0(sizeof(*callback));
	SpineCluster cluster = spine_default_cluster_await();

	if (!spine_session_is_current())
	{
		spine_session_close();
		client = spine_client_create(SPINE_PRODUCER, &cluster, NULL, NULL);
		client_cluster = spine_cluster_copy(&cluster, client->context);
	}
	else
		spine_client_wake(client);
	callback->func = end_use;
	callback->arg = (void *) (uintptr_t) ++client_use;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	spine_client_forget_error(client);
	return client;
}

void
spine_session_close(void)
{
	SpineClient *old = client;

	client = NULL;
	spine_client_destroy(old);
}

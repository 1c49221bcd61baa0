/*
 * find_topics.c
 *		Finds the topics of a pipeline on its cluster.
 */
#include "process/find_topics.h"

#include "catalog/topics.h"
#include "funcapi.h"
#include "kafka/client_cache.h"
#include "process/server_cluster.h"
#include "utils/builtins.h"

#define BROKER_TIMEOUT_MS	10000

PG_FUNCTION_INFO_V1(spine_find_topics);

static SpineTopic *
count_each(SpineClient *client, char *const *names, int n, int timeout_ms)
{
	SpineTopic *topics = palloc(Max(n, 1) * sizeof(SpineTopic));

	for (int i = 0; i < n; i++)
	{
		topics[i].name = names[i];
		topics[i].npartitions = spine_client_count_partitions(client, names[i], timeout_ms);
		if (topics[i].npartitions < 0)
			return NULL;
	}
	return topics;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const SpineTopic *) a)->name, ((const SpineTopic *) b)->name);
}

static SpineTopic *
list_matching(SpineClient *client, const char *expression, int *n, int timeout_ms)
{
	int			nall;
	SpineTopic *topics = spine_client_list_topics(client, &nall, timeout_ms);

	if (topics == NULL)
		return NULL;
	*n = 0;
	for (int i = 0; i < nall; i++)
	{
		if (topics[i].npartitions > 0 && spine_topics_match(expression, topics[i].name))
			topics[(*n)++] = topics[i];
	}
	qsort(topics, *n, sizeof(SpineTopic), compare_names);
	return topics;
}

SpineTopic *
spine_topics_find(SpineClient *client, const char *topics, int *n, int timeout_ms)
{
	char	  **names = spine_topics_names(topics, n);

	return names ? count_each(client, names, *n, timeout_ms) :
		list_matching(client, topics, n, timeout_ms);
}

bool
spine_topics_are_same(const SpineTopic *a, int na, const SpineTopic *b, int nb)
{
	if (na != nb)
		return false;
	for (int i = 0; i < na; i++)
	{
		if (a[i].npartitions != b[i].npartitions || strcmp(a[i].name, b[i].name) != 0)
			return false;
	}
	return true;
}

SpineTopic *
spine_topics_copy(const SpineTopic *topics, int n, MemoryContext context)
{
	Size		size = n * sizeof(SpineTopic);
	SpineTopic *copies;
	char	   *name;

	for (int i = 0; i < n; i++)
		size += strlen(topics[i].name) + 1;
	copies = MemoryContextAllocHuge(context, Max(size, 1));
	name = (char *) (copies + n);
	for (int i = 0; i < n; i++)
	{
		copies[i] = (SpineTopic) {strcpy(name, topics[i].name), topics[i].npartitions};
		name += strlen(name) + 1;
	}
	return copies;
}

Datum
spine_find_topics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpineCluster cluster;
	SpineClient *client;
	SpineTopic *topics;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	cluster = spine_server_cluster_argument(fcinfo, 1);
	client = spine_client_cache_get(&cluster);
	topics = spine_topics_find(client, text_to_cstring(PG_GETARG_TEXT_PP(0)), &n, BROKER_TIMEOUT_MS);
	if (topics == NULL)
		spine_client_raise_error(client);
	for (int i = 0; i < n; i++)
	{
		Datum		values[2] = {CStringGetTextDatum(topics[i].name), Int32GetDatum(topics[i].npartitions)};
		bool		nulls[2] = {false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	spine_client_cache_rest(client);
	return (Datum) 0;
}

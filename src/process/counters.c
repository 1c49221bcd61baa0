/*
 * counters.c
 *		Counts what producers and workers do, in shared memory, so that the
 *		counts outlive the processes; and shows them as rows.
 *
 * Counts that belong to a partition are in status.c, with its position.
 */
#include "process/counters.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"

PG_FUNCTION_INFO_V1(spine_pipeline_counters);
PG_FUNCTION_INFO_V1(spine_produced);

/* The upper bounds of the histogram's buckets, in seconds; the last has none. */
static const double bucket_bounds[SPINE_BATCH_BUCKETS - 1] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5
};

/* NULL: no room.  Caller holds the lock. */
static SpinePipelineCounters *
counters_of(const NameData *pipeline)
{
	SpinePipelineKey key;
	SpinePipelineCounters *counters;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	namestrcpy(&key.name, NameStr(*pipeline));
	counters = hash_search(spine_pipeline_counts, &key, HASH_ENTER_NULL, &found);
	if (counters && !found)
		memset((char *) counters + sizeof(key), 0, sizeof(*counters) - sizeof(key));
	return counters;
}

void
spine_count_consumed(const NameData *pipeline, size_t n)
{
	SpinePipelineCounters *counters;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	counters = counters_of(pipeline);
	if (counters)
		counters->records_consumed += n;
	LWLockRelease(spine_shared->lock);
}

void
spine_count_batch(const NameData *pipeline, uint64 upserts, double seconds)
{
	SpinePipelineCounters *counters;
	int			bucket = 0;

	while (bucket < SPINE_BATCH_BUCKETS - 1 && seconds > bucket_bounds[bucket])
		bucket++;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	counters = counters_of(pipeline);
	if (counters)
	{
		counters->upserts += upserts;
		counters->batches++;
		counters->batch_seconds += seconds;
		counters->batch_buckets[bucket]++;
	}
	LWLockRelease(spine_shared->lock);
}

/* How many tenants a database is counted by.  Caller holds the lock. */
static int
count_tenants(Oid database)
{
	HASH_SEQ_STATUS scan;
	SpineProduced *produced;
	int			n = 0;

	hash_seq_init(&scan, spine_tenant_counts);
	while ((produced = hash_seq_search(&scan)) != NULL)
		n += produced->key.database == database;
	return n;
}

void
spine_count_produced(const char *tenant, size_t len, int64 n)
{
	SpineProducedKey others;
	SpineProducedKey key;
	SpineProduced *produced;
	bool		found = true;

	memset(&others, 0, sizeof(others));
	others.database = MyDatabaseId;
	key = others;
	memcpy(key.tenant, tenant, Min(len, SPINE_MAX_TENANT_BYTES));

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	produced = hash_search(spine_tenant_counts, &key, HASH_FIND, NULL);
	if (produced == NULL)		/* once some are counted together, all new ones are */
		produced = hash_search(spine_tenant_counts, &others, HASH_FIND, NULL);
	if (produced == NULL)
		produced = hash_search(spine_tenant_counts,
							   count_tenants(MyDatabaseId) < SPINE_MAX_TENANTS ? &key : &others,
							   HASH_ENTER_NULL, &found);
	if (produced)
		produced->events = (found ? produced->events : 0) + n;
	LWLockRelease(spine_shared->lock);
}

void
spine_keep_counters_of(const NameData *pipelines, uint64 n)
{
	HASH_SEQ_STATUS scan;
	SpinePipelineCounters *counters;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, spine_pipeline_counts);
	while ((counters = hash_seq_search(&scan)) != NULL)
	{
		bool		keep = counters->key.database != MyDatabaseId;

		for (uint64 i = 0; i < n && !keep; i++)
			keep = strcmp(NameStr(counters->key.name), NameStr(pipelines[i])) == 0;
		if (!keep)
			hash_search(spine_pipeline_counts, &counters->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(spine_shared->lock);
}

void
spine_forget_counters(Oid database)
{
	HASH_SEQ_STATUS scan;
	SpinePipelineCounters *counters;
	SpineProduced *produced;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, spine_pipeline_counts);
	while ((counters = hash_seq_search(&scan)) != NULL)
	{
		if (counters->key.database == database)
			hash_search(spine_pipeline_counts, &counters->key, HASH_REMOVE, NULL);
	}
	hash_seq_init(&scan, spine_tenant_counts);
	while ((produced = hash_seq_search(&scan)) != NULL)
	{
		if (produced->key.database == database)
			hash_search(spine_tenant_counts, &produced->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(spine_shared->lock);
}

/*
 * Copies the entries of a table that show() is to make rows of: nothing that may
 * fail is done under the lock.
 */
static void *
copy_entries(HTAB *table, size_t entry_size, long *n)
{
	HASH_SEQ_STATUS scan;
	void	   *entry;
	char	   *copies;
	long		capacity;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	capacity = hash_get_num_entries(table);
	LWLockRelease(spine_shared->lock);

	copies = palloc((capacity + 1) * entry_size);
	*n = 0;
	LWLockAcquire(spine_shared->lock, LW_SHARED);
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		/* one that came in between is shown the next time */
		if (*n == capacity)
		{
			hash_seq_term(&scan);
			break;
		}
		memcpy(copies + (*n)++ * entry_size, entry, entry_size);
	}
	LWLockRelease(spine_shared->lock);
	return copies;
}

static Datum
bounds_array(void)
{
	Datum		bounds[SPINE_BATCH_BUCKETS];

	for (int i = 0; i < SPINE_BATCH_BUCKETS - 1; i++)
		bounds[i] = Float8GetDatum(bucket_bounds[i]);
	bounds[SPINE_BATCH_BUCKETS - 1] = Float8GetDatum(get_float8_infinity());
	return PointerGetDatum(construct_array(bounds, SPINE_BATCH_BUCKETS, FLOAT8OID,
										   sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* As Prometheus has them: each bucket counts those before it as well. */
static Datum
cumulative_array(const int64 *buckets)
{
	Datum		counts[SPINE_BATCH_BUCKETS];
	int64		total = 0;

	for (int i = 0; i < SPINE_BATCH_BUCKETS; i++)
		counts[i] = Int64GetDatum(total += buckets[i]);
	return PointerGetDatum(construct_array(counts, SPINE_BATCH_BUCKETS, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

Datum
spine_pipeline_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpinePipelineCounters *counters;
	long		n;

	InitMaterializedSRF(fcinfo, 0);
	counters = copy_entries(spine_pipeline_counts, sizeof(SpinePipelineCounters), &n);
	for (long i = 0; i < n; i++)
	{
		Datum		values[7];
		bool		nulls[7] = {false};

		if (counters[i].key.database != MyDatabaseId)
			continue;
		values[0] = NameGetDatum(&counters[i].key.name);
		values[1] = Int64GetDatum(counters[i].records_consumed);
		values[2] = Int64GetDatum(counters[i].upserts);
		values[3] = Int64GetDatum(counters[i].batches);
		values[4] = Float8GetDatum(counters[i].batch_seconds);
		values[5] = bounds_array();
		values[6] = cumulative_array(counters[i].batch_buckets);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * NULL when the encoding of this database does not have the name: the producer
 * worker, which is in no database, makes events of any tenant.
 */
static text *
tenant_text(const char *utf8_name)
{
	int			len = strlen(utf8_name);
	int			encoding = GetDatabaseEncoding();
	int			size = len * MAX_CONVERSION_GROWTH + 1;
	char	   *converted;
	Oid			proc;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return cstring_to_text(utf8_name);

	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc))
		return NULL;
	converted = palloc(size);
	if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
									  (unsigned char *) utf8_name, len,
									  (unsigned char *) converted, size, true) < len)
		return NULL;
	return cstring_to_text(converted);
}

Datum
spine_produced(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpineProduced *produced;
	long		n;

	InitMaterializedSRF(fcinfo, 0);
	produced = copy_entries(spine_tenant_counts, sizeof(SpineProduced), &n);
	for (long i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false};
		text	   *tenant;

		if (OidIsValid(produced[i].key.database) && produced[i].key.database != MyDatabaseId)
			continue;
		tenant = produced[i].key.tenant[0] ? tenant_text(produced[i].key.tenant) : NULL;
		nulls[0] = tenant == NULL;
		values[0] = PointerGetDatum(tenant);
		values[1] = Int64GetDatum(produced[i].events);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * counters.c
 *		Counts what the workers of a pipeline do, in shared memory, so that the
 *		counts outlive the processes; and shows them as rows.
 *
 * Counts that belong to a partition are in status.c, with its position.
 */
#include "process/counters.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"

PG_FUNCTION_INFO_V1(spine_pipeline_counters);
PG_FUNCTION_INFO_V1(spine_pipeline_skipped);

/* The upper bounds of the histogram's buckets, in seconds; the last has none. */
static const double bucket_bounds[SPINE_BATCH_BUCKETS - 1] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5
};

/* NULL: there is no room.  The caller holds the lock. */
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
spine_counters_add_records(const NameData *pipeline, size_t n)
{
	SpinePipelineCounters *counters;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	counters = counters_of(pipeline);
	if (counters)
		counters->records_consumed += n;
	LWLockRelease(spine_shared->lock);
}

void
spine_counters_add_batch(const NameData *pipeline, const SpineApplyCounts *counts, double seconds)
{
	SpinePipelineCounters *counters;
	int			bucket = 0;

	while (bucket < SPINE_BATCH_BUCKETS - 1 && seconds > bucket_bounds[bucket])
		bucket++;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	counters = counters_of(pipeline);
	if (counters)
	{
		counters->upserts += counts->nupserts;
		counters->unchanged += counts->nunchanged;
		counters->filtered += counts->nfiltered;
		counters->batches++;
		counters->batch_seconds += seconds;
		counters->batch_buckets[bucket]++;
	}
	LWLockRelease(spine_shared->lock);
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

/* As in Prometheus, each bucket counts the batches of the buckets before it as well. */
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
	counters = spine_shared_copy_table(spine_pipeline_counts, sizeof(SpinePipelineCounters), &n);
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

/* Apart, so that the function above keeps the type that it had in 0.1.0. */
Datum
spine_pipeline_skipped(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpinePipelineCounters *counters;
	long		n;

	InitMaterializedSRF(fcinfo, 0);
	counters = spine_shared_copy_table(spine_pipeline_counts, sizeof(SpinePipelineCounters), &n);
	for (long i = 0; i < n; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		if (counters[i].key.database != MyDatabaseId)
			continue;
		values[0] = NameGetDatum(&counters[i].key.name);
		values[1] = Int64GetDatum(counters[i].filtered);
		values[2] = Int64GetDatum(counters[i].unchanged);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

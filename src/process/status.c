/*
 * status.c
 *		Publishes the workers' states and positions in shared memory, and shows
 *		them as rows: what the view spine_status is made of.
 */
#include "process/status.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "process/share.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(spine_worker_status);
PG_FUNCTION_INFO_V1(spine_partition_status);
PG_FUNCTION_INFO_V1(spine_missing_topics);

static const char *
state_name(SpineWorkerState state)
{
	switch (state)
	{
		case SPINE_STARTING:
			return "starting";
		case SPINE_RUNNING:
			return "running";
		case SPINE_WAITING:
			return "waiting";
		case SPINE_FAILED:
			return "failed";
	}
	return "unknown";
}

void
spine_status_set_state(SpineWorkerSlot *slot, SpineWorkerState state, const SpineError *error)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	if (error)
	{
		slot->last_error = *error;
		slot->last_error_at = GetCurrentTimestamp();
	}
	if (slot->state != state)
	{
		slot->state = state;
		slot->state_since = GetCurrentTimestamp();
	}
	LWLockRelease(spine_shared->lock);
}

void
spine_status_begin_batch(SpineWorkerSlot *slot)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	slot->batch_started = GetCurrentTimestamp();
	LWLockRelease(spine_shared->lock);
}

static void
progress_key(SpineProgressKey *key, const NameData *pipeline, const char *topic, int32 partition)
{
	memset(key, 0, sizeof(*key));
	key->database = MyDatabaseId;
	namestrcpy(&key->pipeline, NameStr(*pipeline));
	strlcpy(key->topic, topic, sizeof(key->topic));
	key->partition = partition;
}

/* The entry of a partition; NULL: no room to show it. */
static SpineProgress *
enter_progress(const SpineLog *log, const char *topic, int32 partition)
{
	SpineProgressKey key;
	SpineProgress *progress;
	bool		found;

	progress_key(&key, &log->pipeline, topic, partition);
	progress = hash_search(spine_progress, &key, HASH_ENTER_NULL, &found);
	if (progress == NULL)
		return NULL;
	if (!found)
	{
		memset((char *) progress + sizeof(key), 0, sizeof(*progress) - sizeof(key));
		progress->high_watermark = -1;
	}
	strlcpy(progress->cluster_id, log->cluster_id, sizeof(progress->cluster_id));
	return progress;
}

void
spine_status_publish_positions(const SpineLog *log, const SpineProgressReport *reports, int n)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		SpineProgress *progress = enter_progress(log, reports[i].topic, reports[i].partition);

		if (progress == NULL)
			continue;
		progress->next_offset = reports[i].next_offset;
		progress->high_watermark = reports[i].high_watermark;
	}
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);
}

void
spine_status_publish_batch(const SpineLog *log, const SpineMove *moves, int n, double batch_ms)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		SpineProgress *progress = enter_progress(log, moves[i].topic, moves[i].partition);

		if (progress == NULL || moves[i].to == moves[i].from)
			continue;
		progress->next_offset = moves[i].to;
		progress->last_batch_rows = moves[i].nrecords;
		progress->last_batch_ms = batch_ms;
		progress->last_commit_at = now;
		progress->events_total += moves[i].nrecords - moves[i].ndead_letters;
		progress->dead_letters_total += moves[i].ndead_letters;
	}
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);
}

typedef struct Topics
{
	const SpineLog *log;
	const SpineTopic *topics;	/* in the order of strcmp */
	int			n;
} Topics;

static int
compare_names(const void *name, const void *topic)
{
	return strcmp(name, ((const SpineTopic *) topic)->name);
}

/* Is it of the pipeline, but not of a partition of these topics? */
static bool
is_gone(const void *entry, const void *arg)
{
	const SpineProgress *progress = entry;
	const SpineProgressKey *key = &progress->key;
	const Topics *topics = arg;
	const SpineTopic *topic;

	if (key->database != MyDatabaseId ||
		strcmp(NameStr(key->pipeline), NameStr(topics->log->pipeline)) != 0)
		return false;
	topic = bsearch(key->topic, topics->topics, topics->n, sizeof(SpineTopic), compare_names);
	if (topic && key->partition == -1)
		return topic->npartitions > 0;
	if (topic && key->partition < topic->npartitions)
		return false;

	/* should the topic come back, it is its worker's by its number */
	if (progress->given_of > 0)
		spine_share_announce(&key->pipeline, progress->given_of);
	return true;
}

void
spine_status_set_topics(const SpineLog *log, const SpineTopic *topics, int n)
{
	Topics		of = {log, topics, n};

	spine_shared_remove(spine_progress, is_gone, &of);
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		SpineProgress *missing = topics[i].npartitions == 0 ? enter_progress(log, topics[i].name, -1) : NULL;

		if (missing && missing->missing_since == 0)
			missing->missing_since = GetCurrentTimestamp();
	}
	LWLockRelease(spine_shared->lock);
}

SpineProgress *
spine_status_find(const NameData *pipeline, const char *topic, int32 partition)
{
	SpineProgressKey key;

	progress_key(&key, pipeline, topic, partition);
	return hash_search(spine_progress, &key, HASH_FIND, NULL);
}

int64
spine_status_applied_offset(const NameData *pipeline, const char *topic,
							const char *cluster_id, int32 partition)
{
	SpineProgress *progress = spine_status_find(pipeline, topic, partition);

	if (progress == NULL || strcmp(progress->cluster_id, cluster_id) != 0)
		return -1;
	return progress->next_offset;
}

/*
 * A worker that waits in the middle of a batch, for a lock or for a synchronous standby,
 * cannot say so itself.  A wait counts once it is longer than deadlock_timeout.
 */
static bool
waits_for_others(const SpineWorkerSlot *slot, SpineError *error)
{
	PGPROC	   *proc = BackendPidGetProc(slot->pid);
	uint32		event = proc ? proc->wait_event_info : 0;
	bool		is_lock = (event & 0xFF000000) == PG_WAIT_LOCK;
	TimestampTz since;
	Datum		blockers;

	if (is_lock)
		since = pg_atomic_read_u64(&proc->waitStart);
	else if (event == WAIT_EVENT_SYNC_REP)
		since = slot->batch_started;
	else
		return false;
	if (since == 0 || !TimestampDifferenceExceeds(since, GetCurrentTimestamp(), DeadlockTimeout))
		return false;

	if (!is_lock)
	{
		spine_error_set(error, SPINE_TRANSIENT, "no synchronous standby has confirmed the commit");
		spine_error_set_hint(error, "See pg_stat_replication and synchronous_standby_names.");
		error->since = since;
		return true;
	}
	blockers = OidFunctionCall1(F_PG_BLOCKING_PIDS, Int32GetDatum(slot->pid));
	blockers = OidFunctionCall2(F_ARRAY_TO_STRING_ANYARRAY_TEXT, blockers, CStringGetTextDatum(", "));
	spine_error_set(error, SPINE_TRANSIENT, "a lock (%s) is held by process %s",
					pgstat_get_wait_event(event), TextDatumGetCString(blockers));
	spine_error_set_hint(error, "See pg_stat_activity for what that does.");
	error->since = since;
	return true;
}

static void
put_worker(ReturnSetInfo *result, const SpineWorkerSlot *slot)
{
	SpineWorkerState state = slot->state;
	TimestampTz state_since = slot->state_since;
	SpineError	error = slot->last_error;
	TimestampTz error_at = slot->last_error_at;
	Datum		values[9];
	bool		nulls[9] = {false};

	if (state != SPINE_FAILED && waits_for_others(slot, &error))
	{
		state = SPINE_WAITING;
		state_since = error_at = error.since;
	}
	values[0] = NameGetDatum(&slot->pipeline);
	values[1] = Int32GetDatum(slot->index);
	values[2] = Int32GetDatum(slot->workers);
	values[3] = Int32GetDatum(slot->pid);
	nulls[3] = slot->pid == 0;
	values[4] = CStringGetTextDatum(state_name(state));
	values[5] = TimestampTzGetDatum(state_since);
	nulls[5] = state_since == 0;
	values[6] = CStringGetTextDatum(spine_error_text(&error, false));
	values[7] = TimestampTzGetDatum(error_at);
	nulls[6] = nulls[7] = error.class == SPINE_NO_ERROR;
	values[8] = CStringGetTextDatum(error.hint);
	nulls[8] = error.class == SPINE_NO_ERROR || error.hint[0] == '\0';
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
spine_worker_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpineWorkerSlot *slots = palloc(sizeof(spine_shared->workers));

	InitMaterializedSRF(fcinfo, 0);

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	memcpy(slots, spine_shared->workers, sizeof(spine_shared->workers));
	LWLockRelease(spine_shared->lock);

	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		if (slots[i].database == MyDatabaseId && slots[i].wanted)
			put_worker(result, &slots[i]);
	}
	return (Datum) 0;
}

static void
put_progress(ReturnSetInfo *result, const SpineProgress *progress)
{
	Datum		values[10];
	bool		nulls[10] = {false};

	values[0] = NameGetDatum(&progress->key.pipeline);
	values[1] = CStringGetTextDatum(progress->key.topic);
	values[2] = Int32GetDatum(progress->key.partition);
	values[3] = Int64GetDatum(progress->next_offset);
	values[4] = Int64GetDatum(progress->high_watermark);
	nulls[4] = progress->high_watermark < 0;
	values[5] = Int64GetDatum(progress->last_batch_rows);
	values[6] = Float8GetDatum(progress->last_batch_ms);
	values[7] = TimestampTzGetDatum(progress->last_commit_at);
	nulls[5] = nulls[6] = nulls[7] = progress->last_commit_at == 0;
	values[8] = Int64GetDatum(progress->events_total);
	values[9] = Int64GetDatum(progress->dead_letters_total);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_missing(ReturnSetInfo *result, const SpineProgress *missing)
{
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = NameGetDatum(&missing->key.pipeline);
	values[1] = CStringGetTextDatum(missing->key.topic);
	values[2] = TimestampTzGetDatum(missing->missing_since);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* What is published of this database: of partitions, or of topics that do not exist. */
static void
put_published(FunctionCallInfo fcinfo, bool missing)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpineProgress *progress;
	long		n;

	InitMaterializedSRF(fcinfo, 0);
	progress = spine_shared_copy_table(spine_progress, sizeof(SpineProgress), &n);
	for (long i = 0; i < n; i++)
	{
		if (progress[i].key.database != MyDatabaseId || missing != (progress[i].key.partition == -1))
			continue;
		if (missing)
			put_missing(result, &progress[i]);
		else
			put_progress(result, &progress[i]);
	}
}

Datum
spine_partition_status(PG_FUNCTION_ARGS)
{
	put_published(fcinfo, false);
	return (Datum) 0;
}

Datum
spine_missing_topics(PG_FUNCTION_ARGS)
{
	put_published(fcinfo, true);
	return (Datum) 0;
}

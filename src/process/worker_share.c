/*
 * worker_share.c
 *		How the workers of a pipeline share its partitions by load.
 *
 * At a batch's end, a worker that is behind looks for an idle worker of the pipeline, and
 * gives it those of its partitions that make up to half of what there is to apply.  Nothing
 * in hand is thrown away: there is nothing in hand then, and the other worker takes the
 * partitions when it has nothing in hand either.  Only what the client has fetched is fetched
 * again.
 *
 * Backlogs are compared in time, as records of one pipeline may take a thousand times as long
 * as those of another.
 */
#include "process/worker_internal.h"

#include "process/share.h"
#include "process/status.h"
#include "utils/timestamp.h"

#define IDLE_MS			50		/* a worker with less to do would take partitions */
#define WORTH_MS		200		/* to give; a move takes some ten milliseconds */
#define INTERVAL_MS		1000	/* until a worker looks again what to give */

/* What a record takes, until a batch tells. */
#define FIRST_RECORD_MS	0.01

/* A batch tells it if it is large, or takes long: small ones take as long as a commit. */
#define TELLING_RECORDS	1000

/* How long it takes to apply so many records, as far as is known. */
static double
work_ms(const SpineWorker *worker, int64 records)
{
	return records * (worker->record_ms > 0 ? worker->record_ms : FIRST_RECORD_MS);
}

static int64
lag_of(const SpineProgressReport *report)
{
	return Max(report->high_watermark - report->next_offset, 0);
}

static void
set_lag(SpineWorker *worker, int64 lag)
{
	worker->lag = lag;
	spine_share_set_idle(worker->status.slot, lag >= 0 && work_ms(worker, lag) < IDLE_MS);
}

void
spine_worker_note_lag(SpineWorker *worker, const SpineProgressReport *reports, int n)
{
	int64		lag = 0;
	int			nbehind = 0;

	if (worker->workers == 1)
		return;
	for (int i = 0; i < n && lag >= 0; i++)
	{
		if (!reports[i].is_well)
			continue;
		lag = reports[i].high_watermark < 0 ? -1 : lag + lag_of(&reports[i]);
		nbehind += lag_of(&reports[i]) > 0;
	}
	worker->has_choice = nbehind > 1;
	set_lag(worker, lag);
}

/* The same after a batch, and how long a record takes. */
static void
note_batch(SpineWorker *worker, const SpineBatch *batch, double batch_ms)
{
	int64		lag = worker->lag;

	if (batch->nrecords >= TELLING_RECORDS || (batch->nrecords > 0 && batch_ms >= WORTH_MS))
		worker->record_ms = batch_ms / batch->nrecords;
	for (int i = 0; i < batch->nmoves && lag >= 0; i++)
		lag = Max(lag - (batch->moves[i].to - batch->moves[i].from), 0);
	set_lag(worker, lag);
}

typedef struct Candidate
{
	SpineTopicPartition partition;
	int64		lag;
} Candidate;

static int
compare_lags(const void *a, const void *b)
{
	int64		x = ((const Candidate *) a)->lag;
	int64		y = ((const Candidate *) b)->lag;

	return (x < y) - (x > y);
}

/*
 * The partitions to give: the largest that together are at most half of the backlog.
 * palloc'ed; 0: none is worth it.
 */
static int
choose_partitions(const SpineWorker *worker, const SpineProgressReport *reports, int n,
				  SpineTopicPartition **chosen)
{
	Candidate  *candidates = palloc_extended(Max(n, 1) * sizeof(Candidate), MCXT_ALLOC_HUGE);
	int64		kept = 0;
	int64		given = 0;
	int			ncandidates = 0;
	int			nchosen = 0;

	for (int i = 0; i < n; i++)
	{
		if (!reports[i].is_well || lag_of(&reports[i]) == 0)
			continue;
		candidates[ncandidates++] = (Candidate) {{reports[i].topic, reports[i].partition}, lag_of(&reports[i])};
		kept += lag_of(&reports[i]);
	}
	qsort(candidates, ncandidates, sizeof(Candidate), compare_lags);

	*chosen = palloc_extended(Max(ncandidates, 1) * sizeof(SpineTopicPartition), MCXT_ALLOC_HUGE);
	for (int i = 0; i < ncandidates; i++)
	{
		SpineTopicPartition partition = candidates[i].partition;
		int64		lag = candidates[i].lag;

		if (given + lag > kept - lag ||
			!spine_share_may_give(&worker->pipeline_name, partition.topic, partition.partition))
			continue;
		(*chosen)[nchosen++] = partition;
		given += lag;
		kept -= lag;
	}
	return work_ms(worker, given) >= WORTH_MS ? nchosen : 0;
}

/* With so many records to apply, is there somebody to give partitions to? */
static bool
can_share(const SpineWorker *worker, int64 lag)
{
	return worker->has_choice && work_ms(worker, lag) >= 2 * WORTH_MS &&
		spine_worker_is_due(worker->shared_at, INTERVAL_MS) &&
		spine_share_has_taker(worker->status.slot);
}

bool
spine_worker_wants_to_share(const SpineWorker *worker, const SpineBatch *batch)
{
	return worker->workers > 1 && can_share(worker, worker->lag - (int64) batch->nrecords);
}

void
spine_worker_share(SpineWorker *worker, const SpineBatch *batch, double batch_ms)
{
	SpineProgressReport *reports;
	SpineTopicPartition *chosen;
	int			n;
	int			nchosen;

	if (worker->workers == 1)
		return;
	note_batch(worker, batch, batch_ms);
	if (worker->part > 0 || spine_consumer_has_batch(worker->consumer) || !can_share(worker, worker->lag))
		return;

	reports = spine_consumer_report(worker->consumer, &n);
	spine_status_publish_positions(&worker->log, reports, n);
	nchosen = choose_partitions(worker, reports, n, &chosen);
	worker->shared_at = GetCurrentTimestamp();
	if (nchosen == 0)
		return;
	if (!spine_consumer_release(worker->consumer, chosen, nchosen) ||
		!spine_share_give(worker->status.slot, chosen, nchosen))
		worker->is_assigned = false;
	else
		ereport(DEBUG1,
				(errmsg_internal("pipeline \"%s\" worker %d: gives %d partitions away, among them %d of topic \"%s\"",
								 NameStr(worker->pipeline_name), worker->index, nchosen,
								 chosen[0].partition, chosen[0].topic)));
}

void
spine_worker_give_back(SpineWorker *worker)
{
	if (worker->workers > 1 && spine_share_give_back(worker->status.slot))
		worker->is_assigned = false;
}

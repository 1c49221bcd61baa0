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
#define INTERVAL_MS		1000	/* between two gifts of a worker */

/* What a record takes, until a batch tells. */
#define FIRST_RECORD_MS	0.01

/* A batch tells it if it is large, or takes long: small ones take as long as a commit. */
#define TELLING_RECORDS	1000

void
spine_worker_note_pace(SpineWorker *worker, size_t nrecords, double batch_ms)
{
	if (nrecords >= TELLING_RECORDS || (nrecords > 0 && batch_ms >= WORTH_MS))
		worker->record_ms = batch_ms / nrecords;
}

/* How long it would take to apply what a partition is behind; -1: that is not known. */
static double
backlog_ms(const SpineWorker *worker, const SpineProgressReport *report)
{
	double		record_ms = worker->record_ms > 0 ? worker->record_ms : FIRST_RECORD_MS;

	if (report->high_watermark < 0)
		return -1;
	return Max(report->high_watermark - report->next_offset, 0) * record_ms;
}

void
spine_worker_note_backlog(SpineWorker *worker, const SpineProgressReport *reports, int n)
{
	bool		is_known = true;

	if (worker->workers == 1)
		return;
	worker->backlog_ms = 0;
	for (int i = 0; i < n; i++)
	{
		double		ms = backlog_ms(worker, &reports[i]);

		is_known = is_known && ms >= 0;
		worker->backlog_ms += Max(ms, 0);
	}
	spine_share_set_idle(worker->status.slot, is_known && worker->backlog_ms < IDLE_MS);
}

typedef struct Candidate
{
	SpineTopicPartition partition;
	double		backlog_ms;
} Candidate;

static int
compare_backlogs(const void *a, const void *b)
{
	double		x = ((const Candidate *) a)->backlog_ms;
	double		y = ((const Candidate *) b)->backlog_ms;

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
	double		rest_ms = 0;
	double		given_ms = 0;
	int			ncandidates = 0;
	int			nchosen = 0;

	for (int i = 0; i < n; i++)
	{
		double		ms = backlog_ms(worker, &reports[i]);

		if (!reports[i].is_well || ms <= 0)
			continue;
		candidates[ncandidates++] = (Candidate) {{reports[i].topic, reports[i].partition}, ms};
		rest_ms += ms;
	}
	qsort(candidates, ncandidates, sizeof(Candidate), compare_backlogs);

	*chosen = palloc_extended(Max(ncandidates, 1) * sizeof(SpineTopicPartition), MCXT_ALLOC_HUGE);
	for (int i = 0; i < ncandidates; i++)
	{
		SpineTopicPartition partition = candidates[i].partition;
		double		ms = candidates[i].backlog_ms;

		if (given_ms + ms > rest_ms - ms ||
			!spine_share_may_give(&worker->pipeline_name, partition.topic, partition.partition))
			continue;
		(*chosen)[nchosen++] = partition;
		given_ms += ms;
		rest_ms -= ms;
	}
	return given_ms >= WORTH_MS ? nchosen : 0;
}

void
spine_worker_share(SpineWorker *worker)
{
	SpineProgressReport *reports;
	SpineTopicPartition *chosen;
	int			n;
	int			nchosen;

	if (worker->workers == 1 || worker->backlog_ms < 2 * WORTH_MS || worker->part > 0 ||
		spine_consumer_has_batch(worker->consumer) ||
		!spine_worker_is_due(worker->gave_at, INTERVAL_MS) ||
		!spine_share_has_taker(worker->status.slot))
		return;

	reports = spine_consumer_report(worker->consumer, &n);
	spine_status_publish_positions(&worker->log, reports, n);
	nchosen = choose_partitions(worker, reports, n, &chosen);
	if (nchosen == 0)
		return;
	worker->gave_at = GetCurrentTimestamp();
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

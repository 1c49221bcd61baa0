/*
 * search.c
 *		Finds the records to blame when the database refuses a batch.
 *
 * First the values of all records are converted.  That names each record whose values do
 * not fit, at the cost of a subtransaction that is rolled back, as functions in expressions
 * may write.  The others are applied by halves, in subtransactions, down to the single
 * records that the database refuses.
 *
 * A refusal may be the fault of a record or of the table, whatever its SQLSTATE: a
 * trigger can raise any, a missing partition looks like a violated check.  Two rules
 * tell them apart.  An error that is about the schema is a record's only if another
 * record passes, other than by being filtered.  And a long run of records that are refused
 * for one reason is the table's fault (the breaker).
 */
#include "apply/search.h"

#include "access/xact.h"
#include "apply/transaction.h"
#include "miscadmin.h"

/* After so many suspects the table is held to be at fault, if no breaker trips. */
#define MAX_SUSPECTS	1000

/* How often one record is applied before it is to blame for violating a unique index. */
#define MAX_RUNS		3
#define UNIQUE_VIOLATION	"23505"

typedef struct Search
{
	SpinePlan  *plan;
	SpineEvent *events;
	size_t		nevents;
	int			breaker;
	MemoryContext context;
	SpineApplied *applied;
	SpineApplyOutcome outcome;
	size_t		npassed;		/* events that are applied, and tell of the tables */
	int			nrefused;		/* in a row for one reason, among these events */
	bool		has_suspects;	/* refused as if the table were at fault */
	int			nsuspects;		/* of these: whose values are right */
	SpineError	suspicion;		/* of the last of them */
} Search;

/* Part of the events, for one nested attempt. */
typedef struct Range
{
	Search	   *search;
	const SpineSink *sink;		/* to convert for */
	size_t		first;			/* moves on while converting */
	bool		looking_up;		/* while converting: see rows.h */
	size_t		n;				/* to apply */
	SpineApplyCounts counts;	/* out */
} Range;

/* What expressions have written is undone: they are computed again when the range is applied. */
static bool
convert_range(void *arg)
{
	Range	   *range = arg;

	spine_apply_convert(range->search->plan, range->sink, range->search->events,
						range->search->nevents, &range->first, &range->looking_up);
	return false;
}

static bool
apply_range(void *arg)
{
	Range	   *range = arg;

	range->counts = spine_apply(range->search->plan, range->search->events + range->first,
								range->n, SPINE_SINK_SKIP_EXISTING);
	return true;
}

static void
blame(Search *search, const SpineRecord *record, const SpineError *error)
{
	MemoryContext old_context = MemoryContextSwitchTo(search->context);
	char	   *reason = spine_error_text(error, true);

	search->applied->letters[search->applied->nletters++] =
		spine_dead_letter_make(record, error->sqlstate, reason);
	pfree(reason);
	MemoryContextSwitchTo(old_context);
	if (error->class == SPINE_STRUCTURAL)
	{
		search->has_suspects = true;
		search->suspicion = *error;
	}
}

/*
 * Takes the events out whose values cannot be converted.  What looks rows up may find them
 * when the sinks and records before it are applied, so that its errors say nothing yet.
 */
static void
search_values(Search *search)
{
	for (int i = 0; i < search->plan->nsinks; i++)
	{
		Range		range = {.search = search, .sink = &search->plan->sinks[i]};
		size_t		nkept = 0;

		while (range.first < search->nevents)
		{
			size_t		start = range.first;
			SpineError	error;
			bool		converted;

			CHECK_FOR_INTERRUPTS();
			converted = spine_subtransaction_run(convert_range, &range, &error);
			if (!converted && range.looking_up)
				range.first++;
			memmove(&search->events[nkept], &search->events[start],
					(range.first - start) * sizeof(SpineEvent));
			nkept += range.first - start;
			if (!converted && !range.looking_up)
				blame(search, search->events[range.first++].record, &error);
		}
		search->nevents = nkept;
	}
}

static bool
give_up(Search *search, const SpineError *error)
{
	search->applied->error = *error;
	search->outcome = SPINE_TABLE_AT_FAULT;
	return false;
}

static bool
trip_breaker(Search *search)
{
	const SpineError *error = &search->applied->refusals.error;
	SpineError	verdict;

	spine_error_set(&verdict, SPINE_STRUCTURAL, "%d records in a row were refused for one reason: %s",
					search->applied->refusals.n, error->message);
	strlcpy(verdict.sqlstate, error->sqlstate, sizeof(verdict.sqlstate));
	strlcpy(verdict.detail, error->detail, sizeof(verdict.detail));
	strlcpy(verdict.column, error->column, sizeof(verdict.column));
	spine_error_set_hint(&verdict, "%s If the records are at fault, set spine.breaker_records to 0 until they are dead letters.",
						 strcmp(error->sqlstate, "23514") == 0 ?
						 "Create the partition that is missing, or mend the constraint." : "Mend the table.");
	return give_up(search, &verdict);
}

/* The database has refused a record whose values are right.  False: the search ends. */
static bool
note_refusal(Search *search, const SpineRecord *record, const SpineError *error)
{
	SpineRefusals *refusals = &search->applied->refusals;

	if (refusals->n == 0 || !spine_error_is_same_reason(&refusals->error, error))
		refusals->n = search->nrefused = 0;
	refusals->n++;
	refusals->error = *error;
	search->nrefused++;
	blame(search, record, error);

	if (search->breaker > 0 && search->nrefused >= search->breaker)
		return trip_breaker(search);
	search->nsuspects += error->class == SPINE_STRUCTURAL;
	if (search->npassed == 0 && search->nsuspects >= MAX_SUSPECTS)
		return give_up(search, &search->suspicion);
	return true;
}

/*
 * Applies a range in a subtransaction.  A record is run again when it violates a unique
 * index, which need not be its fault: another session may have inserted the row since the
 * statement before looked for it (sink_upsert.c).
 */
static bool
try_range(Range *range, SpineError *error)
{
	for (int nruns = 1; !spine_subtransaction_run(apply_range, range, error); nruns++)
	{
		CHECK_FOR_INTERRUPTS();
		if (range->n > 1 || nruns == MAX_RUNS || strcmp(error->sqlstate, UNIQUE_VIOLATION) != 0)
			return false;
	}
	return true;
}

/* Events that the filters of all sinks leave out tell nothing of the tables. */
static bool
tells_of_tables(const Range *range)
{
	return range->counts.nfiltered < range->n * range->search->plan->nsinks;
}

/* False: the search ends; search->outcome says how. */
static bool
search_range(Search *search, size_t first, size_t n)
{
	Range		range = {.search = search, .first = first, .n = n};
	SpineError	error;

	CHECK_FOR_INTERRUPTS();
	if (n == 0)
		return true;

	if (try_range(&range, &error))
	{
		search->applied->counts.nupserts += range.counts.nupserts;
		search->applied->counts.nunchanged += range.counts.nunchanged;
		search->applied->counts.nfiltered += range.counts.nfiltered;
		if (tells_of_tables(&range))
		{
			search->npassed += n;
			search->applied->refusals.n = search->nrefused = 0;
		}

		/* with more, every snapshot of the server would have to look them up on disk */
		if (++search->applied->nsubtransactions < SPINE_MAX_SUBTRANSACTIONS ||
			first + n == search->nevents)
			return true;
		search->applied->unsettled = search->events[first + n].record;
		search->outcome = SPINE_TOO_MANY_REFUSALS;
		return false;
	}
	if (n == 1)
		return note_refusal(search, search->events[first].record, &error);
	return search_range(search, first, n / 2) && search_range(search, first + n / 2, n - n / 2);
}

SpineApplyOutcome
spine_search(SpinePlan *plan, SpineEvent *events, size_t n, int breaker, MemoryContext context,
			 SpineApplied *applied)
{
	Search		search = {
		.plan = plan,
		.events = events,
		.nevents = n,
		.breaker = breaker,
		.context = context,
		.applied = applied,
		.outcome = SPINE_APPLIED
	};

	Assert(IsTransactionState());
	search_values(&search);
	if (search_range(&search, 0, search.nevents) && search.npassed == 0)
	{
		if (search.has_suspects)
			(void) give_up(&search, &search.suspicion);
		else if (breaker > 0 && applied->refusals.n >= breaker && search.nrefused > 0)
			(void) trip_breaker(&search);
	}
	return search.outcome;
}

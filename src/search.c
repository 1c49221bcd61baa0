/*
 * search.c
 *		Finds the records to blame when the database refuses a batch.
 *
 * First the values of all records are converted: which record cannot be is known at
 * once, and costs a subtransaction that writes nothing.  The others are applied by
 * halves, in subtransactions, down to the single records that the database refuses.
 *
 * A refusal may be the fault of a record or of the table, whatever its SQLSTATE: a
 * trigger can raise any, a missing partition looks like a violated check.  Two things
 * tell them apart.  An error that is about the schema is a record's only if another
 * record passes.  And a long run of records that are refused for one reason is the
 * table's fault (the breaker).
 */
#include "search.h"

#include "apply.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* Suspects to look at before the table is held to be at fault, if no breaker trips. */
#define MAX_SUSPECTS	1000

/* Part of the events, for one nested attempt. */
typedef struct Range
{
	SpineSearch *search;
	const SpineTarget *target;	/* to convert for */
	size_t		first;			/* moves on while converting */
	size_t		n;				/* to apply */
	uint64		nupserts;		/* out */
} Range;

static bool
convert_range(void *arg)
{
	Range	   *range = arg;

	spine_convert(range->target, range->search->events, range->search->nevents, &range->first);
	return true;
}

static bool
apply_range(void *arg)
{
	Range	   *range = arg;

	range->nupserts = spine_apply(range->search->plan, range->search->events + range->first,
								  range->n, true);
	return true;
}

static void
blame(SpineSearch *search, const SpineRecord *record, SpineOutcome outcome, const SpineError *error)
{
	search->letters[search->nletters++] =
		spine_make_dead_letter(record, error->sqlstate, error->text);
	if (outcome == SPINE_STRUCTURAL)
	{
		search->has_suspects = true;
		search->suspicion = *error;
	}
}

/* Takes the events out whose values cannot be converted. */
static void
search_values(SpineSearch *search)
{
	for (int t = 0; t < search->plan->ntargets; t++)
	{
		Range		range = {.search = search, .target = &search->plan->targets[t]};
		size_t		nkept = 0;

		while (range.first < search->nevents)
		{
			size_t		start = range.first;
			SpineError	error;
			SpineOutcome outcome;

			CHECK_FOR_INTERRUPTS();
			outcome = spine_attempt_nested(convert_range, &range, &error);
			memmove(&search->events[nkept], &search->events[start],
					(range.first - start) * sizeof(SpineEvent));
			nkept += range.first - start;
			if (outcome != SPINE_DONE)
				blame(search, search->events[range.first++].record, outcome, &error);
		}
		search->nevents = nkept;
	}
}

static bool
is_same_reason(const SpineError *a, const SpineError *b)
{
	return strcmp(a->sqlstate, b->sqlstate) == 0 && a->message_len == b->message_len &&
		memcmp(a->text, b->text, a->message_len) == 0;
}

static bool
give_up(SpineSearch *search, const SpineError *error)
{
	search->error = *error;
	search->outcome = SPINE_STRUCTURAL;
	return false;
}

static bool
trip_breaker(SpineSearch *search)
{
	const SpineError *error = &search->refusals.error;
	const char *hint = strcmp(error->sqlstate, "23514") == 0 ?
		"Create the partition that is missing, or mend the constraint." : "Mend the table.";
	SpineError	verdict = *error;
	int			room;
	int			len = strlen(error->text);

	/* what to do is more than the last details of the reason */
	room = sizeof(verdict.text) - strlen(hint) - 200;
	len = len > room ? pg_mbcliplen(error->text, len, room) : len;
	snprintf(verdict.text, sizeof(verdict.text),
			 "%d records in a row were refused for one reason: %.*s HINT: %s If the records are at fault, set spine.breaker_records to 0 until they are dead letters.",
			 search->refusals.n, len, error->text, hint);
	return give_up(search, &verdict);
}

/* The database has refused a record whose values are right.  False: the search ends. */
static bool
note_refusal(SpineSearch *search, const SpineRecord *record, SpineOutcome outcome,
			 const SpineError *error)
{
	SpineRefusals *refusals = &search->refusals;

	if (refusals->n == 0 || !is_same_reason(&refusals->error, error))
		refusals->n = search->nrefused = 0;
	refusals->n++;
	refusals->error = *error;
	search->nrefused++;
	blame(search, record, outcome, error);

	if (search->breaker > 0 && search->nrefused >= search->breaker)
		return trip_breaker(search);
	search->nsuspects += outcome == SPINE_STRUCTURAL;
	if (search->npassed == 0 && search->nsuspects >= MAX_SUSPECTS)
		return give_up(search, &search->suspicion);
	return true;
}

/* False: the search ends; search->outcome says how. */
static bool
search_range(SpineSearch *search, size_t first, size_t n)
{
	Range		range = {.search = search, .first = first, .n = n};
	SpineOutcome outcome;
	SpineError	error;

	CHECK_FOR_INTERRUPTS();
	if (n == 0)
		return true;

	outcome = spine_attempt_nested(apply_range, &range, &error);
	if (outcome == SPINE_DONE)
	{
		search->nupserts += range.nupserts;
		search->npassed += n;
		search->refusals.n = search->nrefused = 0;

		/* with more, every snapshot of the server would have to look them up on disk */
		if (++search->nsubtransactions < SPINE_MAX_SUBTRANSACTIONS || first + n == search->nevents)
			return true;
		search->unsettled = search->events[first + n].record;
		search->outcome = SPINE_TOO_LARGE;
		return false;
	}
	if (n == 1)
		return note_refusal(search, search->events[first].record, outcome, &error);
	return search_range(search, first, n / 2) && search_range(search, first + n / 2, n - n / 2);
}

SpineOutcome
spine_search(SpineSearch *search)
{
	search->outcome = SPINE_DONE;
	search_values(search);
	if (search_range(search, 0, search->nevents) && search->npassed == 0)
	{
		if (search->has_suspects)
			(void) give_up(search, &search->suspicion);
		else if (search->breaker > 0 && search->refusals.n >= search->breaker && search->nrefused > 0)
			(void) trip_breaker(search);
	}
	return search->outcome;
}

/*
 * records.c
 *		Records to rows, in the caller's transaction.
 */
#include "apply/records.h"

/* SQLSTATEs of what decoding refuses. */
static const char *const decode_sqlstates[] = {
	[SPINE_NO_VALUE] = "22004",
	[SPINE_MALFORMED] = "22P02",
	[SPINE_BEYOND_LIMIT] = "54000",
};

void
spine_records_decode(SpinePlan *plan, const SpineRecord *records, size_t n,
					 SpineDecoded *decoded)
{
	spine_records_forget(plan);

	*decoded = (SpineDecoded) {.context = CurrentMemoryContext, .nrecords = n};
	decoded->events = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(SpineEvent));
	decoded->letters = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * sizeof(SpineDeadLetter));

	for (size_t i = 0; i < n; i++)
	{
		char		reason[256];
		SpineDecodeOutcome outcome = plan->format->decode(plan->decoder, &records[i],
														  plan->max_record_memory,
														  &decoded->events[decoded->nevents],
														  reason, sizeof(reason));

		if (outcome == SPINE_DECODED)
			decoded->nevents++;
		else if (outcome == SPINE_DECODE_NO_MEMORY)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory"),
					 errdetail("Failed on decoding a record of %zu bytes.", records[i].value_len)));
		else
			decoded->letters[decoded->nletters++] =
				spine_dead_letter_make(&records[i], decode_sqlstates[outcome], reason);
	}
}

void
spine_records_forget(SpinePlan *plan)
{
	plan->format->reset(plan->decoder);
}

SpineApplying *
spine_records_start(SpinePlan *plan)
{
	return spine_apply_begin(plan) ? spine_apply_start(plan) : NULL;
}

SpineApplyCounts
spine_records_finish(SpinePlan *plan, SpineApplying *applying)
{
	SpineApplyCounts counts = spine_apply_finish(applying);

	/* what has changed meanwhile is no record's fault, nor may it be committed */
	spine_trust_check(plan->trust);
	return counts;
}

static int
compare_letters(const void *a, const void *b)
{
	const SpineRecord *record_a = ((const SpineDeadLetter *) a)->record;
	const SpineRecord *record_b = ((const SpineDeadLetter *) b)->record;

	return (record_a > record_b) - (record_a < record_b);
}

SpineApplyOutcome
spine_records_search(SpinePlan *plan, const SpineDecoded *decoded, int breaker,
					 SpineApplied *applied)
{
	SpineEvent *events;
	SpineApplyOutcome outcome;

	applied->counts = (SpineApplyCounts) {0};
	applied->nsubtransactions = 0;
	if (!spine_apply_begin(plan))
		return SPINE_PLAN_OUTDATED;

	applied->nletters = decoded->nletters;
	applied->letters = MemoryContextAllocHuge(decoded->context, Max(decoded->nrecords, 1) * sizeof(SpineDeadLetter));
	memcpy(applied->letters, decoded->letters, decoded->nletters * sizeof(SpineDeadLetter));
	events = MemoryContextAllocHuge(CurrentMemoryContext, Max(decoded->nevents, 1) * sizeof(SpineEvent));
	memcpy(events, decoded->events, decoded->nevents * sizeof(SpineEvent));

	outcome = spine_search(plan, events, decoded->nevents, breaker, decoded->context, applied);
	pfree(events);
	if (outcome == SPINE_APPLIED)
	{
		spine_trust_check(plan->trust);
		qsort(applied->letters, applied->nletters, sizeof(SpineDeadLetter), compare_letters);
	}
	return outcome;
}

/*
 * attempt.h
 *		Running a step in a transaction of its own and sorting what went wrong
 *		into the few classes that a worker acts on.
 */
#ifndef SPINE_ATTEMPT_H
#define SPINE_ATTEMPT_H

#include "compat.h"
#include "shared.h"

typedef enum SpineOutcome
{
	SPINE_DONE,					/* committed */
	SPINE_ABANDONED,			/* the step returned false: rolled back */
	SPINE_REFUSED,				/* the data is at fault: a dead letter */
	SPINE_TRANSIENT,			/* will pass: try again */
	SPINE_STRUCTURAL,			/* needs a person: wait, try again slowly; or
								 * the fault of one record, if others pass */
	SPINE_TOO_LARGE				/* of batches only: apply fewer records at once */
} SpineOutcome;

typedef struct SpineError
{
	char		sqlstate[6];
	int			message_len;	/* of text: what comes before detail and hint */
	char		text[SPINE_MAX_ERROR_LEN];	/* message, with detail and hint */
} SpineError;

/* Returns false to roll back without an error. */
typedef bool (*SpineStep) (void *arg);

/*
 * Runs step in a transaction of its own, with SPI and a snapshot, and commits.
 * On an error: rolls back, fills *error, and returns its class.  Corruption
 * (XX001, XX002) is rethrown, after *error is filled: the process exits and is
 * started again.  Returns in the caller's memory context.
 */
extern SpineOutcome spine_attempt(SpineStep step, void *arg, SpineError *error);

/*
 * Runs step in a subtransaction of the current transaction: what it did is
 * kept, or undone and classified as above.  SPINE_REFUSED and SPINE_STRUCTURAL
 * come back as outcomes; any other error is rethrown and fails the whole
 * transaction.  Either way, the subtransaction is over.
 */
extern SpineOutcome spine_attempt_nested(SpineStep step, void *arg, SpineError *error);

#endif							/* SPINE_ATTEMPT_H */

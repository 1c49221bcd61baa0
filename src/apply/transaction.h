/*
 * transaction.h
 *		Runs a step in a transaction of its own, in a subtransaction, or in none, and turns
 *		what goes wrong into an error of one of the few classes that a caller acts on.
 */
#ifndef SPINE_TRANSACTION_H
#define SPINE_TRANSACTION_H

#include "compat.h"
#include "error.h"

typedef enum SpineTransactionEnd
{
	SPINE_COMMITTED,
	SPINE_ROLLED_BACK,			/* the step asked for it */
	SPINE_ABORTED				/* by an error */
} SpineTransactionEnd;

/* Returns false to roll its transaction back without an error. */
typedef bool (*SpineStep)(void *arg);

/*
 * Runs step, outside of any transaction.  True: it has run to its end.  False: *error says
 * why not.  Corruption (XX001, XX002) is rethrown after *error is filled: the process exits
 * and is started again.  Returns in the caller's memory context.
 */
extern bool spine_step_run(SpineStep step, void *arg, SpineError *error);

/*
 * The same in a transaction of its own, with SPI and a snapshot, which is committed, or
 * rolled back on an error.
 */
extern SpineTransactionEnd spine_transaction_run(SpineStep step, void *arg, SpineError *error);

/*
 * Runs step in a subtransaction of the current transaction.  True: it has run to its end,
 * and its work is kept or undone as it asked for.  False: its work is undone, and *error says
 * why, in class SPINE_REFUSED or SPINE_STRUCTURAL.  Any other error is rethrown and fails the
 * whole transaction.  In each case, the subtransaction is over.
 */
extern bool spine_subtransaction_run(SpineStep step, void *arg, SpineError *error);

/*
 * Runs step in a subtransaction of the current transaction whose work is undone in any case.
 * An error is rethrown after that.
 */
extern void spine_subtransaction_rehearse(SpineStep step, void *arg);

#endif							/* SPINE_TRANSACTION_H */

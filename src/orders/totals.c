/*
 * totals.c
 *		Which rows of spine_order_totals a session counts in.
 *
 * Each transaction that counts makes a version of such a row.  While somebody has an
 * old snapshot, no version can be removed, and the index leads each transaction through
 * all versions before its own.  So a session begins new rows after some of its
 * transactions, if their versions must stay.  When they need not stay any more, the
 * session adds up its rows.
 */
#include "compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "storage/procarray.h"

#define TRANSACTIONS	500		/* that count in the same rows, even if all their versions stay */
#define NUMBERS			(1 << 18)	/* more than there can be sessions */
#define MAX_GENERATION	(PG_INT32_MAX / NUMBERS - 1)

static int	generation;
static int	ntransactions;		/* since the generation was last looked at */
static TransactionId first_counted = InvalidTransactionId;	/* of these transactions */
static TransactionId last_counted = InvalidTransactionId;	/* the last of them */
static bool adds_up;			/* the session is to add up its rows */
static TransactionId added_up_by = InvalidTransactionId;

PG_FUNCTION_INFO_V1(spine_session_number);
PG_FUNCTION_INFO_V1(spine_session_adds_up);

/* Once in each transaction that has changed something. */
static void
count_transaction(void)
{
	TransactionId xid = GetTopTransactionIdIfAny();

	if (!TransactionIdIsValid(xid) || xid == last_counted)
		return;
	last_counted = xid;
	if (TransactionIdIsValid(added_up_by))
	{
		adds_up = !TransactionIdDidCommit(added_up_by);
		added_up_by = InvalidTransactionId;
	}
	if (!TransactionIdIsValid(first_counted))
		first_counted = xid;
	if (++ntransactions < TRANSACTIONS)
		return;

	if (TransactionIdPrecedes(GetOldestNonRemovableTransactionId(NULL), first_counted))
		generation = Min(generation + 1, MAX_GENERATION);
	else if (generation > 0)
	{
		generation = 0;
		adds_up = true;
	}
	ntransactions = 0;
	first_counted = xid;
}

/*
 * A number that no other session has at the same time; a later session may have it.  A
 * session has several numbers, one after the other, which are the same modulo NUMBERS.
 */
Datum
spine_session_number(PG_FUNCTION_ARGS)
{
	count_transaction();
	PG_RETURN_INT32(generation * NUMBERS + MyProcNumber);
}

/* Is it time for the session to add up its rows? */
Datum
spine_session_adds_up(PG_FUNCTION_ARGS)
{
	count_transaction();
	if (!adds_up || TransactionIdIsValid(added_up_by))
		PG_RETURN_BOOL(false);
	added_up_by = last_counted;
	PG_RETURN_BOOL(true);
}

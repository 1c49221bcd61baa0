/*
 * totals.c
 *		Which rows of spine_order_totals a session counts in.
 *
 * Each transaction that counts makes a version of such a row, and while somebody has an
 * old snapshot, none of them can be removed: the index leads the next one through all
 * that were before.  So a session begins new rows after some of its transactions, if
 * their versions must stay; and when they need not any more, it adds up its rows.
 */
#include "compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "storage/procarray.h"

#define TRANSACTIONS	500		/* that count in the same rows, whatever snapshots there are */
#define NUMBERS			(1 << 18)	/* more than there can be sessions */
#define MAX_GENERATION	(PG_INT32_MAX / NUMBERS - 1)

static int	generation;
static int	ntransactions;		/* of this generation, or since it was looked at */
static TransactionId looked_at = InvalidTransactionId;	/* the first of these */
static TransactionId current = InvalidTransactionId;	/* the last of these */
static bool adds_up;
static TransactionId added_up_by = InvalidTransactionId;

PG_FUNCTION_INFO_V1(spine_session_number);
PG_FUNCTION_INFO_V1(spine_session_adds_up);

/* Once in each transaction that has changed something. */
static void
count_transaction(void)
{
	TransactionId xid = GetTopTransactionIdIfAny();

	if (!TransactionIdIsValid(xid) || xid == current)
		return;
	current = xid;
	if (TransactionIdIsValid(added_up_by))
	{
		adds_up = !TransactionIdDidCommit(added_up_by);
		added_up_by = InvalidTransactionId;
	}
	if (!TransactionIdIsValid(looked_at))
		looked_at = xid;
	if (++ntransactions < TRANSACTIONS)
		return;

	if (TransactionIdPrecedes(GetOldestNonRemovableTransactionId(NULL), looked_at))
		generation = Min(generation + 1, MAX_GENERATION);
	else if (generation > 0)
	{
		generation = 0;
		adds_up = true;
	}
	ntransactions = 0;
	looked_at = xid;
}

/*
 * Tells apart the sessions that there are at a time; a later one may have it.  The
 * same session has several, one after the other: they are the same modulo NUMBERS.
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
	added_up_by = current;
	PG_RETURN_BOOL(true);
}

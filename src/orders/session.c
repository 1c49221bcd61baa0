/*
 * session.c
 *		Which rows of the totals a session counts in.
 *
 * Each transaction that counts makes a version of such a row.  While somebody has an
 * old snapshot, no version can be removed, and the index leads each transaction through
 * all versions before its own.  So a session begins new rows after some of its
 * transactions, if their versions must stay.  When they need not stay any more, the
 * session adds up its rows.
 */
#include "orders/session.h"

#include "access/transam.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

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

int32
spine_session(void)
{
	count_transaction();
	return generation * NUMBERS + MyProcNumber;
}

Datum
spine_session_number(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(spine_session());
}

/* Is it time for the session to add up its rows? */
static bool
is_time_to_add_up(void)
{
	count_transaction();
	if (!adds_up || TransactionIdIsValid(added_up_by))
		return false;
	added_up_by = last_counted;
	return true;
}

void
spine_session_add_up(Oid namespace)
{
	static const char *const statements[] = {
		"WITH mine AS (DELETE FROM %1$s.spine_order_totals"
		" WHERE session OPERATOR(pg_catalog.>) %3$d AND session OPERATOR(pg_catalog.%%) %4$d OPERATOR(pg_catalog.=) %2$d"
		" RETURNING *)"
		" INSERT INTO %1$s.spine_order_totals AS t"
		" SELECT m.tenant, m.currency, m.status, %2$d, pg_catalog.sum(m.orders), pg_catalog.sum(m.amount_cents), pg_catalog.max(m.newest)"
		" FROM mine m GROUP BY 1, 2, 3"
		" ON CONFLICT (tenant, currency, status, session) DO UPDATE"
		" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
		" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents,"
		" newest = greatest(t.newest, EXCLUDED.newest)",

		"WITH mine AS (DELETE FROM %1$s.spine_order_sums"
		" WHERE session OPERATOR(pg_catalog.>) %3$d AND session OPERATOR(pg_catalog.%%) %4$d OPERATOR(pg_catalog.=) %2$d"
		" RETURNING *)"
		" INSERT INTO %1$s.spine_order_sums AS t"
		" SELECT m.currency, m.status, %2$d, pg_catalog.sum(m.orders), pg_catalog.sum(m.amount_cents)"
		" FROM mine m GROUP BY 1, 2"
		" ON CONFLICT (currency, status, session) DO UPDATE"
		" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
		" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents",

		"WITH mine AS (DELETE FROM %1$s.spine_order_counts"
		" WHERE session OPERATOR(pg_catalog.>) %3$d AND session OPERATOR(pg_catalog.%%) %4$d OPERATOR(pg_catalog.=) %2$d"
		" RETURNING *)"
		" INSERT INTO %1$s.spine_order_counts AS t"
		" SELECT m.tenant, %2$d, pg_catalog.sum(m.orders)"
		" FROM mine m GROUP BY 1"
		" ON CONFLICT (tenant, session) DO UPDATE"
		" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders",
	};
	const char *schema;

	if (!is_time_to_add_up())
		return;
	SPI_connect();
	schema = quote_identifier(get_namespace_name(namespace));
	for (int i = 0; i < (int) lengthof(statements); i++)
	{
		int			rc = SPI_execute(psprintf(statements[i], schema, spine_session(), NUMBERS - 1, NUMBERS), false, 0);

		if (rc != SPI_OK_INSERT)
			elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	}
	SPI_finish();
}

/*
 * transaction.c
 *		The only places that catch errors: a step, which may be a whole transaction, and a
 *		subtransaction of the search for a refused record.
 */
#include "apply/transaction.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/*
 * Was it raised by code in a procedural language, such as RAISE in a trigger?  Such code
 * may raise any SQLSTATE, and so tells nothing of the server.
 */
static bool
is_raised(const ErrorData *edata)
{
	return edata->domain && strcmp(edata->domain, PG_TEXTDOMAIN("postgres")) != 0;
}

/* The server has found its own data on disk to be damaged. */
static bool
is_corruption(const ErrorData *edata)
{
	return ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INTERNAL_ERROR &&
		edata->sqlerrcode != ERRCODE_INTERNAL_ERROR && !is_raised(edata);
}

/*
 * By SQLSTATE class (see PostgreSQL's errcodes.txt).  An error that is neither the server's
 * trouble nor the schema's is the data's.
 */
static SpineErrorClass
classify(const ErrorData *edata)
{
	SpineErrorClass trouble = is_raised(edata) ? SPINE_STRUCTURAL : SPINE_TRANSIENT;

	switch (ERRCODE_TO_CATEGORY(edata->sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_FDW_ERROR: /* a foreign partition's server is away */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* serialization, deadlock */
			return trouble;

		case ERRCODE_FEATURE_NOT_SUPPORTED:
		case ERRCODE_INVALID_TRANSACTION_STATE: /* a read-only transaction */
		case ERRCODE_INVALID_CATALOG_NAME:
		case ERRCODE_INVALID_SCHEMA_NAME:
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:
		case ERRCODE_INTERNAL_ERROR:	/* some types raise it for bad data */
			return SPINE_STRUCTURAL;

		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):	/* no such column, no right */

			/* jsonpath, tsquery, ltree and hstore call a bad value a syntax error */
			return edata->sqlerrcode == ERRCODE_SYNTAX_ERROR ? SPINE_REFUSED : SPINE_STRUCTURAL;

		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
			return edata->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE ?
				SPINE_STRUCTURAL : trouble; /* a lock, an object in use */

		default:
			return SPINE_REFUSED;
	}
}

bool
spine_step_run(SpineStep step, void *arg, SpineError *error)
{
	MemoryContext caller_context = CurrentMemoryContext;
	volatile bool is_done = true;

	Assert(!IsTransactionState());

	PG_TRY();
	{
		step(arg);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller_context);
		edata = CopyErrorData();
		spine_error_copy(error, classify(edata), edata);
		if (is_corruption(edata))
			PG_RE_THROW();
		FreeErrorData(edata);

		HOLD_INTERRUPTS();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		RESUME_INTERRUPTS();
		is_done = false;
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_context);
	return is_done;
}

/* A step, and whether it was committed. */
typedef struct Transaction
{
	SpineStep	step;
	void	   *arg;
	bool		commits;
} Transaction;

/* Step: the other one, in a transaction. */
static bool
run_transaction(void *arg)
{
	Transaction *transaction = arg;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	transaction->commits = transaction->step(transaction->arg);
	SPI_finish();
	PopActiveSnapshot();
	if (transaction->commits)
		CommitTransactionCommand();
	else
		AbortOutOfAnyTransaction();
	return true;
}

SpineTransactionEnd
spine_transaction_run(SpineStep step, void *arg, SpineError *error)
{
	Transaction transaction = {step, arg, false};
	bool		is_done = spine_step_run(run_transaction, &transaction, error);

	/* or the statistics views would never see this process's work */
	pgstat_report_stat(false);
	if (!is_done)
		return SPINE_ABORTED;
	return transaction.commits ? SPINE_COMMITTED : SPINE_ROLLED_BACK;
}

bool
spine_subtransaction_run(SpineStep step, void *arg, SpineError *error)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	MemoryContext step_context;
	volatile bool is_done = true;

	Assert(IsTransactionState());

	step_context = AllocSetContextCreate(caller_context, "spine subtransaction", ALLOCSET_DEFAULT_SIZES);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(step_context);

	PG_TRY();
	{
		if (step(arg))
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;
		SpineErrorClass class;

		MemoryContextSwitchTo(caller_context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller_context);
		CurrentResourceOwner = caller_owner;

		class = classify(edata);
		if (class == SPINE_TRANSIENT || is_corruption(edata))
			ReThrowError(edata);
		spine_error_copy(error, class, edata);
		FreeErrorData(edata);
		is_done = false;
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_context);
	MemoryContextDelete(step_context);
	CurrentResourceOwner = caller_owner;
	return is_done;
}

void
spine_subtransaction_rehearse(SpineStep step, void *arg)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;

	Assert(IsTransactionState());

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller_context);
	PG_TRY();
	{
		step(arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller_context);
		edata = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller_context);
	CurrentResourceOwner = caller_owner;
	if (edata)
		ReThrowError(edata);
}

/*
 * attempt.c
 *		The only two places that catch errors: a whole transaction, and a
 *		subtransaction within it that searches for a refused record.
 */
#include "attempt.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/*
 * Was it raised by code in a procedural language, such as RAISE in a trigger?  Such
 * code may raise any SQLSTATE, and what it says is no word of the server's.
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
 * By SQLSTATE class (see PostgreSQL's errcodes.txt).  What is neither the
 * server's trouble nor the schema's is the data's.
 */
static SpineOutcome
classify(const ErrorData *edata)
{
	SpineOutcome trouble = is_raised(edata) ? SPINE_STRUCTURAL : SPINE_TRANSIENT;

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

static void
describe_error(const ErrorData *edata, SpineError *error)
{
	StringInfoData text;

	strlcpy(error->sqlstate, unpack_sql_state(edata->sqlerrcode), sizeof(error->sqlstate));
	initStringInfo(&text);
	appendStringInfoString(&text, edata->message ? edata->message : "missing error text");
	error->message_len = text.len;
	if (edata->detail)
		appendStringInfo(&text, " DETAIL: %s", edata->detail);
	if (edata->column_name && strstr(text.data, edata->column_name) == NULL)
		appendStringInfo(&text, " COLUMN: %s", edata->column_name);
	if (edata->hint)
		appendStringInfo(&text, " HINT: %s", edata->hint);

	/* cut at a character, not within one */
	text.data[pg_mbcliplen(text.data, text.len, sizeof(error->text) - 1)] = '\0';
	strlcpy(error->text, text.data, sizeof(error->text));
	error->message_len = Min(error->message_len, (int) strlen(error->text));
	pfree(text.data);
}

SpineOutcome
spine_attempt(SpineStep step, void *arg, SpineError *error)
{
	MemoryContext caller_context = CurrentMemoryContext;
	volatile SpineOutcome outcome = SPINE_DONE;

	PG_TRY();
	{
		bool		commit;

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		SPI_connect();
		PushActiveSnapshot(GetTransactionSnapshot());
		commit = step(arg);
		SPI_finish();
		PopActiveSnapshot();
		if (commit)
			CommitTransactionCommand();
		else
		{
			AbortOutOfAnyTransaction();
			outcome = SPINE_ABANDONED;
		}
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller_context);
		edata = CopyErrorData();
		outcome = classify(edata);
		describe_error(edata, error);
		if (is_corruption(edata))
			PG_RE_THROW();
		FreeErrorData(edata);

		HOLD_INTERRUPTS();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_context);

	/* or the statistics views would never see this process's work */
	pgstat_report_stat(false);
	return outcome;
}

SpineOutcome
spine_attempt_nested(SpineStep step, void *arg, SpineError *error)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	MemoryContext step_context = AllocSetContextCreate(caller_context, "spine nested attempt",
													   ALLOCSET_DEFAULT_SIZES);
	volatile SpineOutcome outcome = SPINE_DONE;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(step_context);

	PG_TRY();
	{
		step(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller_context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller_context);
		CurrentResourceOwner = caller_owner;

		outcome = classify(edata);
		if (outcome == SPINE_TRANSIENT || is_corruption(edata))
			ReThrowError(edata);
		describe_error(edata, error);
		FreeErrorData(edata);
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_context);
	MemoryContextDelete(step_context);
	CurrentResourceOwner = caller_owner;
	return outcome;
}

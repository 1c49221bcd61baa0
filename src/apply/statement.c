/*
 * statement.c
 *		Keeps the plan of a statement as long as its text stays the same.
 */
#include "apply/statement.h"

#include "access/xact.h"
#include "utils/memutils.h"

SPIPlanPtr
spine_statement_prepare(SpineStatement *statement, const char *query, int nargs, Oid *types)
{
	SPIPlanPtr	plan;
	char	   *text;

	Assert(IsTransactionState());
	if (statement->query && strcmp(statement->query, query) == 0)
		return statement->plan;

	/* one plan for all parameters, which is made once */
	plan = SPI_prepare_cursor(query, nargs, types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	text = MemoryContextStrdup(TopMemoryContext, query);
	SPI_keepplan(plan);
	spine_statement_free(statement);
	statement->query = text;
	statement->plan = plan;
	return plan;
}

void
spine_statement_free(SpineStatement *statement)
{
	if (statement->query == NULL)
		return;
	SPI_freeplan(statement->plan);
	pfree(statement->query);
	memset(statement, 0, sizeof(*statement));
}

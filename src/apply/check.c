/*
 * check.c
 *		Asks PostgreSQL whether it would run the statements of a plan, by EXPLAIN, and compute
 *		its expressions.
 */
#include "apply/check.h"

#include "access/xact.h"
#include "apply/role.h"
#include "apply/rows.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/queryenvironment.h"

static void
sink_error_context(void *arg)
{
	const SpineSink *sink = arg;

	errcontext("checking target %s, which is written as role %s",
			   sink->table_name, GetUserNameFromId(sink->run_as, false));
}

/* EXPLAIN does what comes before the first row: looks names up, plans, checks privileges. */
static void
explain(const SpineSink *sink, const char *sql, Tuplestorestate *no_rows)
{
	EphemeralNamedRelationData relation = {
		.md = {
			.name = SPINE_ROWS,
			.tupdesc = sink->row_type,
			.enrtype = ENR_NAMED_TUPLESTORE
		},
		.reldata = no_rows
	};
	int			result;

	SPI_connect();
	if (SPI_register_relation(&relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of a batch");
	result = SPI_execute(psprintf("EXPLAIN %s", sql), false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	SPI_finish();
}

/* Preparing expressions checks the privileges on what they read and call. */
static void
prepare_expressions(const SpineSink *sink)
{
	bool		looking_up;

	if (sink->projection)
		spine_projection_end(spine_projection_begin(sink->projection, &looking_up));
}

static void
check_sink(SpineSink *sink)
{
	ErrorContextCallback callback = {error_context_stack, sink_error_context, sink};
	Tuplestorestate *no_rows = tuplestore_begin_heap(false, false, work_mem);
	SpineRole	saved;

	error_context_stack = &callback;
	spine_role_assume(&saved, sink->run_as);
	prepare_expressions(sink);
	for (int i = 0; i < SPINE_SINK_STATEMENTS; i++)
	{
		if (sink->sql[i][0] != '\0')
			explain(sink, sink->sql[i], no_rows);
	}
	spine_role_resume(&saved);
	error_context_stack = callback.previous;
	tuplestore_end(no_rows);
}

void
spine_plan_check(const SpinePlan *plan)
{
	Assert(IsTransactionState());
	for (int i = 0; i < plan->nsinks; i++)
		check_sink(&plan->sinks[i]);
}

/*
 * write.c
 *		Runs the statements of a sink, which read its rows by the name spine_rows.
 */
#include "apply/write.h"

#include "access/xact.h"
#include "apply/lookup.h"
#include "utils/queryenvironment.h"

/* Returns how many rows the statement wrote. */
static uint64
run_statement(SpineSink *sink, SpineSinkStatement which, const char *sql, Tuplestorestate *rows)
{
	bool		is_partial = which == SPINE_SINK_UPDATE_PARTIAL || which == SPINE_SINK_INSERT_PARTIAL;
	EphemeralNamedRelationData relation = {
		.md = {
			.name = SPINE_ROWS,
			.tupdesc = sink->row_type,
			.enrtype = ENR_NAMED_TUPLESTORE,
			.enrtuples = is_partial ? 1 : tuplestore_tuple_count(rows)
		},
		.reldata = rows
	};
	SPIPlanPtr	plan;
	uint64		nwritten;
	int			result;

	/* a connection of its own, so that an error ends the name as well */
	SPI_connect();
	if (SPI_register_relation(&relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of a batch");
	plan = spine_statement_prepare(&sink->statements[which], sql, 0, NULL);
	if (is_partial)
		spine_lookup_plan(plan);
	result = SPI_execute_plan(plan, NULL, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	nwritten = SPI_processed;
	SPI_finish();
	return nwritten;
}

/* Returns how many rows were written. */
static uint64
write_whole(SpineSink *sink, SpineSinkStatement which, const SpineStoredRows *rows)
{
	const char *sql = sink->sql[which];

	if (rows->left_out)
	{
		StringInfoData buf;

		initStringInfo(&buf);
		sink->kind->write_statement(&buf, sink, which, rows->left_out);
		sql = buf.data;
	}
	return run_statement(sink, which, sql, rows->whole);
}

static uint64
write_partial(SpineSink *sink, Tuplestorestate *rows)
{
	uint64		nwritten = 0;

	for (int i = SPINE_SINK_UPDATE_PARTIAL; i <= SPINE_SINK_INSERT_PARTIAL; i++)
	{
		if (sink->sql[i][0] != '\0')
			nwritten += run_statement(sink, i, sink->sql[i], rows);
	}
	return nwritten;
}

void
spine_write_rows(SpineSink *sink, SpineSinkStatement which, const SpineStoredRows *rows,
				 SpineApplyCounts *counts)
{
	uint64		nwhole = tuplestore_tuple_count(rows->whole);
	uint64		npartial = rows->partial ? tuplestore_tuple_count(rows->partial) : 0;
	uint64		nwritten = 0;

	Assert(IsTransactionState());
	if (nwhole > 0)
		nwritten += write_whole(sink, which, rows);
	if (npartial > 0)
		nwritten += write_partial(sink, rows->partial);
	if (sink->kind->updates_rows)
	{
		counts->nupserts += nwritten;
		counts->nunchanged += nwhole + npartial - Min(nwritten, nwhole + npartial);
	}
}

void
spine_write_events(SpineSink *sink, SpineSinkStatement which, const SpineEvent *events, size_t n,
				   SpineApplyCounts *counts)
{
	SpineStoredRows rows = spine_rows_make(sink, events, n);

	spine_write_rows(sink, which, &rows, counts);
	counts->nfiltered += rows.nfiltered;
	tuplestore_end(rows.whole);
	if (rows.partial)
		tuplestore_end(rows.partial);
}

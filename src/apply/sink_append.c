/*
 * sink_append.c
 *		Sinks of mode "append": each event is a new row.
 *
 * With a key, a row that is there already can be recognized, and skipped.  That costs twice
 * as much as a plain INSERT, so it is done only when the plain one has found such a row.
 * Without a key nothing says which rows are the same.
 */
#include "apply/sink.h"

static void
write_statement(StringInfo sql, const SpineSink *sink, SpineSinkStatement which, const bool *left_out)
{
	if (which != SPINE_SINK_PLAIN && which != SPINE_SINK_SKIP_EXISTING)
		return;
	spine_sink_append_insert(sql, sink, left_out);
	if (which == SPINE_SINK_PLAIN || sink->nkeys == 0)
		return;
	appendStringInfoString(sql, " ON CONFLICT (");
	spine_sink_append_keys(sql, sink);
	appendStringInfoString(sql, ") DO NOTHING");
}

const SpineSinkKind spine_sink_append = {
	.mode = "append",
	.write_statement = write_statement
};

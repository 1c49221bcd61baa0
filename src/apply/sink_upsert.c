/*
 * sink_upsert.c
 *		Sinks of mode "upsert": one row per key, of the newest version.
 *
 * The events of a batch are reduced to the newest per key first (newest.c).  Then a statement
 * updates a row unless the row is newer.  An event of the same version as the row is
 * later in the log, and wins.  Without a version each event is newer than the row.  A row
 * that would not change is not written.  Rows that are kept to the end of the transaction
 * (kept_rows.c) are written without the statement, if PostgreSQL would do nothing else with it.
 *
 * ON CONFLICT has to be given a whole row, and sees no more of it when it updates.  So it
 * takes events that have all columns.  A column that no event of the batch has is not named,
 * if the row can be proposed without it.  Partial rows go through an UPDATE, which leaves
 * alone what is missing, and then an INSERT of those whose key is not there.  A row that
 * another session inserts in between is a violation of the unique index; the search for
 * the record to blame then runs the two again.
 */
#include "apply/sink.h"

#include "access/xact.h"
#include "apply/compare.h"
#include "apply/conflict.h"
#include "apply/kept_rows.h"
#include "apply/newest.h"
#include "apply/plain_statement.h"
#include "apply/rows.h"
#include "apply/table_upsert.h"
#include "apply/write.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

/* For how many transactions a sink whose events lack different columns takes statements. */
#define MIXED_TRANSACTIONS	100

static void
describe_version(SpineSink *sink, const char *name)
{
	SpineColumn *version;

	sink->version = spine_sink_find_column(sink, name);
	version = &sink->columns[sink->version];
	version->needed_as = "version";
	if (spine_sink_is_key(sink, sink->version))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("version column \"%s\" of table %s is part of the key",
						version->name, sink->table_name),
				 errhint("Change \"key\" or \"version\" in spine_sinks.")));
	if (!OidIsValid(get_array_type(version->base_type)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("version column \"%s\" of table %s is of type %s, of which there are no arrays",
						version->name, sink->table_name, format_type_be(version->base_type)),
				 errhint("Change \"version\" in spine_sinks.")));
}

static void
describe(SpineSink *sink, const SpineSinkDefinition *definition)
{
	for (int i = 0; i < sink->nkeys; i++)
		sink->columns[sink->keys[i]].needed_as = "key";
	if (definition->version)
		describe_version(sink, definition->version);
	for (int i = 0; i < sink->ncolumns; i++)
		sink->columns[i].can_be_left_out = sink->columns[i].needed_as == NULL &&
			spine_conflict_can_leave_out(sink->relations, sink->columns[i].name);
}

/* --------------------------------------------------------------------------
 * The statements
 * -------------------------------------------------------------------------- */

/* Appends the value that a statement sets a column to. */
typedef void (*AppendValue)(StringInfo sql, const SpineSink *sink, int column);

static void
append_proposed(StringInfo sql, const SpineSink *sink, int column)
{
	appendStringInfo(sql, "EXCLUDED.%s", quote_identifier(sink->columns[column].name));
}

/* A value that an older event gives does not count if the row is newer than that event. */
static void
append_merged(StringInfo sql, const SpineSink *sink, int column)
{
	appendStringInfoString(sql, "CASE WHEN ");
	spine_rows_append_missing(sql, column);
	if (sink->version >= 0)
		appendStringInfo(sql, " OR u.givers[%d] %s t.%s", column + 1,
						 spine_compare_operator(&sink->columns[sink->version], BTLessStrategyNumber),
						 quote_identifier(sink->columns[sink->version].name));
	appendStringInfo(sql, " THEN t.%s ELSE u.c%d END", quote_identifier(sink->columns[column].name), column);
}

/*
 * Appends "the row would change", where the versions are equal.  Equal is what has the same
 * bytes: 1.0 and 1.00 are two values.
 */
static void
append_changes(StringInfo sql, const SpineSink *sink, const bool *left_out, AppendValue append_value)
{
	StringInfoData old_values;
	StringInfoData new_values;
	const char *separator = "";

	initStringInfo(&old_values);
	initStringInfo(&new_values);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const SpineColumn *column = &sink->columns[i];
		const char *name = quote_identifier(column->name);

		if (!spine_sink_sets(sink, i, left_out) || (i == sink->version && column->equal_if_same_bytes))
			continue;
		if (column->equal_if_same_bytes)
		{
			appendStringInfo(sql, "%st.%s IS DISTINCT FROM ", separator, name);
			append_value(sql, sink, i);
			separator = " OR ";
			continue;
		}
		appendStringInfo(&old_values, "%st.%s", old_values.len ? ", " : "", name);
		appendStringInfoString(&new_values, new_values.len ? ", (" : "(");
		append_value(&new_values, sink, i);
		appendStringInfo(&new_values, ")::%s", format_type_extended(column->type, -1, FORMAT_TYPE_FORCE_QUALIFY | FORMAT_TYPE_TYPEMOD_GIVEN));
	}
	if (old_values.len > 0)
		appendStringInfo(sql, "%spg_catalog.record_image_ne(ROW(%s), ROW(%s))", separator, old_values.data, new_values.data);
	else if (separator[0] == '\0')
		appendStringInfoString(sql, "false");
}

/*
 * Appends "the row is to be updated": it is not newer, and not the same.  A statement that sets
 * a column to what it proposes needs the right to read that column anyway.
 */
static void
append_condition(StringInfo sql, const SpineSink *sink, const bool *left_out, const char *new_version,
				 AppendValue append_value)
{
	const SpineColumn *version = sink->version < 0 ? NULL : &sink->columns[sink->version];
	const char *name = version ? quote_identifier(version->name) : NULL;

	if (version)
		appendStringInfo(sql, "t.%s IS NULL OR %s %s t.%s OR %s %s t.%s AND (",
						 name, new_version, spine_compare_operator(version, BTGreaterStrategyNumber), name,
						 new_version, spine_compare_operator(version, BTEqualStrategyNumber), name);
	append_changes(sql, sink, left_out, append_value);
	if (version)
		appendStringInfoChar(sql, ')');
}

/* Nothing may be left to set. */
static void
append_on_conflict(StringInfo sql, const SpineSink *sink, const bool *left_out)
{
	const char *separator = "DO UPDATE SET ";

	appendStringInfoString(sql, " ON CONFLICT (");
	spine_sink_append_keys(sql, sink);
	appendStringInfoString(sql, ") ");
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (!spine_sink_sets(sink, i, left_out))
			continue;
		appendStringInfo(sql, "%s%s = ", separator, quote_identifier(sink->columns[i].name));
		append_proposed(sql, sink, i);
		separator = ", ";
	}
	if (separator[0] != ',')
		appendStringInfoString(sql, "DO NOTHING");
	else
	{
		appendStringInfoString(sql, " WHERE ");
		append_condition(sql, sink, left_out,
						 sink->version < 0 ? NULL :
						 psprintf("EXCLUDED.%s", quote_identifier(sink->columns[sink->version].name)),
						 append_proposed);
	}
}

/* Does an UPDATE have anything to set? */
static bool
sets_any(const SpineSink *sink)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (spine_sink_sets(sink, i, NULL))
			return true;
	}
	return false;
}

static void
append_update(StringInfo sql, const SpineSink *sink)
{
	const char *separator = "";

	appendStringInfo(sql, "UPDATE %s AS t SET ", sink->table_name);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (!spine_sink_sets(sink, i, NULL))
			continue;
		appendStringInfo(sql, "%s%s = ", separator, quote_identifier(sink->columns[i].name));
		append_merged(sql, sink, i);
		separator = ", ";
	}
	appendStringInfoString(sql, " FROM " SPINE_ROWS " AS u WHERE ");
	spine_sink_append_same_key(sql, sink);
	appendStringInfoString(sql, " AND (");
	append_condition(sql, sink, NULL, psprintf("u.c%d", sink->version), append_merged);
	appendStringInfoChar(sql, ')');
}

static void
write_statement(StringInfo sql, const SpineSink *sink, SpineSinkStatement which, const bool *left_out)
{
	switch (which)
	{
		case SPINE_SINK_PLAIN:
		case SPINE_SINK_SKIP_EXISTING:
			spine_sink_append_insert(sql, sink, left_out);
			append_on_conflict(sql, sink, left_out);
			break;

		case SPINE_SINK_UPDATE_PARTIAL:
			if (sets_any(sink))
				append_update(sql, sink);
			break;

		case SPINE_SINK_INSERT_PARTIAL:
			spine_sink_append_insert(sql, sink, NULL);
			appendStringInfo(sql, " WHERE NOT EXISTS (SELECT FROM %s AS t WHERE ", sink->table_name);
			spine_sink_append_same_key(sql, sink);
			appendStringInfoString(sql, ")");
			break;

		case SPINE_SINK_STATEMENTS:
			break;
	}
}

/* --------------------------------------------------------------------------
 * A transaction of several pieces
 * -------------------------------------------------------------------------- */

struct SpineSinkWriter
{
	SpineSink  *sink;
	SpineKeptRows *kept;
	bool		is_direct;		/* rows are written without the statement */
	bool		is_mixed;		/* events lack different columns: they take the statements */
};

/* Finds out whether the rows can be written without the statement. */
static void
find_target(SpineSink *sink)
{
	Oid			arbiter;
	MemoryContext old_context;

	if (spine_statement_is_plain(sink, &arbiter) && OidIsValid(arbiter))
	{
		old_context = MemoryContextSwitchTo(sink->context);
		sink->upsert_target = spine_upsert_target_make(sink, arbiter);
		MemoryContextSwitchTo(old_context);
	}
	sink->knows_target = true;
}

/* Row security may begin to apply to a role without a change of the table. */
static bool
is_direct(SpineSink *sink)
{
	if (!sink->knows_target)
		find_target(sink);
	return sink->upsert_target && !IsolationUsesXactSnapshot() &&
		check_enable_rls(sink->table, InvalidOid, true) != RLS_ENABLED;
}

static SpineSinkWriter *
begin(SpineSink *sink)
{
	SpineSinkWriter *writer;

	if (!sink->may_be_written_late || !spine_kept_rows_suit(sink))
		return NULL;
	if (sink->mixed > 0)
	{
		sink->mixed--;
		return NULL;
	}
	writer = palloc0(sizeof(SpineSinkWriter));
	writer->sink = sink;
	writer->kept = spine_kept_rows_make(sink);
	writer->is_direct = is_direct(sink);
	return writer;
}

static void
add(SpineSinkWriter *writer, const SpineEvent *events, size_t n, SpineApplyCounts *counts)
{
	SpineRows	rows = {.events = events, .nevents = n};

	if (!writer->is_mixed)
	{
		spine_rows_compute(writer->sink, &rows);
		if (spine_kept_rows_add(writer->kept, &rows))
		{
			counts->nfiltered += rows.nfiltered;
			return;
		}
		spine_kept_rows_write(writer->kept, writer->is_direct, counts);
		writer->is_mixed = true;
		writer->sink->mixed = MIXED_TRANSACTIONS;
	}
	spine_write_events(writer->sink, SPINE_SINK_PLAIN, events, n, counts);
}

static size_t
held(const SpineSinkWriter *writer)
{
	return spine_kept_rows_size(writer->kept);
}

static void
finish(SpineSinkWriter *writer, SpineApplyCounts *counts)
{
	spine_kept_rows_write(writer->kept, writer->is_direct, counts);
}

static const char *
explain(const SpineSinkWriter *writer)
{
	return writer->is_direct ?
		"written without the statement; by it if one is refused, or if not all lack the same columns" : NULL;
}

const SpineSinkKind spine_sink_upsert = {
	.mode = "upsert",
	.updates_rows = true,
	.describe = describe,
	.write_statement = write_statement,
	.reduce = spine_newest_find,
	.begin = begin,
	.add = add,
	.held = held,
	.finish = finish,
	.explain = explain
};

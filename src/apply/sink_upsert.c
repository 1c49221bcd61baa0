/*
 * sink_upsert.c
 *		Sinks of mode "upsert": one row per key, of the newest version.
 *
 * The events of a batch are reduced to the newest per key first (newest.c).  Then a statement
 * updates a row unless the row is newer.  An event of the same version as the row is
 * later in the log, and wins.  Without a version each event is newer than the row.
 *
 * ON CONFLICT has to be given a whole row, and sees no more of it when it updates.  So it
 * takes events that have all columns.  A column that no event of the batch has is not named,
 * if the row can be proposed without it.  Partial rows go through an UPDATE, which leaves
 * alone what is missing, and then an INSERT of those whose key is not there.  A row that
 * another session inserts in between is a violation of the unique index; the search for
 * the record to blame then runs the two again.
 */
#include "apply/sink.h"

#include "apply/compare.h"
#include "apply/conflict.h"
#include "apply/newest.h"
#include "apply/rows.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static bool
is_key(const SpineSink *sink, int column)
{
	for (int i = 0; i < sink->nkeys; i++)
	{
		if (sink->keys[i] == column)
			return true;
	}
	return false;
}

static void
describe_version(SpineSink *sink, const char *name)
{
	SpineColumn *version;

	sink->version = spine_sink_find_column(sink, name);
	version = &sink->columns[sink->version];
	version->needed_as = "version";
	if (is_key(sink, sink->version))
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

/* Is the column one that an UPDATE sets? */
static bool
is_set(const SpineSink *sink, int column, const bool *left_out)
{
	return !is_key(sink, column) && !sink->columns[column].is_identity &&
		!(left_out && left_out[column]);
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
		const char *name = quote_identifier(sink->columns[i].name);

		if (!is_set(sink, i, left_out))
			continue;
		appendStringInfo(sql, "%s%s = EXCLUDED.%s", separator, name, name);
		separator = ", ";
	}
	if (separator[0] != ',')
		appendStringInfoString(sql, "DO NOTHING");
	else if (sink->version >= 0)
	{
		const SpineColumn *version = &sink->columns[sink->version];
		const char *name = quote_identifier(version->name);

		appendStringInfo(sql, " WHERE t.%s IS NULL OR EXCLUDED.%s %s t.%s", name, name,
						 spine_compare_operator(version, BTGreaterEqualStrategyNumber), name);
	}
}

/* Does an UPDATE have anything to set? */
static bool
sets_any(const SpineSink *sink)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (is_set(sink, i, NULL))
			return true;
	}
	return false;
}

/* A value that an older event gives does not count if the row is newer than that event. */
static void
append_update(StringInfo sql, const SpineSink *sink)
{
	const SpineColumn *version = sink->version < 0 ? NULL : &sink->columns[sink->version];
	const char *version_name = version ? quote_identifier(version->name) : NULL;
	const char *separator = "";

	appendStringInfo(sql, "UPDATE %s AS t SET ", sink->table_name);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const char *name = quote_identifier(sink->columns[i].name);

		if (!is_set(sink, i, NULL))
			continue;
		appendStringInfo(sql, "%s%s = CASE WHEN ", separator, name);
		spine_rows_append_missing(sql, i);
		if (version)
			appendStringInfo(sql, " OR u.givers[%d] %s t.%s", i + 1,
							 spine_compare_operator(version, BTLessStrategyNumber), version_name);
		appendStringInfo(sql, " THEN t.%s ELSE u.c%d END", name, i);
		separator = ", ";
	}
	appendStringInfoString(sql, " FROM " SPINE_ROWS " AS u WHERE ");
	spine_sink_append_same_key(sql, sink);
	if (version)
		appendStringInfo(sql, " AND (t.%s IS NULL OR u.c%d %s t.%s)", version_name, sink->version,
						 spine_compare_operator(version, BTGreaterEqualStrategyNumber), version_name);
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

const SpineSinkKind spine_sink_upsert = {
	.mode = "upsert",
	.updates_rows = true,
	.describe = describe,
	.write_statement = write_statement,
	.reduce = spine_newest_find
};

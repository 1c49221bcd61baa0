/*
 * sink.c
 *		Makes sinks: the table of their kinds, and what the kinds share.
 *
 * A sink runs one statement per batch,
 *
 *		INSERT INTO target AS t (a, b, ...) SELECT u.c0, u.c1, ... FROM spine_rows AS u
 *
 * and its kind says what comes behind that.  No column of spine_rows has a name of the
 * user's, and names of the table are qualified where another could be meant.
 */
#include "apply/sink.h"

#include "access/xact.h"
#include "apply/role.h"
#include "apply/rows.h"
#include "apply/table.h"
#include "catalog/own_tables.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"

static const SpineSinkKind *const kinds[] = {&spine_sink_append, &spine_sink_upsert};

static const SpineSinkKind *
find_kind(const char *mode)
{
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (strcmp(kinds[i]->mode, mode) == 0)
			return kinds[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("spine knows no sinks of mode \"%s\"", mode)));
}

int
spine_sink_find_column(const SpineSink *sink, const char *name)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (strcmp(sink->columns[i].name, name) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" is a key or version of table %s but is not written", name, sink->table_name),
			 errhint("Name it in \"columns\" in spine_sinks.")));
}

static void
make_columns(SpineSink *sink, const SpineTable *table, const SpineSinkDefinition *definition,
			 SpineFieldList *fields, size_t max_record_memory)
{
	sink->columns = palloc0(Max(definition->nmappings, table->ncolumns) * sizeof(SpineColumn));

	for (int i = 0; i < definition->nmappings; i++)
	{
		const SpineMapping *mapping = &definition->mappings[i];

		spine_column_make(&sink->columns[sink->ncolumns++], spine_table_find_column(table, mapping->column),
						  mapping->place, fields, max_record_memory);
	}
	for (int i = 0; i < table->ncolumns && definition->nmappings == 0; i++)
	{
		const SpineTableColumn *column = &table->columns[i];

		if (!column->is_generated)
			spine_column_make(&sink->columns[sink->ncolumns++], column, column->name,
							  fields, max_record_memory);
	}
}

/* What the sink computes with SQL: columns and the filter. */
static void
make_projection(SpineSink *sink, const SpineTable *table, const SpineSinkDefinition *definition,
				SpineFieldList *fields, size_t max_record_memory)
{
	SpineProjection *projection = spine_projection_make(fields, max_record_memory);
	SpineRole	saved;

	/* names are looked up, and constants computed, with that role's rights */
	spine_role_assume(&saved, sink->run_as);
	if (definition->filter)
		spine_projection_add(projection, definition->filter, NULL);
	for (int i = 0; i < definition->nmappings; i++)
	{
		const SpineMapping *mapping = &definition->mappings[i];

		if (mapping->sql)
			sink->columns[i].expression =
				spine_projection_add(projection, mapping->sql, spine_table_find_column(table, mapping->column));
	}
	if (definition->filter || spine_projection_count(projection) > 0)
	{
		spine_projection_plan(projection);
		sink->projection = projection;
	}
	spine_role_resume(&saved);
}

/* A column that every row needs, and that no record can give. */
static void
check_unwritten_columns(const SpineSink *sink, const SpineTable *table)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		const SpineTableColumn *column = &table->columns[i];
		bool		is_written = false;

		for (int j = 0; j < sink->ncolumns && !is_written; j++)
			is_written = strcmp(sink->columns[j].name, column->name) == 0;
		if (!is_written && !column->is_generated && !column->takes_null && column->default_expr == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_DEFINITION),
					 errmsg("column \"%s\" of table %s must not be null, but has no default and is not written",
							column->name, table->name),
					 errhint("Give it a default, or name it in \"columns\" in spine_sinks.")));
	}
}

static void
find_keys(SpineSink *sink, const SpineSinkDefinition *definition)
{
	sink->nkeys = definition->nkeys;
	sink->keys = palloc0(Max(sink->nkeys, 1) * sizeof(int));
	for (int i = 0; i < sink->nkeys; i++)
		sink->keys[i] = spine_sink_find_column(sink, definition->keys[i]);
	sink->version = -1;
}

void
spine_sink_make(SpineSink *sink, const SpinePipeline *pipeline,
				const SpineSinkDefinition *definition, SpineFieldList *fields,
				size_t max_record_memory)
{
	const SpineTable *table;

	Assert(IsTransactionState());

	/* waits for a concurrent ALTER to end, and lets no other begin */
	LockRelationOid(definition->target, AccessShareLock);

	table = spine_table_look_up(definition->target);
	sink->kind = find_kind(definition->mode);
	sink->table = definition->target;
	sink->table_name = table->name;
	sink->owner = pipeline->owner;

	/*
	 * Where the pipeline's owner may act for the table's owner (a superuser always may),
	 * run as the table's owner: then the code that is attached to the table gets no more
	 * rights than the role that attached it.
	 */
	sink->run_as = has_privs_of_role(pipeline->owner, table->owner) ?
		table->owner : pipeline->owner;

	make_columns(sink, table, definition, fields, max_record_memory);
	make_projection(sink, table, definition, fields, max_record_memory);
	check_unwritten_columns(sink, table);
	find_keys(sink, definition);
	if (sink->kind->describe)
		sink->kind->describe(sink, definition);
	spine_rows_describe(sink);
	for (int i = 0; i < SPINE_SINK_STATEMENTS; i++)
	{
		StringInfoData sql;

		initStringInfo(&sql);
		sink->kind->write_statement(&sql, sink, i);
		sink->sql[i] = sql.data;
	}
}

void
spine_sink_release(SpineSink *sink)
{
	for (int i = 0; i < SPINE_SINK_STATEMENTS; i++)
		spine_statement_free(&sink->statements[i]);
}

bool
spine_sink_is_current(const SpineSink *sink)
{
	/* renaming a schema invalidates none of its tables */
	return strcmp(spine_table_name(sink->table), sink->table_name) == 0 &&
		has_privs_of_role(sink->owner, sink->run_as);
}

void
spine_sink_append_keys(StringInfo sql, const SpineSink *sink)
{
	for (int i = 0; i < sink->nkeys; i++)
		appendStringInfo(sql, "%s%s", i ? ", " : "",
						 quote_identifier(sink->columns[sink->keys[i]].name));
}

/* SELECT DISTINCT ON the key: of the rows of one key, the newest. */
static void
append_newest_rows(StringInfo sql, const SpineSink *sink)
{
	appendStringInfoString(sql, "SELECT DISTINCT ON (");
	for (int i = 0; i < sink->nkeys; i++)
		appendStringInfo(sql, "%sr.c%d", i ? ", " : "", sink->keys[i]);
	appendStringInfoString(sql, ") ");
	for (int i = 0; i < sink->ncolumns; i++)
		appendStringInfo(sql, "%sr.c%d", i ? ", " : "", i);
	appendStringInfoString(sql, " FROM (");
	spine_rows_append_select(sql, sink);
	appendStringInfoString(sql, ") AS r ORDER BY ");
	for (int i = 0; i < sink->nkeys; i++)
		appendStringInfo(sql, "r.c%d, ", sink->keys[i]);
	appendStringInfo(sql, "r.c%d DESC, r.ordinal DESC", sink->version);
}

void
spine_sink_append_insert(StringInfo sql, const SpineSink *sink)
{
	appendStringInfo(sql, "INSERT INTO %s AS t (", sink->table_name);
	for (int i = 0; i < sink->ncolumns; i++)
		appendStringInfo(sql, "%s%s", i ? ", " : "", quote_identifier(sink->columns[i].name));
	appendStringInfoString(sql, ") ");

	if (sink->reduce_in_sql)
		append_newest_rows(sql, sink);
	else
		spine_rows_append_select(sql, sink);
}

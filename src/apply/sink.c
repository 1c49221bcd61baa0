/*
 * sink.c
 *		Makes sinks: the table of their kinds, and what the kinds share.
 *
 * A sink runs one statement per batch (and more if rows are partial: sink_upsert.c),
 *
 *		INSERT INTO target AS t (a, b, ...) SELECT u.c0, u.c1, ... FROM spine_rows AS u
 *
 * and its kind says what comes behind that.  No column of spine_rows has a name of the
 * user's, and names of the table are qualified where another could be meant.
 */
#include "apply/sink.h"

#include "access/xact.h"
#include "apply/compare.h"
#include "apply/conflict.h"
#include "apply/role.h"
#include "apply/rows.h"
#include "apply/table.h"
#include "apply/view.h"
#include "catalog/mapping.h"
#include "catalog/own_tables.h"
#include "catalog/pg_type.h"
#include "catalog/place.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

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

/* The column that "*" stands for: the only one that can hold JSON and is not mapped. */
static const SpineTableColumn *
find_any_column(const SpineTable *table, const SpineSinkDefinition *definition)
{
	const SpineTableColumn *found = NULL;
	StringInfoData names;
	int			nfound = 0;

	initStringInfo(&names);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const SpineTableColumn *column = &table->columns[i];
		Oid			type = getBaseType(column->type);
		bool		is_mapped = column->is_generated || (type != JSONOID && type != JSONBOID);

		for (int j = 0; j < definition->nmappings && !is_mapped; j++)
			is_mapped = strcmp(definition->mappings[j].column, column->name) == 0;
		if (is_mapped)
			continue;
		appendStringInfo(&names, "%s\"%s\"", nfound++ ? ", " : "", column->name);
		found = column;
	}
	if (nfound != 1)
		ereport(ERROR,
				(errcode(nfound ? ERRCODE_AMBIGUOUS_COLUMN : ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table %s has %s column of type json or jsonb that no other mapping names, for \"*\"",
						table->name, nfound ? "more than one" : "no"),
				 nfound ? errdetail("These are %s.", names.data) : 0,
				 errhint("Name the column instead of \"*\" in \"columns\" in spine_sinks.")));
	return found;
}

static void
make_columns(SpineSink *sink, const SpineTable *table, const SpineSinkDefinition *definition,
			 SpineFieldList *fields, size_t max_record_memory)
{
	sink->columns = palloc0(Max(definition->nmappings, table->ncolumns) * sizeof(SpineColumn));

	for (int i = 0; i < definition->nmappings; i++)
	{
		const SpineMapping *mapping = &definition->mappings[i];
		const SpineTableColumn *column = strcmp(mapping->column, SPINE_ANY_COLUMN) == 0 ?
			find_any_column(table, definition) : spine_table_find_column(table, mapping->column);

		spine_column_make(&sink->columns[sink->ncolumns++], column, mapping, fields, max_record_memory);
	}
	for (int i = 0; i < table->ncolumns && definition->nmappings == 0; i++)
	{
		const SpineTableColumn *column = &table->columns[i];
		const SpineMapping mapping = {.column = column->name, .place = spine_place_of_key(column->name)};

		if (!column->is_generated)
			spine_column_make(&sink->columns[sink->ncolumns++], column, &mapping, fields,
							  max_record_memory);
	}
	spine_columns_ask(sink->columns, sink->ncolumns, sink->table_name, fields);
}

/* What the sink computes with SQL: columns and the filter. */
static void
make_projection(SpineSink *sink, const SpineTable *table, const SpineSinkDefinition *definition,
				SpineFieldList *fields, size_t max_record_memory)
{
	SpineProjection *projection = spine_projection_make(fields, max_record_memory);

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
	char	  **keys = definition->keys;

	sink->nkeys = definition->nkeys;
	if (sink->nkeys == 0 && sink->kind->updates_rows)
		keys = spine_conflict_primary_key(sink->relations, sink->table_name, &sink->nkeys);

	sink->keys = palloc0(Max(sink->nkeys, 1) * sizeof(int));
	for (int i = 0; i < sink->nkeys; i++)
		sink->keys[i] = spine_sink_find_column(sink, keys[i]);
	if (definition->nkeys > 0)
		spine_conflict_check_key(sink->relations, sink->table_name, keys, sink->nkeys);
	sink->version = -1;
}

void
spine_sink_make(SpineSink *sink, const SpinePipeline *pipeline,
				const SpineSinkDefinition *definition, SpineFieldList *fields,
				size_t max_record_memory)
{
	const SpineTable *table;
	SpineRole	saved;

	Assert(IsTransactionState());

	/* waits for a concurrent ALTER to end, and lets no other begin */
	sink->relations = spine_view_relations(definition->target, AccessShareLock);

	table = spine_table_look_up(definition->target);
	sink->context = CurrentMemoryContext;
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

	/* checks of domains run, for one, and the names in expressions are looked up */
	spine_role_assume(&saved, sink->run_as);
	make_columns(sink, table, definition, fields, max_record_memory);
	make_projection(sink, table, definition, fields, max_record_memory);
	spine_role_resume(&saved);
	check_unwritten_columns(sink, table);
	find_keys(sink, definition);
	if (sink->kind->describe)
		sink->kind->describe(sink, definition);
	spine_rows_describe(sink);
	for (int i = 0; i < SPINE_SINK_STATEMENTS; i++)
	{
		StringInfoData sql;

		initStringInfo(&sql);
		sink->kind->write_statement(&sql, sink, i, NULL);
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

bool
spine_sink_is_key(const SpineSink *sink, int column)
{
	for (int i = 0; i < sink->nkeys; i++)
	{
		if (sink->keys[i] == column)
			return true;
	}
	return false;
}

bool
spine_sink_sets(const SpineSink *sink, int column, const bool *left_out)
{
	return !spine_sink_is_key(sink, column) && !sink->columns[column].is_identity &&
		!(left_out && left_out[column]);
}

/* A column GENERATED ALWAYS AS IDENTITY takes the record's value, as in COPY. */
static bool
has_identity(const SpineSink *sink)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (sink->columns[i].is_identity)
			return true;
	}
	return false;
}

void
spine_sink_append_insert(StringInfo sql, const SpineSink *sink, const bool *left_out)
{
	const char *separator = "";

	appendStringInfo(sql, "INSERT INTO %s AS t (", sink->table_name);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (left_out && left_out[i])
			continue;
		appendStringInfo(sql, "%s%s", separator, quote_identifier(sink->columns[i].name));
		separator = ", ";
	}
	appendStringInfo(sql, ") %sSELECT ", has_identity(sink) ? "OVERRIDING SYSTEM VALUE " : "");
	separator = "";
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (left_out && left_out[i])
			continue;
		appendStringInfoString(sql, separator);
		spine_rows_append_value(sql, sink, i);
		separator = ", ";
	}
	appendStringInfoString(sql, " FROM " SPINE_ROWS " AS u");
}

void
spine_sink_append_same_key(StringInfo sql, const SpineSink *sink)
{
	for (int i = 0; i < sink->nkeys; i++)
	{
		const SpineColumn *key = &sink->columns[sink->keys[i]];

		appendStringInfo(sql, "%st.%s %s u.c%d", i ? " AND " : "", quote_identifier(key->name),
						 spine_compare_operator(key, BTEqualStrategyNumber), sink->keys[i]);
	}
}

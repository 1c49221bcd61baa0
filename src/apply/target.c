/*
 * target.c
 *		Looks a sink's target table up and writes the SQL that applies to it.
 *
 * One statement per batch:
 *
 *		INSERT INTO target (a, b, ...) SELECT u.c0, u.c1, ... FROM spine_rows AS u
 *
 * In upsert mode with ON CONFLICT (key) DO UPDATE ... WHERE the new version is
 * not older.  spine_rows is a tuplestore that the statement finds by name, as a
 * trigger finds its transition table.  It has c<i>, the value for column i; m<i> if
 * that has a default, which says whether the record lacks it; and `ordinal`, if the
 * statement is to reduce the rows.  Where that were more columns than a row can have,
 * it has `missing` instead of all m<i>: a byte for each column with a default.
 *
 * No name of the user's is ever a name of these rows, whatever it is, and those of
 * the table are qualified where another could be meant.
 */
#include "apply/target.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"

/* What the relation cache's invalidations are compared with. */
static const SpinePlan *watched_plan = NULL;
static bool watched_plan_is_stale = false;

/* A column of the target as the system catalog has it. */
typedef struct TableColumn
{
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
	bool		is_generated;
	char	   *default_expr;	/* or NULL */
	bool		takes_null;		/* or a trigger may see to it */
} TableColumn;

typedef struct Table
{
	char	   *name;			/* qualified and quoted */
	Oid			owner;
	int			ncolumns;
	TableColumn *columns;
} Table;

static void
note_invalidation(Datum arg, Oid relid)
{
	if (watched_plan == NULL)
		return;
	for (int i = 0; i < watched_plan->ntargets; i++)
	{
		if (relid == InvalidOid || watched_plan->targets[i].sink->target == relid)
			watched_plan_is_stale = true;
	}
}

bool
spine_plan_is_stale(const SpinePlan *plan)
{
	return plan == watched_plan && watched_plan_is_stale;
}

/* The name that a table has now, quoted; NULL: there is none. */
static char *
current_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name) : NULL;
}

bool
spine_plan_is_current(const SpinePlan *plan)
{
	for (int i = 0; i < plan->ntargets; i++)
	{
		const SpineTarget *target = &plan->targets[i];
		const char *name = current_name(target->sink->target);

		/* renaming a schema invalidates none of its tables */
		if (name == NULL || strcmp(name, target->table_name) != 0 ||
			!has_privs_of_role(target->owner, target->run_as))
			return false;
	}
	return !spine_plan_is_stale(plan);
}

/* Reads the table's columns; errors when it is not there, or not a table. */
static Table *
look_up_table(const SpineSink *sink)
{
	Oid			types[1] = {OIDOID};
	Datum		args[1] = {ObjectIdGetDatum(sink->target)};
	Table	   *table = palloc0(sizeof(Table));
	bool		isnull;

	/*
	 * An identity column that may be written has its sequence as default.  No default
	 * names a column; were pg_get_expr told the table, it would look at all pairs of
	 * its columns each time.
	 */
	SPI_execute_with_args("SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),"
						  " c.relowner, a.attname::pg_catalog.text, a.atttypid, a.atttypmod, a.attcollation,"
						  " a.attgenerated <> '' OR a.attidentity = 'a',"
						  " CASE WHEN a.attidentity = 'd' THEN"
						  "  pg_catalog.format('pg_catalog.nextval(%L)', pg_catalog.pg_get_serial_sequence("
						  "   c.oid::pg_catalog.regclass::pg_catalog.text, a.attname))"
						  " WHEN a.attgenerated = '' THEN"
						  "  coalesce(pg_catalog.pg_get_expr(d.adbin, 0),"
						  "           pg_catalog.pg_get_expr(t.typdefaultbin, 0),"
						  "           pg_catalog.quote_literal(t.typdefault)) END,"
						  " NOT a.attnotnull OR EXISTS (SELECT FROM pg_catalog.pg_trigger b"
						  "  WHERE (b.tgrelid = c.oid OR b.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)))"
						  "   AND b.tgtype & 7 = 7 AND b.tgenabled <> 'D')"	/* BEFORE INSERT ... FOR EACH ROW */
						  " FROM pg_catalog.pg_class c"
						  " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
						  " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
						  " JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
						  " LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum"
						  " WHERE c.oid = $1 AND c.relkind IN ('r', 'p')"
						  " ORDER BY a.attnum",
						  1, types, args, NULL, false, 0);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("target with OID %u of a sink does not exist, or is not a table", sink->target),
				 errhint("Create the table again and set \"target\" in spine_sinks, or delete the sink.")));

	table->ncolumns = SPI_processed;
	table->columns = palloc0(SPI_processed * sizeof(TableColumn));
	for (int i = 0; i < table->ncolumns; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		TableColumn *column = &table->columns[i];

		table->name = SPI_getvalue(tuple, desc, 1);
		table->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		column->name = SPI_getvalue(tuple, desc, 3);
		column->type = DatumGetObjectId(SPI_getbinval(tuple, desc, 4, &isnull));
		column->typmod = DatumGetInt32(SPI_getbinval(tuple, desc, 5, &isnull));
		column->collation = DatumGetObjectId(SPI_getbinval(tuple, desc, 6, &isnull));
		column->is_generated = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
		column->default_expr = SPI_getvalue(tuple, desc, 8);
		column->takes_null = DatumGetBool(SPI_getbinval(tuple, desc, 9, &isnull));
	}
	return table;
}

static const TableColumn *
find_table_column(const Table *table, const char *name)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (strcmp(table->columns[i].name, name) == 0)
			return &table->columns[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table %s does not exist", name, table->name),
			 errhint("Add the column, or take it out of \"columns\" in spine_sinks.")));
}

static int
find_target_column(const SpineTarget *target, const char *table_name, const char *name)
{
	for (int i = 0; i < target->ncolumns; i++)
	{
		if (strcmp(target->columns[i].name, name) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" is a key or version of table %s but is not written", name, table_name),
			 errhint("Name it in \"columns\" in spine_sinks.")));
}

/* The index of a field in the decode plan, added when it is new. */
static int
plan_field(SpinePlan *plan, const char *name, SpineBinding binding)
{
	char	   *utf8 = pg_server_to_any(name, strlen(name), PG_UTF8);
	bool		as_json = spine_binding_wants_json(binding);
	bool		for_jsonb = binding == SPINE_BIND_JSONB;

	for (int i = 0; i < plan->nfields; i++)
	{
		if (strcmp(plan->fields[i].name, utf8) == 0 && plan->fields[i].as_json == as_json)
		{
			plan->fields[i].for_jsonb |= for_jsonb;
			return i;
		}
	}
	plan->fields = repalloc(plan->fields, (plan->nfields + 1) * sizeof(SpineFieldSpec));
	plan->fields[plan->nfields].name = pstrdup(utf8);
	plan->fields[plan->nfields].as_json = as_json;
	plan->fields[plan->nfields].for_jsonb = for_jsonb;
	return plan->nfields++;
}

static SpineSource
parse_source(const char *source)
{
	if (strcmp(source, "$partition") == 0)
		return SPINE_FROM_PARTITION;
	if (strcmp(source, "$offset") == 0)
		return SPINE_FROM_OFFSET;
	if (strcmp(source, "$timestamp") == 0)
		return SPINE_FROM_TIMESTAMP;
	if (strcmp(source, "$key") == 0)
		return SPINE_FROM_KEY;
	return SPINE_FROM_FIELD;
}

/*
 * Does a column of this type round what it is given?  (Types that rather refuse
 * what is too long, but cut it when asked to cast, are not meant.)
 */
static bool
rounds(Oid base_type, int32 typmod)
{
	switch (base_type)
	{
		case NUMERICOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
			return typmod >= 0;
		default:
			return false;
	}
}

/* Are two values of the type equal exactly when their bytes are? */
static bool
equal_if_same_bytes(Oid base_type, Oid collation)
{
	switch (base_type)
	{
		case TEXTOID:
		case VARCHAROID:
			return get_collation_isdeterministic(collation);
		case INT8OID:
		case INT4OID:
		case UUIDOID:
		case TIMESTAMPTZOID:
		case BOOLOID:
			return true;
		default:
			return false;		/* -0, 1.0 and 1.00 */
	}
}

static void
make_column(SpinePlan *plan, SpineColumn *column, const TableColumn *from, const char *source)
{
	int32		typmod = from->typmod;
	Oid			base_type = getBaseTypeAndTypmod(from->type, &typmod);

	column->name = pstrdup(from->name);
	column->source = parse_source(source);
	column->binding = spine_choose_binding(base_type, typmod);
	column->input = spine_make_input(from->type, base_type, plan->context);
	if (column->source == SPINE_FROM_FIELD)
		column->field = plan_field(plan, source, column->binding);

	/* as the table will hold it, so that keys and versions compare alike */
	column->element_type = base_type;
	column->element_typmod = typmod;
	get_typlenbyval(base_type, &column->element_len, &column->element_byval);

	/*
	 * The catalog shows a default without the cast to its column.  That one is an
	 * assignment's, which refuses what is too long; this one must not cut it first.
	 */
	if (from->default_expr)
		column->default_expr = psprintf("(%s)::%s", from->default_expr,
										format_type_extended(base_type, rounds(base_type, typmod) ? typmod : -1,
															 FORMAT_TYPE_FORCE_QUALIFY | FORMAT_TYPE_TYPEMOD_GIVEN));
	if (OidIsValid(from->collation) && from->collation != DEFAULT_COLLATION_OID)
		column->collation = generate_collation_name(from->collation);
	column->equal_if_same_bytes = equal_if_same_bytes(base_type, from->collation);
}

static void
make_columns(SpinePlan *plan, SpineTarget *target, const Table *table)
{
	const SpineSink *sink = target->sink;

	target->columns = palloc0(Max(sink->ncolumns, table->ncolumns) * sizeof(SpineColumn));

	if (sink->ncolumns > 0)
	{
		for (int i = 0; i < sink->ncolumns; i++)
			make_column(plan, &target->columns[target->ncolumns++],
						find_table_column(table, sink->columns[i].column),
						sink->columns[i].source);
		return;
	}
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (!table->columns[i].is_generated)
			make_column(plan, &target->columns[target->ncolumns++],
						&table->columns[i], table->columns[i].name);
	}
}

/* A column that no row can do without, and no record can give. */
static void
check_unwritten_columns(const SpineTarget *target, const Table *table)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		const TableColumn *column = &table->columns[i];
		bool		is_written = false;

		for (int j = 0; j < target->ncolumns && !is_written; j++)
			is_written = strcmp(target->columns[j].name, column->name) == 0;
		if (!is_written && !column->is_generated && !column->takes_null && column->default_expr == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_DEFINITION),
					 errmsg("column \"%s\" of table %s must not be null, but has no default and is not written",
							column->name, table->name),
					 errhint("Give it a default, or name it in \"columns\" in spine_sinks.")));
	}
}

/* The names of the key's columns, as the table has them. */
static void
append_keys(StringInfo sql, const SpineTarget *target)
{
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(sql, "%s%s", i ? ", " : "",
						 quote_identifier(target->columns[target->keys[i]].name));
}

/* The columns of spine_rows. */
static void
describe_rows(SpineTarget *target)
{
	AttrNumber	n = 0;
	char		name[NAMEDATALEN];
	int			natts = target->ncolumns + target->reduce_in_sql;

	for (int i = 0; i < target->ncolumns; i++)
		target->ndefaults += target->columns[i].default_expr != NULL;
	target->packs_missing = natts + target->ndefaults > MaxTupleAttributeNumber;
	natts += target->packs_missing ? 1 : target->ndefaults;
	target->rows = CreateTemplateTupleDesc(natts);
	for (int i = 0; i < target->ncolumns; i++)
	{
		snprintf(name, sizeof(name), "c%d", i);
		TupleDescInitEntry(target->rows, ++n, name, target->columns[i].element_type,
						   target->columns[i].element_typmod, 0);
	}
	for (int i = 0; i < target->ncolumns; i++)
	{
		if (target->columns[i].default_expr == NULL || target->packs_missing)
			continue;
		snprintf(name, sizeof(name), "m%d", i);
		TupleDescInitEntry(target->rows, ++n, name, BOOLOID, -1, 0);
	}
	if (target->packs_missing)
		TupleDescInitEntry(target->rows, ++n, "missing", BYTEAOID, -1, 0);
	if (target->reduce_in_sql)
		TupleDescInitEntry(target->rows, ++n, "ordinal", INT8OID, -1, 0);
}

/* SELECT the rows, with defaults for what they lack. */
static void
append_rows(StringInfo sql, const SpineTarget *target)
{
	int			ndefaults = 0;

	appendStringInfoString(sql, "SELECT ");
	for (int i = 0; i < target->ncolumns; i++)
	{
		const SpineColumn *column = &target->columns[i];

		appendStringInfoString(sql, i ? ", " : "");
		if (column->default_expr && target->packs_missing)
			appendStringInfo(sql, "CASE WHEN pg_catalog.get_byte(u.missing, %d) = 1 THEN %s ELSE ",
							 ndefaults++, column->default_expr);
		else if (column->default_expr)
			appendStringInfo(sql, "CASE WHEN u.m%d THEN %s ELSE ", i, column->default_expr);
		appendStringInfo(sql, "u.c%d", i);
		if (column->default_expr)
			appendStringInfoString(sql, " END");
		if (column->collation)
			appendStringInfo(sql, " COLLATE %s", column->collation);
		appendStringInfo(sql, " AS c%d", i);
	}
	if (target->reduce_in_sql)
		appendStringInfoString(sql, ", u.ordinal");

	appendStringInfoString(sql, " FROM " SPINE_ROWS " AS u");
}

/* INSERT INTO table AS t (columns) SELECT ...; one row per key where asked. */
static void
append_insert(StringInfo sql, const SpineTarget *target, const char *table)
{
	appendStringInfo(sql, "INSERT INTO %s AS t (", table);
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(sql, "%s%s", i ? ", " : "", quote_identifier(target->columns[i].name));
	appendStringInfoString(sql, ") ");

	if (!target->reduce_in_sql)
	{
		append_rows(sql, target);
		return;
	}

	appendStringInfoString(sql, "SELECT DISTINCT ON (");
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(sql, "%sr.c%d", i ? ", " : "", target->keys[i]);
	appendStringInfoString(sql, ") ");
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(sql, "%sr.c%d", i ? ", " : "", i);
	appendStringInfoString(sql, " FROM (");
	append_rows(sql, target);
	appendStringInfoString(sql, ") AS r ORDER BY ");
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(sql, "r.c%d, ", target->keys[i]);
	appendStringInfo(sql, "r.c%d DESC, r.ordinal DESC", target->version);
}

static void
write_append_sql(SpineTarget *target, const char *table)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_insert(&sql, target, table);
	target->insert = pstrdup(sql.data);

	/* without a key nothing says which rows are the same: none is skipped */
	if (target->nkeys == 0)
		return;
	appendStringInfoString(&sql, " ON CONFLICT (");
	append_keys(&sql, target);
	appendStringInfoString(&sql, ") DO NOTHING");
	target->merge = sql.data;
}

static void
write_upsert_sql(SpineTarget *target, const char *table)
{
	const char *version = quote_identifier(target->columns[target->version].name);
	const char *separator = "";
	StringInfoData sql;

	initStringInfo(&sql);
	append_insert(&sql, target, table);
	appendStringInfoString(&sql, " ON CONFLICT (");
	append_keys(&sql, target);
	appendStringInfoString(&sql, ") DO UPDATE SET ");
	for (int i = 0; i < target->ncolumns; i++)
	{
		const char *name = quote_identifier(target->columns[i].name);
		bool		is_key = false;

		for (int k = 0; k < target->nkeys; k++)
			is_key |= target->keys[k] == i;
		if (is_key)
			continue;
		appendStringInfo(&sql, "%s%s = EXCLUDED.%s", separator, name, name);
		separator = ", ";
	}

	/* an equal version comes from later in the log, and wins */
	appendStringInfo(&sql, " WHERE t.%s IS NULL OR EXCLUDED.%s >= t.%s",
					 version, version, version);
	target->merge = sql.data;
}

static void
find_keys(SpineTarget *target, const char *table_name)
{
	const SpineSink *sink = target->sink;

	target->nkeys = sink->nkeys;
	target->keys = palloc0(Max(sink->nkeys, 1) * sizeof(int));
	for (int i = 0; i < sink->nkeys; i++)
		target->keys[i] = find_target_column(target, table_name, sink->keys[i]);

	target->version = -1;
	if (sink->mode != SPINE_UPSERT)
		return;

	target->version = find_target_column(target, table_name, sink->version);
	for (int i = 0; i < target->nkeys; i++)
	{
		if (target->keys[i] == target->version)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("version column \"%s\" of table %s is part of the key",
							sink->version, table_name),
					 errhint("Change \"key\" or \"version\" in spine_sinks.")));
		if (!target->columns[target->keys[i]].equal_if_same_bytes)
			target->reduce_in_sql = true;
	}
	switch (target->columns[target->version].element_type)
	{
		case INT8OID:
		case INT4OID:
		case TIMESTAMPTZOID:
			break;
		default:
			target->reduce_in_sql = true;
	}
}

static void
make_target(SpinePlan *plan, SpineTarget *target, const SpinePipeline *pipeline,
			const SpineSink *sink)
{
	const Table *table;

	/* wait out a concurrent ALTER, and let none in until we are done */
	LockRelationOid(sink->target, AccessShareLock);

	table = look_up_table(sink);
	MemoryContextSwitchTo(plan->context);	/* SPI leaves its own behind */
	target->sink = sink;

	target->table_name = pstrdup(table->name);
	target->owner = pipeline->owner;

	/*
	 * Where the pipeline's owner may act for the table's owner (a superuser
	 * always may), run as that: then the code that is attached to the table
	 * gets no more rights than the one who attached it.
	 */
	target->run_as = has_privs_of_role(pipeline->owner, table->owner) ?
		table->owner : pipeline->owner;

	make_columns(plan, target, table);
	check_unwritten_columns(target, table);
	find_keys(target, table->name);
	describe_rows(target);
	if (sink->mode == SPINE_UPSERT)
		write_upsert_sql(target, table->name);
	else
		write_append_sql(target, table->name);
}

static void
free_decoder(void *arg)
{
	SpinePlan  *plan = arg;

	plan->format->free(plan->decoder);
}

/* The decoder is not palloc's; it goes with the plan's context. */
static void
make_decoder(SpinePlan *plan)
{
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

	plan->format = spine_format_find("json");
	callback->func = free_decoder;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(plan->context, callback);
	plan->decoder = plan->format->compile(plan->fields, plan->nfields);
	if (plan->decoder == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

SpinePlan *
spine_make_plan(const SpinePipeline *pipeline)
{
	static bool registered = false;
	MemoryContext context;
	MemoryContext old_context;
	SpinePlan  *plan;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(note_invalidation, (Datum) 0);
		registered = true;
	}
	if (pipeline->nsinks == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" has no sinks", NameStr(pipeline->name)),
				 errhint("Insert a target table for it into spine_sinks.")));

	/* below the caller's context until it is whole, so that an error frees it */
	context = AllocSetContextCreate(CurrentMemoryContext, "spine plan", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	plan = palloc0(sizeof(SpinePlan));
	plan->context = context;
	plan->fields = palloc(sizeof(SpineFieldSpec));
	plan->targets = palloc0(pipeline->nsinks * sizeof(SpineTarget));
	for (int i = 0; i < pipeline->nsinks; i++)
	{
		make_target(plan, &plan->targets[i], pipeline, &pipeline->sinks[i]);
		plan->ntargets++;
	}
	make_decoder(plan);
	MemoryContextSwitchTo(old_context);
	MemoryContextSetParent(context, TopMemoryContext);

	watched_plan = plan;
	watched_plan_is_stale = false;
	return plan;
}

void
spine_free_plan(SpinePlan *plan)
{
	if (plan == NULL)
		return;
	if (watched_plan == plan)
		watched_plan = NULL;
	for (int i = 0; i < plan->ntargets; i++)
	{
		if (plan->targets[i].insert_plan)
			SPI_freeplan(plan->targets[i].insert_plan);
		if (plan->targets[i].merge_plan)
			SPI_freeplan(plan->targets[i].merge_plan);
	}
	MemoryContextDelete(plan->context);
}

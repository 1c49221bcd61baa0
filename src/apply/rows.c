/*
 * rows.c
 *		Makes the rows that a sink's statement reads, and the SQL that reads them.
 */
#include "apply/rows.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "apply/bind.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * The records of a worker's batch take at most a quarter of this, so their rows stay in
 * memory.  But jsonb is up to six times as large as its text.  Rows beyond this go to a file,
 * which the end of the (sub)transaction removes.
 */
#define MAX_ROWS_KB		(64 * 1024)

/* How far before a row is stored the caches are asked for it: see prefetch_row. */
#define PREFETCH_ROWS	4

/* --------------------------------------------------------------------------
 * The type of the rows, and the SQL
 * -------------------------------------------------------------------------- */

static bool
has_defaults(const SpineSink *sink)
{
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (sink->columns[i].default_expr)
			return true;
	}
	return false;
}

static void
describe_column(SpineSink *sink, AttrNumber attribute, const char *prefix, int number,
				Oid type, int32 typmod, Oid collation)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "%s%d", prefix, number);
	TupleDescInitEntry(sink->row_type, attribute, name, type, typmod, 0);
	if (OidIsValid(collation))
		TupleDescInitEntryCollation(sink->row_type, attribute, collation);
}

/* A table of 1,600 columns leaves room for 64 more. */
void
spine_rows_describe(SpineSink *sink)
{
	int			n = 0;

	sink->nwords = sink->kind->updates_rows || has_defaults(sink) ?
		(sink->ncolumns + SPINE_ROWS_WORD_BITS - 1) / SPINE_ROWS_WORD_BITS : 0;
	sink->row_type = CreateTemplateTupleDesc(sink->ncolumns + sink->nwords + (sink->version >= 0));
	for (int i = 0; i < sink->ncolumns; i++)
		describe_column(sink, ++n, "c", i, sink->columns[i].base_type, sink->columns[i].typmod,
						sink->columns[i].collation);
	for (int i = 0; i < sink->nwords; i++)
		describe_column(sink, ++n, "m", i, INT8OID, -1, InvalidOid);
	if (sink->version >= 0)
	{
		const SpineColumn *version = &sink->columns[sink->version];

		TupleDescInitEntry(sink->row_type, ++n, "givers", get_array_type(version->base_type), -1, 0);
		TupleDescInitEntryCollation(sink->row_type, n, version->collation);
	}
}

void
spine_rows_append_missing(StringInfo sql, int column)
{
	appendStringInfo(sql, "(u.m%d & " INT64_FORMAT ") <> 0", column / SPINE_ROWS_WORD_BITS,
					 INT64CONST(1) << column % SPINE_ROWS_WORD_BITS);
}

void
spine_rows_append_value(StringInfo sql, const SpineSink *sink, int column)
{
	const char *default_expr = sink->columns[column].default_expr;

	if (default_expr == NULL)
	{
		appendStringInfo(sql, "u.c%d", column);
		return;
	}
	appendStringInfoString(sql, "CASE WHEN ");
	spine_rows_append_missing(sql, column);
	appendStringInfo(sql, " THEN %s ELSE u.c%d END", default_expr, column);
}

/* --------------------------------------------------------------------------
 * The rows
 * -------------------------------------------------------------------------- */

/* Names the column in errors of the input functions. */
static void
column_error_context(void *arg)
{
	const SpineRows *rows = arg;

	if (rows->current)
		err_generic_string(PG_DIAG_COLUMN_NAME, rows->current->name);
}

static inline Datum
computed_value(const SpineRows *rows, const SpineColumn *column, const SpineEvent *event,
			   bool *isnull, bool *missing)
{
	size_t		i = (event - rows->events) * rows->ncomputed + column->expression;

	*missing = false;
	*isnull = rows->computed_nulls[i];
	return rows->computed[i];
}

static inline Datum
bind_value(SpineRows *rows, const SpineColumn *column, const SpineEvent *event,
		   bool *isnull, bool *missing)
{
	Datum		value;

	rows->current = column;
	if (column->source == SPINE_FROM_EXPRESSION)
		value = computed_value(rows, column, event, isnull, missing);
	else
		value = spine_bind_value(column, event, isnull, missing);
	if (*isnull && column->needed_as && !(rows->may_find_later && column->source == SPINE_FROM_EXPRESSION))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("null value in %s column \"%s\"", column->needed_as, column->name)));
	return value;
}

/* Event by event, since together they are more than a cache holds. */
void
spine_rows_bind(const SpineSink *sink, SpineRows *rows, const int *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		Assert(sink->columns[columns[i]].needed_as);
		rows->bound[columns[i]] = palloc(rows->nevents * sizeof(Datum));
	}
	for (size_t event = 0; event < rows->nevents; event++)
	{
		for (int i = 0; i < ncolumns; i++)
		{
			bool		isnull;
			bool		missing;

			rows->bound[columns[i]][event] = bind_value(rows, &sink->columns[columns[i]],
														&rows->events[event], &isnull, &missing);
		}
	}
	rows->current = NULL;
}

/*
 * Asks the processor's caches for what storing a row will read: first the values that
 * are bound, and the fields of the others; when those are there, what they point to.
 * Inlined, since GCC thinks that a function that does nothing else has no effect, and
 * omits the calls.
 */
static pg_attribute_always_inline void
prefetch_row(const SpineSink *sink, const SpineRows *rows, size_t event, bool follow)
{
	for (int c = 0; c < sink->ncolumns; c++)
	{
		const SpineColumn *column = &sink->columns[c];

		if (rows->bound[c])
		{
			if (!follow)
				__builtin_prefetch(&rows->bound[c][event]);
			else if (!column->byval)
				__builtin_prefetch(DatumGetPointer(rows->bound[c][event]));
		}
		else if (column->source == SPINE_FROM_FIELD)
		{
			const SpineField *field = &rows->events[event].fields[column->field];

			__builtin_prefetch(follow ? (const void *) field->text : field);
		}
	}
}

/* By column, the version of the event that gave the value; NULL: it is the row's own. */
static Datum
make_givers(const SpineSink *sink, const SpineRows *rows, size_t event,
			const SpinePartialRow *partial)
{
	const SpineColumn *version = &sink->columns[sink->version];
	const Datum *versions = rows->bound[sink->version];
	Datum	   *givers = palloc(sink->ncolumns * sizeof(Datum));

	for (int c = 0; c < sink->ncolumns; c++)
		givers[c] = versions[event];
	for (int i = 0; i < partial->ngiven; i++)
		givers[partial->given[i].column] = versions[partial->given[i].event];
	return PointerGetDatum(construct_array(givers, sink->ncolumns, version->base_type,
										   version->len, version->byval, version->align));
}

/* Binds what is not yet bound of an event's row. */
static void
make_row(const SpineSink *sink, SpineRows *rows, size_t event, const SpinePartialRow *partial,
		 Datum *values, bool *nulls)
{
	Datum	   *words = values + sink->ncolumns;
	int			ngiven = 0;

	if (sink->nwords > 0)
		memset(words, 0, sink->nwords * sizeof(Datum));
	for (int c = 0; c < sink->ncolumns; c++)
	{
		const SpineColumn *column = &sink->columns[c];
		size_t		giver = event;
		bool		missing = false;

		if (partial && ngiven < partial->ngiven && partial->given[ngiven].column == (uint32) c)
			giver = partial->given[ngiven++].event;
		if (rows->bound[c])
			values[c] = rows->bound[c][giver];
		else
			values[c] = bind_value(rows, column, &rows->events[giver], &nulls[c], &missing);
		if (missing && sink->nwords > 0)
			spine_rows_set_missing(words, c);
	}
	if (sink->version >= 0)
	{
		bool		has_givers = partial && partial->ngiven > 0;

		nulls[sink->row_type->natts - 1] = !has_givers;
		if (has_givers)
			values[sink->row_type->natts - 1] = make_givers(sink, rows, event, partial);
	}
}

Tuplestorestate *
spine_rows_begin_store(void)
{
	return tuplestore_begin_heap(false, false, MAX_ROWS_KB);
}

/* Stores the rows that are kept. */
static SpineStoredRows
store_rows(const SpineSink *sink, SpineRows *rows)
{
	SpineStoredRows stored = {.left_out = rows->left_out, .whole = spine_rows_begin_store()};
	const uint32 *kept = rows->kept;
	Datum	   *values = palloc(sink->row_type->natts * sizeof(Datum));
	bool	   *nulls = palloc0(sink->row_type->natts * sizeof(bool));
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context;

	if (rows->partial)
		stored.partial = spine_rows_begin_store();
	old_context = MemoryContextSwitchTo(row_context);
	for (size_t row = 0; row < rows->nkept; row++)
	{
		const SpinePartialRow *partial = rows->partial ? rows->partial[row] : NULL;

		/* in the order of their keys they are scattered over the memory */
		if (kept && row + 2 * PREFETCH_ROWS < rows->nkept)
		{
			prefetch_row(sink, rows, kept[row + 2 * PREFETCH_ROWS], false);
			prefetch_row(sink, rows, kept[row + PREFETCH_ROWS], true);
		}
		make_row(sink, rows, kept ? kept[row] : row, partial, values, nulls);
		tuplestore_putvalues(partial ? stored.partial : stored.whole, sink->row_type, values, nulls);
		MemoryContextReset(row_context);
	}
	rows->current = NULL;
	MemoryContextSwitchTo(old_context);
	return stored;
}

/* Makes room for what SQL makes of n events. */
static void
make_computed(const SpineSink *sink, SpineRows *rows, size_t n)
{
	rows->ncomputed = spine_projection_count(sink->projection);
	rows->computed = MemoryContextAllocHuge(CurrentMemoryContext, (n * rows->ncomputed + 1) * sizeof(Datum));
	rows->computed_nulls = MemoryContextAllocHuge(CurrentMemoryContext, n * rows->ncomputed + 1);
}

/* Converts the values of one event, which are forgotten. */
static void
convert_event(const SpineSink *sink, SpineRows *rows, const SpineEvent *event)
{
	for (int c = 0; c < sink->ncolumns; c++)
	{
		bool		isnull;
		bool		missing;

		(void) bind_value(rows, &sink->columns[c], event, &isnull, &missing);
	}
	rows->current = NULL;
}

/*
 * Converts the events that are not kept.  Their rows are never stored, but what becomes of
 * a record does not depend on which others it shares a batch with.
 */
static void
convert_superseded(const SpineSink *sink, SpineRows *rows)
{
	bool	   *is_kept;
	MemoryContext row_context;
	MemoryContext old_context;

	if (rows->nkept == rows->nevents)
		return;
	is_kept = palloc0(rows->nevents * sizeof(bool));
	for (size_t row = 0; row < rows->nkept; row++)
		is_kept[rows->kept[row]] = true;

	row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(row_context);
	for (size_t i = 0; i < rows->nevents; i++)
	{
		if (is_kept[i])
			continue;
		convert_event(sink, rows, &rows->events[i]);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(row_context);
}

static void
compute(const SpineSink *sink, SpineRows *rows)
{
	SpineEvent *passed = MemoryContextAllocHuge(CurrentMemoryContext, Max(rows->nevents, 1) * sizeof(SpineEvent));
	SpineProjectionRun *run;
	bool		looking_up;
	size_t		n = 0;

	make_computed(sink, rows, rows->nevents);
	run = spine_projection_begin(sink->projection, &looking_up);
	for (size_t i = 0; i < rows->nevents; i++)
	{
		size_t		first = n * rows->ncomputed;

		if (spine_projection_compute(run, &rows->events[i], rows->computed + first, rows->computed_nulls + first))
			passed[n++] = rows->events[i];
	}
	spine_projection_end(run);
	rows->nfiltered = rows->nevents - n;
	rows->events = passed;
	rows->nevents = rows->nkept = n;
}

void
spine_rows_compute(const SpineSink *sink, SpineRows *rows)
{
	if (sink->projection)
		compute(sink, rows);
}

void
spine_rows_make_row(const SpineSink *sink, SpineRows *rows, size_t event,
					Datum *values, bool *nulls, bool *missing)
{
	ErrorContextCallback callback = {error_context_stack, column_error_context, rows};

	error_context_stack = &callback;
	for (int c = 0; c < sink->ncolumns; c++)
		values[c] = bind_value(rows, &sink->columns[c], &rows->events[event], &nulls[c], &missing[c]);
	rows->current = NULL;
	error_context_stack = callback.previous;
}

SpineStoredRows
spine_rows_make(const SpineSink *sink, const SpineEvent *events, size_t n)
{
	SpineRows	rows = {.events = events, .nevents = n, .nkept = n};
	ErrorContextCallback callback = {error_context_stack, column_error_context, &rows};
	SpineStoredRows stored;

	Assert(IsTransactionState());
	spine_rows_compute(sink, &rows);
	rows.bound = palloc0(sink->ncolumns * sizeof(Datum *));

	error_context_stack = &callback;
	if (sink->kind->reduce)
	{
		sink->kind->reduce(sink, &rows);
		convert_superseded(sink, &rows);
	}
	stored = store_rows(sink, &rows);
	stored.nfiltered = rows.nfiltered;
	error_context_stack = callback.previous;
	return stored;
}

void
spine_rows_convert(const SpineSink *sink, const SpineEvent *events, size_t n, size_t *at,
				   bool *looking_up)
{
	SpineRows	rows = {.may_find_later = spine_projection_looks_up(sink->projection)};
	ErrorContextCallback callback = {error_context_stack, column_error_context, &rows};
	SpineProjectionRun *run = NULL;
	MemoryContext row_context;
	MemoryContext old_context;

	Assert(IsTransactionState());
	*looking_up = false;
	if (sink->projection)
	{
		make_computed(sink, &rows, 1);
		run = spine_projection_begin(sink->projection, looking_up);
	}
	row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(row_context);
	error_context_stack = &callback;
	for (; *at < n; (*at)++)
	{
		rows.events = &events[*at];
		if (run == NULL || spine_projection_compute(run, rows.events, rows.computed, rows.computed_nulls))
			convert_event(sink, &rows, rows.events);
		MemoryContextReset(row_context);
	}
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(row_context);
	if (run)
		spine_projection_end(run);
}

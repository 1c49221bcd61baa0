/*
 * rows.c
 *		Makes the rows that a sink's statement reads, and the SQL that reads them.
 */
#include "apply/rows.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "apply/bind.h"
#include "catalog/pg_type.h"
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

/*
 * If c<i> and m<i> are more columns than a row can have, the rows have `missing` instead
 * of all m<i>: a byte for each column with a default.
 */
void
spine_rows_describe(SpineSink *sink)
{
	AttrNumber	n = 0;
	char		name[NAMEDATALEN];
	int			natts = sink->ncolumns + sink->reduce_in_sql;

	for (int i = 0; i < sink->ncolumns; i++)
		sink->ndefaults += sink->columns[i].default_expr != NULL;
	sink->packs_missing = natts + sink->ndefaults > MaxTupleAttributeNumber;
	natts += sink->packs_missing ? 1 : sink->ndefaults;

	sink->row_type = CreateTemplateTupleDesc(natts);
	for (int i = 0; i < sink->ncolumns; i++)
	{
		snprintf(name, sizeof(name), "c%d", i);
		TupleDescInitEntry(sink->row_type, ++n, name, sink->columns[i].base_type,
						   sink->columns[i].typmod, 0);
	}
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (sink->columns[i].default_expr == NULL || sink->packs_missing)
			continue;
		snprintf(name, sizeof(name), "m%d", i);
		TupleDescInitEntry(sink->row_type, ++n, name, BOOLOID, -1, 0);
	}
	if (sink->packs_missing)
		TupleDescInitEntry(sink->row_type, ++n, "missing", BYTEAOID, -1, 0);
	if (sink->reduce_in_sql)
		TupleDescInitEntry(sink->row_type, ++n, "ordinal", INT8OID, -1, 0);
}

void
spine_rows_append_select(StringInfo sql, const SpineSink *sink)
{
	int			ndefaults = 0;

	appendStringInfoString(sql, "SELECT ");
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const SpineColumn *column = &sink->columns[i];

		appendStringInfoString(sql, i ? ", " : "");
		if (column->default_expr && sink->packs_missing)
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
	if (sink->reduce_in_sql)
		appendStringInfoString(sql, ", u.ordinal");

	appendStringInfoString(sql, " FROM " SPINE_ROWS " AS u");
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
bind_value(SpineRows *rows, const SpineColumn *column, const SpineEvent *event,
		   bool *isnull, bool *missing)
{
	Datum		value;

	rows->current = column;
	value = spine_bind_value(column, event, isnull, missing);
	if (*isnull && column->needed_as)
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

/* Binds what is not yet bound of the rows that are kept, and stores them. */
static Tuplestorestate *
store_rows(const SpineSink *sink, SpineRows *rows)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, MAX_ROWS_KB);
	const uint32 *kept = rows->kept;
	Datum	   *values = palloc(sink->row_type->natts * sizeof(Datum));
	bool	   *nulls = palloc0(sink->row_type->natts * sizeof(bool));
	bytea	   *lacks = palloc0(VARHDRSZ + sink->ndefaults);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(row_context);

	SET_VARSIZE(lacks, VARHDRSZ + sink->ndefaults);
	for (size_t row = 0; row < rows->nkept; row++)
	{
		size_t		i = kept ? kept[row] : row;
		int			attribute = sink->ncolumns;
		int			ndefaults = 0;

		/* in the order of their keys they are scattered over the memory */
		if (kept && row + 2 * PREFETCH_ROWS < rows->nkept)
		{
			prefetch_row(sink, rows, kept[row + 2 * PREFETCH_ROWS], false);
			prefetch_row(sink, rows, kept[row + PREFETCH_ROWS], true);
		}

		for (int c = 0; c < sink->ncolumns; c++)
		{
			const SpineColumn *column = &sink->columns[c];
			bool		missing = false;

			if (rows->bound[c])
				values[c] = rows->bound[c][i];
			else
				values[c] = bind_value(rows, column, &rows->events[i], &nulls[c], &missing);
			if (column->default_expr && sink->packs_missing)
				VARDATA(lacks)[ndefaults++] = missing;
			else if (column->default_expr)
				values[attribute++] = BoolGetDatum(missing);
		}
		if (sink->packs_missing)
			values[attribute++] = PointerGetDatum(lacks);
		if (sink->reduce_in_sql)
			values[attribute] = Int64GetDatum((int64) row);
		tuplestore_putvalues(store, sink->row_type, values, nulls);
		MemoryContextReset(row_context);
	}
	rows->current = NULL;
	MemoryContextSwitchTo(old_context);
	return store;
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

Tuplestorestate *
spine_rows_make(const SpineSink *sink, const SpineEvent *events, size_t n)
{
	SpineRows	rows = {.events = events, .nevents = n, .nkept = n};
	ErrorContextCallback callback = {error_context_stack, column_error_context, &rows};
	Tuplestorestate *store;

	Assert(IsTransactionState());
	rows.bound = palloc0(sink->ncolumns * sizeof(Datum *));

	error_context_stack = &callback;
	if (sink->kind->reduce && !sink->reduce_in_sql)
	{
		sink->kind->reduce(sink, &rows);
		convert_superseded(sink, &rows);
	}
	store = store_rows(sink, &rows);
	error_context_stack = callback.previous;
	return store;
}

void
spine_rows_convert(const SpineSink *sink, const SpineEvent *events, size_t n, size_t *at)
{
	SpineRows	rows = {.events = events, .nevents = n};
	ErrorContextCallback callback = {error_context_stack, column_error_context, &rows};
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(row_context);

	Assert(IsTransactionState());
	error_context_stack = &callback;
	for (; *at < n; (*at)++)
	{
		convert_event(sink, &rows, &events[*at]);
		MemoryContextReset(row_context);
	}
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(row_context);
}

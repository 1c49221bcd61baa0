/*
 * apply.c
 *		Binds a batch's events to the rows that a sink's statement reads,
 *		reduced to one per key where the sink asks for it, and runs the
 *		statement as the role that the target runs as.
 */
#include "apply/apply.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "event/reduce.h"
#include "storage/lmgr.h"
#include "apply/trust.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/*
 * A batch is bounded, see MAX_BATCH_BYTES, and its rows stay in memory; but jsonb is up
 * to six times as large as its text, and what is beyond this goes to a file, which the
 * end of the (sub)transaction removes.
 */
#define MAX_ROWS_KB		(64 * 1024)

/* How far before a row is stored the caches are asked for it: see prefetch_row. */
#define PREFETCH_ROWS	4

/* What the version comparison of a batch needs. */
typedef struct VersionValues
{
	Oid			type;
	const Datum *values;
} VersionValues;

/* What is to be restored after something ran as a target's role. */
typedef struct SavedRole
{
	Oid			userid;
	int			context;
	int			nestlevel;
} SavedRole;

/*
 * What hangs on a target, be it a trigger or a domain's check, runs as the role that
 * the target runs as, and nothing that it sets outlives this: what follows runs
 * with our own rights, and finds its operators by search_path.  The end of the
 * (sub)transaction undoes all of this after an error.
 */
static void
become(const SpineTarget *target, SavedRole *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->context);
	SetUserIdAndSecContext(target->run_as, saved->context | SECURITY_RESTRICTED_OPERATION);
	saved->nestlevel = NewGUCNestLevel();
}

static void
be_oneself_again(const SavedRole *saved)
{
	AtEOXact_GUC(false, saved->nestlevel);
	SetUserIdAndSecContext(saved->userid, saved->context);
}

/* Names the column in errors of the input functions. */
static void
column_error_context(void *arg)
{
	const SpineColumn *column = *(const SpineColumn **) arg;

	if (column)
		err_generic_string(PG_DIAG_COLUMN_NAME, column->name);
}

bool
spine_apply_begin(const SpinePlan *plan)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);

	AfterTriggerSetState(immediate);

	for (int i = 0; i < plan->ntargets; i++)
		LockRelationOid(plan->targets[i].sink->target, RowExclusiveLock);
	if (!spine_plan_is_current(plan))
		return false;
	spine_check_trust(plan);
	return true;
}

/* A row without a key or version has no place in an upsert. */
static void
refuse_null(const SpineTarget *target, const SpineColumn *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("null value in %s column \"%s\"",
					column == &target->columns[target->version] ? "version" : "key",
					column->name)));
}

/*
 * Binds the key and version of all events, none of which may be null: bound[column]
 * gets the values.  Event by event, since together they are more than a cache holds.
 */
static void
bind_keys(const SpineTarget *target, Datum **bound, const SpineEvent *events, size_t n,
		  const SpineColumn **current)
{
	int			ncolumns = target->nkeys + 1;
	int		   *columns = palloc(ncolumns * sizeof(int));

	memcpy(columns, target->keys, target->nkeys * sizeof(int));
	columns[target->nkeys] = target->version;
	for (int k = 0; k < ncolumns; k++)
		bound[columns[k]] = palloc(n * sizeof(Datum));
	for (size_t i = 0; i < n; i++)
	{
		for (int k = 0; k < ncolumns; k++)
		{
			bool		isnull;
			bool		missing;

			*current = &target->columns[columns[k]];
			bound[columns[k]][i] = spine_bind_value(*current, &events[i], &isnull, &missing);
			if (isnull)
				refuse_null(target, *current);
		}
	}
	*current = NULL;
}

static bool
is_newer(size_t candidate, size_t incumbent, void *arg)
{
	const VersionValues *version = arg;
	Datum		a = version->values[candidate];
	Datum		b = version->values[incumbent];

	if (version->type == INT4OID)
		return DatumGetInt32(a) >= DatumGetInt32(b);
	return DatumGetInt64(a) >= DatumGetInt64(b);
}

/* Appends the bytes of a key's value, so that no two keys share theirs. */
static void
append_key_bytes(StringInfo buf, const SpineColumn *column, Datum value)
{
	if (column->element_len > 0 && column->element_byval)
		appendBinaryStringInfo(buf, (char *) &value, sizeof(Datum));
	else if (column->element_len > 0)
		appendBinaryStringInfo(buf, DatumGetPointer(value), column->element_len);
	else
	{
		const struct varlena *text = (const struct varlena *) DatumGetPointer(value);
		uint32		len = VARSIZE_ANY_EXHDR(text);

		appendBinaryStringInfo(buf, (char *) &len, sizeof(len));
		appendBinaryStringInfo(buf, VARDATA_ANY(text), len);
	}
}

/* Sorts rows by the bytes of their keys. */
static int
compare_keys(const void *a, const void *b, void *arg)
{
	const SpineReduceKey *key_a = (const SpineReduceKey *) arg + *(const uint32 *) a;
	const SpineReduceKey *key_b = (const SpineReduceKey *) arg + *(const uint32 *) b;
	int			order = memcmp(key_a->key, key_b->key, Min(key_a->len, key_b->len));

	return order ? order : (key_a->len > key_b->len) - (key_a->len < key_b->len);
}

/* The rows to keep of an upsert: the newest per key. */
static size_t
reduce_events(const SpineTarget *target, Datum **bound, size_t n, uint32 *kept)
{
	VersionValues version = {target->columns[target->version].element_type,
	bound[target->version]};
	SpineReduceKey *keys = palloc(n * sizeof(SpineReduceKey));
	size_t	   *starts = palloc((n + 1) * sizeof(size_t));
	uint32	   *table = MemoryContextAllocHuge(CurrentMemoryContext,
											   spine_reduce_table_size(n) * sizeof(uint32));
	StringInfoData bytes;

	initStringInfo(&bytes);
	for (size_t row = 0; row < n; row++)
	{
		starts[row] = bytes.len;
		for (int k = 0; k < target->nkeys; k++)
		{
			int			column = target->keys[k];

			append_key_bytes(&bytes, &target->columns[column], bound[column][row]);
		}
	}
	starts[n] = bytes.len;

	/* only now, since the buffer moved as it grew */
	for (size_t row = 0; row < n; row++)
	{
		keys[row].key = bytes.data + starts[row];
		keys[row].len = starts[row + 1] - starts[row];
	}
	n = spine_reduce(keys, n, is_newer, &version, table, kept);
	qsort_arg(kept, n, sizeof(uint32), compare_keys, keys);
	return n;
}

/*
 * Asks the processor's caches for what storing a row will read: first the values that
 * are bound, and the fields of the others; when those are there, what they point to.
 * Inlined, since GCC takes a function that does nothing else for one without effect,
 * and leaves out its calls.
 */
static pg_attribute_always_inline void
prefetch_row(const SpineTarget *target, Datum *const *bound, const SpineEvent *events,
			 size_t row, bool follow)
{
	for (int c = 0; c < target->ncolumns; c++)
	{
		const SpineColumn *column = &target->columns[c];

		if (bound[c])
		{
			if (!follow)
				__builtin_prefetch(&bound[c][row]);
			else if (!column->element_byval)
				__builtin_prefetch(DatumGetPointer(bound[c][row]));
		}
		else if (column->source == SPINE_FROM_FIELD)
		{
			const SpineField *field = &events[row].fields[column->field];

			__builtin_prefetch(follow ? (const void *) field->text : field);
		}
	}
}

/* Binds what is not bound yet of the rows kept[0..n-1] of events, and stores them. */
static void
store_rows(Tuplestorestate *rows, const SpineTarget *target, Datum *const *bound,
		   const SpineEvent *events, const uint32 *kept, size_t n, const SpineColumn **current)
{
	Datum	   *values = palloc(target->rows->natts * sizeof(Datum));
	bool	   *nulls = palloc0(target->rows->natts * sizeof(bool));
	bytea	   *lacks = palloc0(VARHDRSZ + target->ndefaults);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(row_context);

	SET_VARSIZE(lacks, VARHDRSZ + target->ndefaults);
	for (size_t row = 0; row < n; row++)
	{
		size_t		i = kept ? kept[row] : row;
		int			attribute = target->ncolumns;
		int			ndefaults = 0;

		/* in the order of their keys they are all over the memory */
		if (kept && row + 2 * PREFETCH_ROWS < n)
		{
			prefetch_row(target, bound, events, kept[row + 2 * PREFETCH_ROWS], false);
			prefetch_row(target, bound, events, kept[row + PREFETCH_ROWS], true);
		}

		for (int c = 0; c < target->ncolumns; c++)
		{
			bool		missing = false;

			*current = &target->columns[c];
			if (bound[c])
				values[c] = bound[c][i];
			else
				values[c] = spine_bind_value(*current, &events[i], &nulls[c], &missing);
			if ((*current)->default_expr && target->packs_missing)
				VARDATA(lacks)[ndefaults++] = missing;
			else if ((*current)->default_expr)
				values[attribute++] = BoolGetDatum(missing);
		}
		if (target->packs_missing)
			values[attribute++] = PointerGetDatum(lacks);
		if (target->reduce_in_sql)
			values[attribute] = Int64GetDatum((int64) row);
		tuplestore_putvalues(rows, target->rows, values, nulls);
		MemoryContextReset(row_context);
	}
	*current = NULL;
	MemoryContextSwitchTo(old_context);
}

/*
 * Converts the values of one event and forgets them.  A row without a key or version
 * has no place in an upsert.
 */
static void
convert_event(const SpineTarget *target, const SpineEvent *event, const SpineColumn **current)
{
	for (int c = 0; c < target->ncolumns; c++)
	{
		bool		isnull;
		bool		missing;
		bool		is_needed = c == target->version;

		for (int k = 0; k < target->nkeys && target->sink->mode == SPINE_UPSERT; k++)
			is_needed |= target->keys[k] == c;

		*current = &target->columns[c];
		(void) spine_bind_value(*current, event, &isnull, &missing);
		if (isnull && is_needed)
			refuse_null(target, *current);
	}
	*current = NULL;
}

/*
 * Converts what a newer event of the batch supersedes, and is never stored: what
 * becomes of a record does not depend on which others it shares a batch with.
 */
static void
convert_superseded(const SpineTarget *target, const SpineEvent *events, size_t n,
				   const uint32 *kept, size_t nkept, const SpineColumn **current)
{
	bool	   *is_kept;
	MemoryContext row_context;
	MemoryContext old_context;

	if (nkept == n)
		return;
	is_kept = palloc0(n * sizeof(bool));
	for (size_t row = 0; row < nkept; row++)
		is_kept[kept[row]] = true;

	row_context = AllocSetContextCreate(CurrentMemoryContext, "spine row", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(row_context);
	for (size_t i = 0; i < n; i++)
	{
		if (is_kept[i])
			continue;
		convert_event(target, &events[i], current);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(row_context);
}

/* The rows to write. */
static Tuplestorestate *
bind_target(const SpineTarget *target, const SpineEvent *events, size_t n)
{
	const SpineColumn *current = NULL;
	ErrorContextCallback callback = {error_context_stack, column_error_context, &current};
	Datum	  **bound = palloc0(target->ncolumns * sizeof(Datum *));
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, MAX_ROWS_KB);
	uint32	   *kept = NULL;
	size_t		nrows = n;

	error_context_stack = &callback;

	if (target->sink->mode == SPINE_UPSERT)
	{
		bind_keys(target, bound, events, n, &current);
		if (!target->reduce_in_sql)
		{
			kept = palloc(n * sizeof(uint32));
			nrows = reduce_events(target, bound, n, kept);
			convert_superseded(target, events, n, kept, nrows, &current);
		}
	}
	store_rows(rows, target, bound, events, kept, nrows, &current);

	error_context_stack = callback.previous;
	return rows;
}

static SPIPlanPtr
get_plan(SpineTarget *target, bool skip_existing)
{
	bool		merge = target->merge && (skip_existing || target->insert == NULL);
	SPIPlanPtr *plan = merge ? &target->merge_plan : &target->insert_plan;

	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(merge ? target->merge : target->insert, 0, NULL);

		if (prepared == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(prepared);
		*plan = prepared;
	}
	return *plan;
}

/* Returns how many rows the statement wrote. */
static uint64
apply_target(SpineTarget *target, const SpineEvent *events, size_t n, bool skip_existing)
{
	EphemeralNamedRelationData rows = {
		.md = {
			.name = SPINE_ROWS,
			.tupdesc = target->rows,
			.enrtype = ENR_NAMED_TUPLESTORE
		}
	};
	SavedRole	saved;
	int			result;
	uint64		nwritten;

	become(target, &saved);
	rows.reldata = bind_target(target, events, n);
	rows.md.enrtuples = tuplestore_tuple_count(rows.reldata);

	/* of its own, so that an error takes the name with it */
	SPI_connect();
	if (SPI_register_relation(&rows) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of a batch");

	result = SPI_execute_plan(get_plan(target, skip_existing), NULL, NULL, false, 0);
	be_oneself_again(&saved);

	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	nwritten = SPI_processed;
	SPI_finish();
	tuplestore_end(rows.reldata);
	return nwritten;
}

void
spine_convert(const SpineTarget *target, const SpineEvent *events, size_t n, size_t *at)
{
	const SpineColumn *current = NULL;
	ErrorContextCallback callback = {error_context_stack, column_error_context, &current};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	SavedRole	saved;

	become(target, &saved);
	error_context_stack = &callback;
	for (; *at < n; (*at)++)
	{
		convert_event(target, &events[*at], &current);
		MemoryContextReset(context);
	}
	error_context_stack = callback.previous;
	be_oneself_again(&saved);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

uint64
spine_apply(SpinePlan *plan, const SpineEvent *events, size_t n, bool skip_existing)
{
	uint64		nupserts = 0;

	for (int i = 0; i < plan->ntargets; i++)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine apply",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old_context = MemoryContextSwitchTo(context);
		uint64		nrows;

		nrows = apply_target(&plan->targets[i], events, n, skip_existing);
		if (plan->targets[i].sink->mode == SPINE_UPSERT)
			nupserts += nrows;
		MemoryContextSwitchTo(old_context);
		MemoryContextDelete(context);
	}
	return nupserts;
}

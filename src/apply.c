/*
 * apply.c
 *		Binds a batch's events to the arrays of a sink's statement, reduced to
 *		one row per key where the sink asks for it, and runs the statement as
 *		the role that the target runs as.
 */
#include "apply.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "reduce.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* One column's values for the rows of a batch. */
typedef struct ColumnValues
{
	Datum	   *values;
	bool	   *nulls;
	Datum	   *missing;		/* as boolean Datums, NULL: not needed */
} ColumnValues;

/* What the version comparison of a batch needs. */
typedef struct VersionValues
{
	SpineBinding binding;
	const Datum *values;
} VersionValues;

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
	return spine_plan_is_current(plan);
}

static void
allocate_column(ColumnValues *column, size_t n, bool with_missing)
{
	column->values = palloc(n * sizeof(Datum));
	column->nulls = palloc(n * sizeof(bool));
	column->missing = with_missing ? palloc(n * sizeof(Datum)) : NULL;
}

/* Binds a column for the rows kept[0..n-1] of events. */
static void
bind_column(const SpineColumn *column, ColumnValues *into,
			const SpineEvent *events, const uint32 *kept, size_t n)
{
	allocate_column(into, n, column->default_expr != NULL);
	for (size_t i = 0; i < n; i++)
	{
		bool		missing;

		into->values[i] = spine_bind_value(column, &events[kept ? kept[i] : i],
										   &into->nulls[i], &missing);
		if (into->missing)
			into->missing[i] = BoolGetDatum(missing);
	}
}

/* A row without a key or version has no place in an upsert. */
static void
require_values(const SpineTarget *target, const SpineColumn *column,
			   const ColumnValues *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		if (values->nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("null value in %s column \"%s\"",
							column == &target->columns[target->version] ? "version" : "key",
							column->name)));
	}
}

static bool
is_newer(size_t candidate, size_t incumbent, void *arg)
{
	const VersionValues *version = arg;
	Datum		a = version->values[candidate];
	Datum		b = version->values[incumbent];

	if (version->binding == SPINE_BIND_INT4)
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

/*
 * The rows to keep of an upsert: the newest per key.  Leaves the key and
 * version columns bound for all rows in *bound.
 */
static size_t
reduce_events(const SpineTarget *target, ColumnValues *bound, size_t n, uint32 *kept)
{
	VersionValues version = {target->columns[target->version].binding,
	bound[target->version].values};
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

			append_key_bytes(&bytes, &target->columns[column], bound[column].values[row]);
		}
	}
	starts[n] = bytes.len;

	/* only now, since the buffer moved as it grew */
	for (size_t row = 0; row < n; row++)
	{
		keys[row].key = bytes.data + starts[row];
		keys[row].len = starts[row + 1] - starts[row];
	}
	return spine_reduce(keys, n, is_newer, &version, table, kept);
}

/* Keeps the rows kept[] of a column that was bound for all rows. */
static void
compact_column(ColumnValues *column, const uint32 *kept, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		column->values[i] = column->values[kept[i]];
		column->nulls[i] = column->nulls[kept[i]];
		if (column->missing)
			column->missing[i] = column->missing[kept[i]];
	}
}

/* Binds every column of the target; returns how many rows there are to write. */
static size_t
bind_target(const SpineTarget *target, ColumnValues *bound,
			const SpineEvent *events, size_t n)
{
	const SpineColumn *current = NULL;
	ErrorContextCallback callback = {error_context_stack, column_error_context, &current};
	uint32	   *kept = NULL;

	error_context_stack = &callback;

	if (target->sink->mode == SPINE_UPSERT)
	{
		for (int k = 0; k <= target->nkeys; k++)
		{
			int			i = k < target->nkeys ? target->keys[k] : target->version;

			current = &target->columns[i];
			bind_column(current, &bound[i], events, NULL, n);
			require_values(target, current, &bound[i], n);
		}
		if (!target->reduce_in_sql)
		{
			current = NULL;
			kept = palloc(n * sizeof(uint32));
			n = reduce_events(target, bound, n, kept);
			for (int k = 0; k <= target->nkeys; k++)
				compact_column(&bound[k < target->nkeys ? target->keys[k] : target->version],
							   kept, n);
		}
	}

	for (int i = 0; i < target->ncolumns; i++)
	{
		if (bound[i].values)
			continue;
		current = &target->columns[i];
		bind_column(current, &bound[i], events, kept, n);
	}

	error_context_stack = callback.previous;
	return n;
}

static Datum
make_array(const SpineColumn *column, const ColumnValues *values, size_t n)
{
	int			dims[1] = {n};
	int			lower_bounds[1] = {1};

	return PointerGetDatum(construct_md_array(values->values, values->nulls, 1,
											  dims, lower_bounds, column->element_type,
											  column->element_len, column->element_byval,
											  column->element_align));
}

/* The parameter types of a target's statements; returns how many. */
static int
parameter_types(const SpineTarget *target, Oid *types)
{
	int			n = 0;

	for (int i = 0; i < target->ncolumns; i++)
	{
		types[n++] = get_array_type(target->columns[i].element_type);
		if (target->columns[i].default_expr)
			types[n++] = BOOLARRAYOID;
	}
	return n;
}

static SPIPlanPtr
get_plan(SpineTarget *target, bool skip_existing)
{
	bool		merge = target->merge && (skip_existing || target->insert == NULL);
	SPIPlanPtr *plan = merge ? &target->merge_plan : &target->insert_plan;

	if (*plan == NULL)
	{
		Oid		   *types = palloc(2 * target->ncolumns * sizeof(Oid));
		int			n = parameter_types(target, types);
		SPIPlanPtr	prepared = SPI_prepare(merge ? target->merge : target->insert, n, types);

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
	ColumnValues *bound = palloc0(target->ncolumns * sizeof(ColumnValues));
	Datum	   *parameters = palloc(2 * target->ncolumns * sizeof(Datum));
	int			nparameters = 0;
	Oid			save_userid;
	int			save_context;
	int			save_nestlevel;
	int			result;

	n = bind_target(target, bound, events, n);

	for (int i = 0; i < target->ncolumns; i++)
	{
		parameters[nparameters++] = make_array(&target->columns[i], &bound[i], n);
		if (bound[i].missing)
			parameters[nparameters++] =
				PointerGetDatum(construct_array(bound[i].missing, n, BOOLOID, 1, true, TYPALIGN_CHAR));
	}

	/*
	 * Nothing that the table's triggers set may outlive the statement: what
	 * follows runs with our own rights, and finds its operators by search_path.
	 * The end of the (sub)transaction undoes all of this after an error.
	 */
	GetUserIdAndSecContext(&save_userid, &save_context);
	SetUserIdAndSecContext(target->run_as, save_context | SECURITY_RESTRICTED_OPERATION);
	save_nestlevel = NewGUCNestLevel();
	result = SPI_execute_plan(get_plan(target, skip_existing), parameters, NULL, false, 0);
	AtEOXact_GUC(false, save_nestlevel);
	SetUserIdAndSecContext(save_userid, save_context);

	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	return SPI_processed;
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

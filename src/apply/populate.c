/*
 * populate.c
 *		JSON into arrays and composite types.
 *
 * A value becomes {"column": value}, from which json_populate_record makes a row of one
 * column.  PostgreSQL has no function, in all versions that we support, that makes the
 * value alone.
 */
#include "apply/populate.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/*
 * What PostgreSQL allocates and does not free before the end, at most and about: for an
 * object or an array (a lexer), for each value in it (what its type's input function leaves
 * behind: a parser, with some types), and for each byte.
 */
#define NESTED_COST			2048
#define SIMPLE_VALUE_COST	256
#define VALUE_COST			3072
#define BYTE_COST			6

struct SpinePopulate
{
	FmgrInfo	function;
	TupleDesc	row_type;
	Datum		empty_row;		/* which tells json_populate_record the type */
	Oid			base_type;
	char	   *prefix;			/* {"column": */
	size_t		value_cost;
	size_t		max_memory;
};

bool
spine_populate_is_for(Oid base_type)
{
	return OidIsValid(get_element_type(base_type)) || get_typtype(base_type) == TYPTYPE_COMPOSITE;
}

static size_t value_cost(Oid type);

/* Of the attribute that costs most. */
static size_t
attribute_cost(Oid type)
{
	TupleDesc	row_type = lookup_rowtype_tupdesc(type, -1);
	size_t		cost = SIMPLE_VALUE_COST;

	for (int i = 0; i < row_type->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(row_type, i);

		if (!attribute->attisdropped)
			cost = Max(cost, value_cost(attribute->atttypid));
	}
	ReleaseTupleDesc(row_type);
	return cost;
}

/* Types of a fixed length, strings and numbers leave little behind. */
static size_t
value_cost(Oid type)
{
	Oid			base_type = getBaseType(type);
	char		category;
	bool		is_preferred;

	check_stack_depth();
	if (OidIsValid(get_element_type(base_type)))
		return value_cost(get_element_type(base_type));
	if (get_typtype(base_type) == TYPTYPE_COMPOSITE)
		return attribute_cost(base_type);
	get_type_category_preferred(base_type, &category, &is_preferred);
	return get_typlen(base_type) > 0 || category == TYPCATEGORY_STRING || category == TYPCATEGORY_NUMERIC ?
		SIMPLE_VALUE_COST : VALUE_COST;
}

SpinePopulate *
spine_populate_make(const char *column, Oid base_type, int32 typmod, size_t max_memory)
{
	SpinePopulate *populate = palloc0(sizeof(SpinePopulate));
	Datum		value = (Datum) 0;
	bool		isnull = true;
	StringInfoData prefix;
	List	   *args;

	populate->base_type = base_type;
	populate->max_memory = max_memory;
	populate->value_cost = value_cost(base_type);
	populate->row_type = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(populate->row_type, 1, column, base_type, typmod, 0);
	BlessTupleDesc(populate->row_type);
	populate->empty_row = heap_copy_tuple_as_datum(heap_form_tuple(populate->row_type, &value, &isnull),
												   populate->row_type);

	initStringInfo(&prefix);
	appendStringInfoChar(&prefix, '{');
	escape_json(&prefix, column);
	appendStringInfoChar(&prefix, ':');
	populate->prefix = prefix.data;

	/* it looks at the types of its arguments */
	fmgr_info_cxt(F_JSON_POPULATE_RECORD, &populate->function, CurrentMemoryContext);
	args = list_make2(makeNullConst(RECORDOID, -1, InvalidOid), makeNullConst(JSONOID, -1, InvalidOid));
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSON_POPULATE_RECORD, RECORDOID, args, InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   &populate->function);
	return populate;
}

/* About; what is in strings counts as well. */
static size_t
memory_needed(const SpinePopulate *populate, const char *json)
{
	size_t		n = populate->value_cost;

	for (; *json; json++)
	{
		n += BYTE_COST;
		if (*json == '{' || *json == '[')
			n += NESTED_COST;
		else if (*json == ',')
			n += populate->value_cost;
	}
	return n;
}

/* The value of the only column of the row that json_populate_record makes. */
static Datum
populate_row(SpinePopulate *populate, const char *json, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 3);
	char	   *text = psprintf("%s%s}", populate->prefix, json);
	HeapTupleData row = {0};

	InitFunctionCallInfoData(*fcinfo, &populate->function, 3, InvalidOid, NULL, NULL);
	fcinfo->args[0] = (NullableDatum) {populate->empty_row, false};
	fcinfo->args[1] = (NullableDatum) {CStringGetTextDatum(text), false};
	fcinfo->args[2] = (NullableDatum) {BoolGetDatum(false), false};
	row.t_data = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));
	row.t_len = HeapTupleHeaderGetDatumLength(row.t_data);
	return heap_getattr(&row, 1, populate->row_type, isnull);
}

Datum
spine_populate_value(SpinePopulate *populate, const char *json, bool *isnull)
{
	MemoryContext context;
	MemoryContext old_context;
	Datum		value;

	Assert(IsTransactionState());
	if (memory_needed(populate, json) > populate->max_memory)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s of the record's value would take more memory to make than spine.max_record_memory allows",
						format_type_be(populate->base_type))));

	/* the caller's context may be that of a whole batch */
	context = AllocSetContextCreate(CurrentMemoryContext, "spine populate", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	value = populate_row(populate, json, isnull);
	MemoryContextSwitchTo(old_context);
	if (!*isnull)
		value = datumCopy(value, false, -1);
	MemoryContextDelete(context);
	return value;
}

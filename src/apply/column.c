/*
 * column.c
 *		Describes the columns of a sink.
 */
#include "apply/column.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* A domain counts as its base type. */
static SpineBinding
choose_binding(Oid base_type, int32 typmod)
{
	/* only the input function knows what a length or precision does to a value */
	if (typmod >= 0)
		return SPINE_BIND_INPUT;

	switch (base_type)
	{
		case TEXTOID:
		case VARCHAROID:
			return SPINE_BIND_TEXT;
		case INT8OID:
			return SPINE_BIND_INT8;
		case INT4OID:
			return SPINE_BIND_INT4;
		case UUIDOID:
			return SPINE_BIND_UUID;
		case TIMESTAMPTZOID:
			return SPINE_BIND_TIMESTAMPTZ;
		case BOOLOID:
			return SPINE_BIND_BOOL;
		case FLOAT8OID:
			return SPINE_BIND_FLOAT8;
		case BYTEAOID:
			return SPINE_BIND_BYTEA;
		case JSONOID:
			return SPINE_BIND_JSON;
		case JSONBOID:
			return SPINE_BIND_JSONB;
		default:
			return SPINE_BIND_INPUT;
	}
}

static SpineInput *
make_input(Oid type, Oid base_type)
{
	SpineInput *input = palloc0(sizeof(SpineInput));
	Oid			function;

	input->context = CurrentMemoryContext;
	input->domain = type == base_type ? InvalidOid : type;
	getTypeInputInfo(base_type, &function, &input->param);
	fmgr_info_cxt(function, &input->function, input->context);
	return input;
}

/* The index of a field in the list; it is added when it is new. */
static int
add_field(SpineFieldList *fields, const char *name, SpineBinding binding)
{
	char	   *utf8 = pg_server_to_any(name, strlen(name), PG_UTF8);
	bool		as_json = binding == SPINE_BIND_JSON || binding == SPINE_BIND_JSONB;
	bool		for_jsonb = binding == SPINE_BIND_JSONB;
	SpinePathStep  *step;

	for (int i = 0; i < fields->n; i++)
	{
		SpineFieldSpec *spec = &fields->specs[i];

		if (strcmp(spec->path.steps[0].member, utf8) == 0 && spec->as_json == as_json)
		{
			spec->for_jsonb |= for_jsonb;
			return i;
		}
	}
	step = palloc0(sizeof(SpinePathStep));
	step->member = pstrdup(utf8);
	fields->specs = fields->specs ?
		repalloc(fields->specs, (fields->n + 1) * sizeof(SpineFieldSpec)) : palloc(sizeof(SpineFieldSpec));
	fields->specs[fields->n] = (SpineFieldSpec) {
		.path = {SPINE_ROOT_VALUE, 1, step},
		.as_json = as_json,
		.for_jsonb = for_jsonb
	};
	return fields->n++;
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
 * Does a column of this type round the values that it is given?  (Some types refuse a
 * value that is too long, but cut it in a cast.  They do not count.)
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

/*
 * The catalog shows a default without the cast to its column.  That cast is one of
 * assignment, which refuses a value that is too long: ours must not cut it first.
 */
static char *
cast_default(const char *expr, Oid base_type, int32 typmod)
{
	return psprintf("(%s)::%s", expr,
					format_type_extended(base_type, rounds(base_type, typmod) ? typmod : -1,
										 FORMAT_TYPE_FORCE_QUALIFY | FORMAT_TYPE_TYPEMOD_GIVEN));
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

void
spine_column_make(SpineColumn *column, const SpineTableColumn *from, const char *source,
				  SpineFieldList *fields, size_t max_record_memory)
{
	int32		typmod = from->typmod;
	Oid			base_type = getBaseTypeAndTypmod(from->type, &typmod);

	Assert(IsTransactionState());

	column->name = pstrdup(from->name);
	column->source = parse_source(source);
	column->binding = choose_binding(base_type, typmod);
	column->input = make_input(from->type, base_type);
	if (column->source == SPINE_FROM_FIELD)
		column->field = add_field(fields, source, column->binding);
	else if (column->binding == SPINE_BIND_JSONB)
		column->max_jsonb_memory = max_record_memory;

	/* as the table will hold it, so that keys and versions compare alike */
	column->base_type = base_type;
	column->typmod = typmod;
	get_typlenbyvalalign(base_type, &column->len, &column->byval, &column->align);

	if (from->default_expr)
		column->default_expr = cast_default(from->default_expr, base_type, typmod);
	column->collation = from->collation;
	column->equal_if_same_bytes = equal_if_same_bytes(base_type, from->collation);
}

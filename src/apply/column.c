/*
 * column.c
 *		Describes the columns of a sink.
 */
#include "apply/column.h"

#include "access/xact.h"
#include "apply/reading.h"
#include "catalog/place.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

/* A domain counts as its base type. */
static SpineBinding
choose_binding(Oid base_type, int32 typmod)
{
	/* only the input function knows what a length or precision does to a value */
	if (typmod >= 0)
		return spine_populate_is_for(base_type) ? SPINE_BIND_NESTED : SPINE_BIND_INPUT;

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
			return spine_populate_is_for(base_type) ? SPINE_BIND_NESTED : SPINE_BIND_INPUT;
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

static bool
is_same_path(const SpinePath *a, const SpinePath *b)
{
	if (a->root != b->root || a->nsteps != b->nsteps || a->strict != b->strict)
		return false;
	for (int i = 0; i < a->nsteps; i++)
	{
		const SpinePathStep *x = &a->steps[i];
		const SpinePathStep *y = &b->steps[i];

		if (x->element != y->element || (x->member == NULL) != (y->member == NULL) ||
			(x->member && strcmp(x->member, y->member) != 0))
			return false;
	}
	return true;
}

int
spine_fields_add(SpineFieldList *fields, const SpineFieldSpec *spec)
{
	for (int i = 0; i < fields->n; i++)
	{
		SpineFieldSpec *other = &fields->specs[i];

		if (is_same_path(&other->path, &spec->path) && other->as_json == spec->as_json)
		{
			other->for_jsonb |= spec->for_jsonb;
			return i;
		}
	}
	fields->specs = fields->specs ?
		repalloc(fields->specs, (fields->n + 1) * sizeof(SpineFieldSpec)) : palloc(sizeof(SpineFieldSpec));
	fields->specs[fields->n] = *spec;
	return fields->n++;
}

/* Takes the values from a part of the record's value or key. */
static void
take_field(SpineColumn *column, const SpinePath *path, SpineFieldList *fields)
{
	bool		is_json = column->binding == SPINE_BIND_JSON || column->binding == SPINE_BIND_JSONB;
	SpineFieldSpec spec = {.path = *path};

	/* a string in a json column is spelled as PostgreSQL spells it, but all of a record is kept */
	spec.as_json = column->binding == SPINE_BIND_JSONB || (is_json && path->nsteps == 0);
	spec.for_jsonb = column->binding == SPINE_BIND_JSONB || column->binding == SPINE_BIND_NESTED;
	column->source = SPINE_FROM_FIELD;
	column->field = spine_fields_add(fields, &spec);
}

static void
take_jsonpath(SpineColumn *column, const SpinePlace *place, SpineFieldList *fields)
{
	SpineFieldSpec spec = {.path = place->path, .as_json = true, .for_jsonb = true};

	column->source = SPINE_FROM_JSONPATH;
	column->jsonpath = DirectFunctionCall1(jsonpath_in, CStringGetDatum(place->jsonpath));
	column->field = spine_fields_add(fields, &spec);
}

/* All of the value or key: the bytes, or the JSON that they are. */
static void
take_all(SpineColumn *column, SpinePlaceKind kind, SpineFieldList *fields)
{
	SpinePath	path = {.root = kind == SPINE_PLACE_KEY ? SPINE_ROOT_KEY : SPINE_ROOT_VALUE};
	bool		is_json = column->binding == SPINE_BIND_JSON || column->binding == SPINE_BIND_JSONB;

	/* a key is mostly text, such as a name, but a value is always JSON */
	if (is_json || (kind == SPINE_PLACE_VALUE && column->binding != SPINE_BIND_BYTEA))
		take_field(column, &path, fields);
	else
		column->source = kind == SPINE_PLACE_KEY ? SPINE_FROM_KEY : SPINE_FROM_VALUE;
}

static void
set_source(SpineColumn *column, const char *text, SpineFieldList *fields)
{
	SpinePlace	place;

	spine_place_parse(text, column->name, &place);
	switch (place.kind)
	{
		case SPINE_PLACE_PATH:
			take_field(column, &place.path, fields);
			break;
		case SPINE_PLACE_JSONPATH:
			take_jsonpath(column, &place, fields);
			break;
		case SPINE_PLACE_KEY:
		case SPINE_PLACE_VALUE:
			take_all(column, place.kind, fields);
			break;
		case SPINE_PLACE_TOPIC:
			column->source = SPINE_FROM_TOPIC;
			break;
		case SPINE_PLACE_PARTITION:
			column->source = SPINE_FROM_PARTITION;
			break;
		case SPINE_PLACE_OFFSET:
			column->source = SPINE_FROM_OFFSET;
			break;
		case SPINE_PLACE_TIMESTAMP:
			column->source = SPINE_FROM_TIMESTAMP;
			break;
		case SPINE_PLACE_HEADER:
			column->source = SPINE_FROM_HEADER;
			column->header = place.header;
			break;
		case SPINE_PLACE_HEADERS:
			column->source = SPINE_FROM_HEADERS;
			break;
	}
}

static void
name_column(void *arg)
{
	const SpineColumn *column = arg;

	errcontext("default of column \"%s\" in the mapping", column->name);
	err_generic_string(PG_DIAG_COLUMN_NAME, column->name);
}

/* The default that the mapping gives, which must be a value of the type. */
static void
set_default(SpineColumn *column, const char *text)
{
	ErrorContextCallback callback = {error_context_stack, name_column, column};
	Datum		value;

	error_context_stack = &callback;
	value = InputFunctionCall(&column->input->function, pstrdup(text), column->input->param,
							  column->typmod);
	if (OidIsValid(column->input->domain))
		domain_check(value, false, column->input->domain, &column->input->domain_checks,
					 column->input->context);
	error_context_stack = callback.previous;
	column->has_given_default = true;
	column->given_default = datumCopy(value, column->byval, column->len);
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
spine_column_make(SpineColumn *column, const SpineTableColumn *from, const SpineMapping *mapping,
				  SpineFieldList *fields, size_t max_record_memory)
{
	int32		typmod = from->typmod;
	Oid			base_type = getBaseTypeAndTypmod(from->type, &typmod);

	Assert(IsTransactionState());

	/* as the table will hold it, so that keys and versions compare alike */
	column->name = pstrdup(from->name);
	column->number = from->number;
	column->type = from->type;
	column->base_type = base_type;
	column->typmod = typmod;
	get_typlenbyvalalign(base_type, &column->len, &column->byval, &column->align);

	column->binding = choose_binding(base_type, typmod);
	column->input = make_input(from->type, base_type);
	column->max_record_memory = max_record_memory;
	if (column->binding == SPINE_BIND_NESTED)
		column->populate = spine_populate_make(column->name, base_type, typmod, max_record_memory);
	column->reading = mapping->reading;
	spine_reading_check(column);
	if (mapping->sql)
		column->source = SPINE_FROM_EXPRESSION;
	else
		set_source(column, mapping->place, fields);
	if (mapping->default_text)
		set_default(column, mapping->default_text);

	if (from->default_expr)
		column->default_expr = cast_default(from->default_expr, base_type, typmod);
	column->collation = from->collation;
	column->is_identity = from->is_identity;
	column->equal_if_same_bytes = equal_if_same_bytes(base_type, from->collation);
}

/* Is that a part of the record's value, which a record may lack? */
static bool
is_asked(const SpineColumn *column, const SpineFieldList *fields)
{
	return column->source == SPINE_FROM_FIELD &&
		fields->specs[column->field].path.root == SPINE_ROOT_VALUE;
}

void
spine_columns_ask(SpineColumn *columns, int n, const char *table, const SpineFieldList *fields)
{
	SpineAsked *asked = palloc0(sizeof(SpineAsked));

	asked->table = table;
	asked->fields = palloc(Max(n, 1) * sizeof(int));
	for (int i = 0; i < n; i++)
	{
		/* what a jsonpath finds or an expression takes is not known before it is run */
		if (columns[i].source == SPINE_FROM_JSONPATH || columns[i].source == SPINE_FROM_EXPRESSION)
			return;
		if (is_asked(&columns[i], fields))
			asked->fields[asked->n++] = columns[i].field;
	}
	for (int i = 0; i < n; i++)
	{
		if (is_asked(&columns[i], fields))
			columns[i].asked = asked;
	}
}

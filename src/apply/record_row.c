/*
 * record_row.c
 *		Makes the columns of the row that SQL expressions see of a record.
 *
 * A chain of constant steps such as value->'a'->>'b' is a column of its own, made of a
 * decoded field, so that nothing makes jsonb of the whole record.  Its value is the one that
 * the operators make of that jsonb.
 */
#include "apply/record_row.h"

#include "apply/expression.h"
#include "apply/field_text.h"
#include "apply/headers.h"
#include "apply/json_chain.h"
#include "apply/record_time.h"
#include "catalog/pg_type.h"
#include "event/json_reader.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* The columns that a user knows. */
typedef enum RecordColumn
{
	TOPIC = 1,
	PARTITION,
	OFFSET,
	TIMESTAMP_,
	KEY,
	VALUE,
	HEADERS,
	KEY_BYTES,
	VALUE_BYTES,
	NCOLUMNS = VALUE_BYTES
} RecordColumn;

static const struct
{
	const char *name;
	Oid			type;
}			columns[NCOLUMNS + 1] = {
	[TOPIC] = {"topic", TEXTOID},
	[PARTITION] = {"partition", INT4OID},
	[OFFSET] = {"offset", INT8OID},
	[TIMESTAMP_] = {"timestamp", TIMESTAMPTZOID},
	[KEY] = {"key", JSONBOID},
	[VALUE] = {"value", JSONBOID},
	[HEADERS] = {"headers", JSONBOID},
	[KEY_BYTES] = {"key_bytes", BYTEAOID},
	[VALUE_BYTES] = {"value_bytes", BYTEAOID},
};

/* A column of a decoded field. */
typedef struct FieldColumn
{
	int			field;			/* index in the plan's fields */
	bool		as_text;		/* what ->> makes of it, and not -> */
} FieldColumn;

struct SpineRecordRow
{
	SpineFieldList *fields;
	MemoryContext context;
	size_t		max_record_memory;
	int			key_field;		/* all of the key; -1: not needed */
	int			value_field;
	int			ntaken;
	FieldColumn *taken;			/* the columns behind those that a user knows */
};

SpineRecordRow *
spine_record_row_make(SpineFieldList *fields, size_t max_record_memory)
{
	SpineRecordRow *row = palloc0(sizeof(SpineRecordRow));

	row->fields = fields;
	row->context = CurrentMemoryContext;
	row->max_record_memory = max_record_memory;
	row->key_field = row->value_field = -1;
	return row;
}

TupleDesc
spine_record_row_type(const SpineRecordRow *row)
{
	TupleDesc	type = CreateTemplateTupleDesc(NCOLUMNS + row->ntaken);
	char		name[NAMEDATALEN];

	for (int i = 1; i <= NCOLUMNS; i++)
		TupleDescInitEntry(type, i, columns[i].name, columns[i].type, -1, 0);
	for (int i = 0; i < row->ntaken; i++)
	{
		snprintf(name, sizeof(name), "field %d", i);
		TupleDescInitEntry(type, NCOLUMNS + 1 + i, name, row->taken[i].as_text ? TEXTOID : JSONBOID, -1, 0);
	}
	return type;
}

/* --------------------------------------------------------------------------
 * Fields in place of chains
 * -------------------------------------------------------------------------- */

/* A key that is not JSON is a string in jsonb, whose element 0 is the string, but no field. */
static bool
is_decoded(const SpineJsonChain *chain)
{
	return chain->attribute == VALUE || (chain->attribute == KEY && chain->steps[0].member);
}

/* The attribute number of the column for a chain; it is added when it is new. */
static int
take_field(SpineRecordRow *row, const SpineJsonChain *chain)
{
	SpineFieldSpec spec = {
		.path = {
			.root = chain->attribute == KEY ? SPINE_ROOT_KEY : SPINE_ROOT_VALUE,
			.nsteps = chain->nsteps,
			.steps = chain->steps,
			.strict = true
		},
		.as_json = !chain->as_text,
		.for_jsonb = !chain->as_text
	};
	int			field = spine_fields_add(row->fields, &spec);

	for (int i = 0; i < row->ntaken; i++)
	{
		if (row->taken[i].field == field)
			return NCOLUMNS + 1 + i;
	}
	row->taken = row->taken ?
		repalloc(row->taken, (row->ntaken + 1) * sizeof(FieldColumn)) : palloc(sizeof(FieldColumn));
	row->taken[row->ntaken++] = (FieldColumn) {field, chain->as_text};
	return NCOLUMNS + row->ntaken;
}

/* All of the key or value, for which there is one field. */
static void
take_whole(SpineRecordRow *row, SpineRoot root, int *field)
{
	SpineFieldSpec spec = {.path = {.root = root}, .as_json = true, .for_jsonb = true};

	if (*field < 0)
		*field = spine_fields_add(row->fields, &spec);
}

/* Where the mutator is. */
typedef struct Taking
{
	SpineRecordRow *row;
	int			depth;			/* of sub-SELECTs */
	Bitmapset  *needed;
} Taking;

static Node *
take_fields(Node *node, void *arg)
{
	Taking	   *taking = arg;
	SpineRecordRow *row = taking->row;
	SpineJsonChain chain = {0};
	MemoryContext old_context;
	Var		   *var = NULL;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		taking->depth++;
		node = (Node *) query_tree_mutator((Query *) node, take_fields, arg, 0);
		taking->depth--;
		return node;
	}

	old_context = MemoryContextSwitchTo(row->context);	/* where the paths are to live */
	if (IsA(node, OpExpr) && spine_json_chain_read(&chain, node, taking->depth) && is_decoded(&chain))
		var = makeVar(SPINE_RECORD_INDEX, take_field(row, &chain), exprType(node), -1,
					  exprCollation(node), taking->depth);
	else if (IsA(node, Var) && (int) ((Var *) node)->varlevelsup == taking->depth)
	{
		var = (Var *) node;
		if (var->varattno == KEY)
			take_whole(row, SPINE_ROOT_KEY, &row->key_field);
		else if (var->varattno == VALUE)
			take_whole(row, SPINE_ROOT_VALUE, &row->value_field);
	}
	MemoryContextSwitchTo(old_context);
	if (var == NULL)
		return expression_tree_mutator(node, take_fields, arg);
	taking->needed = bms_add_member(taking->needed, var->varattno);
	return (Node *) var;
}

Node *
spine_record_row_take_fields(SpineRecordRow *row, Node *expr, Bitmapset **needed)
{
	Taking		taking = {.row = row};

	expr = take_fields(expr, &taking);
	*needed = taking.needed;
	return expr;
}

char *
spine_record_row_column(const SpineRecordRow *row, int attribute)
{
	const FieldColumn *taken;
	const SpinePath *path;
	StringInfoData sql;

	if (attribute <= NCOLUMNS)
		return pstrdup(quote_identifier(columns[attribute].name));

	taken = &row->taken[attribute - NCOLUMNS - 1];
	path = &row->fields->specs[taken->field].path;
	initStringInfo(&sql);
	appendStringInfoString(&sql, path->root == SPINE_ROOT_KEY ? "key" : "value");
	for (int i = 0; i < path->nsteps; i++)
	{
		const SpinePathStep *step = &path->steps[i];

		appendStringInfoString(&sql, taken->as_text && i == path->nsteps - 1 ? "->>" : "->");
		if (step->member)
			appendStringInfoString(&sql, quote_literal_cstr(spine_server_string(step->member, strlen(step->member))));
		else
			appendStringInfo(&sql, "%u", step->element);
	}
	return sql.data;
}

bool
spine_record_row_is_whole(int attribute)
{
	return attribute == KEY || attribute == VALUE || attribute == HEADERS;
}

/* --------------------------------------------------------------------------
 * Values
 * -------------------------------------------------------------------------- */

static Datum
bytes_value(const void *bytes, size_t len, bool *isnull)
{
	*isnull = bytes == NULL;
	return *isnull ? (Datum) 0 : PointerGetDatum(cstring_to_text_with_len(bytes, len));
}

static Datum
make_jsonb(const char *json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

/* What the record has, as jsonb: null is a value. */
static Datum
jsonb_value(const SpineField *field)
{
	char		buf[SPINE_FIELD_TEXT_ROOM];
	StringInfoData json;
	SpineField	text = *field;

	switch (field->kind)
	{
		case SPINE_FIELD_NULL:
			return make_jsonb("null");
		case SPINE_FIELD_JSON:
		case SPINE_FIELD_NUMERIC:
			return make_jsonb(spine_field_string(field));
		case SPINE_FIELD_BOOL:
		case SPINE_FIELD_INT64:
			text = spine_field_text(field, buf);
			return make_jsonb(pnstrdup(text.text, text.len));
		case SPINE_FIELD_TEXT:
			break;
		default:
			text = spine_field_text(field, buf);
	}
	initStringInfo(&json);
	escape_json(&json, spine_field_string(&text));
	return make_jsonb(json.data);
}

/* Does jsonb spell this number as the record does? */
static bool
is_plain_number(const SpineField *field)
{
	bool		is_zero = true;

	if (field->len > 1000)
		return false;			/* numeric may round it */
	for (uint32 i = 0; i < field->len; i++)
	{
		char		c = field->text[i];

		if (c == 'e' || c == 'E')
			return false;
		if (c >= '1' && c <= '9')
			is_zero = false;
	}
	return !is_zero || field->text[0] != '-';
}

/* JSON as jsonb spells it: numbers, and what is nested. */
static Datum
respelled_value(const SpineRecordRow *row, const SpineField *field)
{
	Datum		jsonb;

	if (spine_json_memory(field->text, field->len) > row->max_record_memory)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("jsonb of a field would take more memory to make than spine.max_record_memory allows")));
	jsonb = make_jsonb(spine_field_string(field));
	return CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(jsonb_out, jsonb)));
}

/* What ->> makes of a field. */
static Datum
text_value(const SpineRecordRow *row, const SpineField *field)
{
	char		buf[SPINE_FIELD_TEXT_ROOM];
	SpineField	text = *field;

	switch (field->kind)
	{
		case SPINE_FIELD_JSON:
			return respelled_value(row, field);
		case SPINE_FIELD_NUMERIC:
			if (!is_plain_number(field))
				return respelled_value(row, field);
			break;
		case SPINE_FIELD_TEXT:
			break;
		default:
			text = spine_field_text(field, buf);
	}
	return spine_server_text(text.text, text.len);
}

static Datum
field_value(const SpineRecordRow *row, const SpineEvent *event, int index, bool as_text, bool *isnull)
{
	const SpineField *field = &event->fields[index];

	*isnull = field->kind == SPINE_FIELD_ABSENT || (as_text && field->kind == SPINE_FIELD_NULL);
	if (*isnull)
		return (Datum) 0;
	return as_text ? text_value(row, field) : jsonb_value(field);
}

static Datum
timestamp_value(const SpineRecord *record, bool *isnull)
{
	TimestampTz time;

	*isnull = record->timestamp_ms < 0;
	if (*isnull)
		return (Datum) 0;
	if (!spine_record_time(record, &time))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp of the record is out of range")));
	return TimestampTzGetDatum(time);
}

Datum
spine_record_row_value(const SpineRecordRow *row, int attribute, const SpineEvent *event, bool *isnull)
{
	const SpineRecord *record = event->record;

	*isnull = false;
	switch (attribute)
	{
		case TOPIC:
			return CStringGetTextDatum(record->topic);
		case PARTITION:
			return Int32GetDatum(record->partition);
		case OFFSET:
			return Int64GetDatum(record->offset);
		case TIMESTAMP_:
			return timestamp_value(record, isnull);
		case KEY:
			*isnull = record->key == NULL;
			return *isnull ? (Datum) 0 : field_value(row, event, row->key_field, false, isnull);
		case VALUE:
			return field_value(row, event, row->value_field, false, isnull);
		case HEADERS:
			return spine_headers_jsonb(record, row->max_record_memory);
		case KEY_BYTES:
			return bytes_value(record->key, record->key_len, isnull);
		case VALUE_BYTES:
			return bytes_value(record->value, record->value_len, isnull);
		default:
			break;
	}
	attribute -= NCOLUMNS + 1;
	return field_value(row, event, row->taken[attribute].field, row->taken[attribute].as_text, isnull);
}

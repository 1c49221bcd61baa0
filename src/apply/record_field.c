/*
 * record_field.c
 *		Makes fields of what a record has beside the values that the decoder takes: its
 *		topic, its headers and so on; and of what a jsonpath finds.
 */
#include "apply/record_field.h"

#include "apply/field_text.h"
#include "apply/headers.h"
#include "apply/record_time.h"
#include "event/json_reader.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

static const SpineField absent = {.kind = SPINE_FIELD_ABSENT, .text = ""};
static const SpineField null = {.kind = SPINE_FIELD_NULL, .text = ""};

static SpineField
time_field(const SpineRecord *record)
{
	TimestampTz time;

	if (record->timestamp_ms < 0)
		return null;
	if (!spine_record_time(record, &time))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp of the record is out of range")));
	return (SpineField) {
		.kind = SPINE_FIELD_TIMESTAMP,
		.unix_us = record->timestamp_ms * 1000
	};
}

/* All of the value or the key, or a header: bytes for a bytea, text for any other type. */
static SpineField
bytes_field(const SpineColumn *column, const void *bytes, size_t len)
{
	bool		is_bytea = column->binding == SPINE_BIND_BYTEA && column->reading == SPINE_READ_PLAINLY;

	if (bytes == NULL)
		return null;
	return (SpineField) {
		.kind = is_bytea ? SPINE_FIELD_BYTES : SPINE_FIELD_TEXT,
		.len = len,
		.bytes = bytes
	};
}

/* A header that is JSON is JSON in a column of such a type; any other is a string there. */
static SpineField
header_field(const SpineColumn *column, const SpineRecord *record)
{
	SpineField	field = spine_header_field(record, column->header);

	if (field.kind != SPINE_FIELD_BYTES)
		return field;
	field = bytes_field(column, field.bytes, field.len);
	if (column->binding != SPINE_BIND_JSON && column->binding != SPINE_BIND_JSONB)
		return field;
	if (spine_json_is_valid(field.text, field.len))
		field.kind = SPINE_FIELD_JSON;
	if (column->binding == SPINE_BIND_JSONB &&
		spine_json_memory(field.text, field.len) > column->max_record_memory)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("jsonb of a header of the record would take more memory to make than spine.max_record_memory allows")));
	return field;
}

/* A text of the server's encoding as a field. */
static SpineField
text_field(SpineFieldKind kind, char *text, size_t len)
{
	char	   *utf8 = pg_server_to_any(text, len, PG_UTF8);

	return (SpineField) {
		.kind = kind,
		.len = utf8 == text ? len : strlen(utf8),
		.text = utf8
	};
}

static SpineField
jsonb_field(Jsonb *jsonb)
{
	JsonbValue	value;
	char	   *text;

	if (!JB_ROOT_IS_SCALAR(jsonb))
	{
		text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
		return text_field(SPINE_FIELD_JSON, text, strlen(text));
	}
	(void) JsonbExtractScalar(&jsonb->root, &value);
	switch (value.type)
	{
		case jbvString:
			return text_field(SPINE_FIELD_TEXT, value.val.string.val, value.val.string.len);
		case jbvNumeric:
			text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
			return text_field(SPINE_FIELD_NUMERIC, text, strlen(text));
		case jbvBool:
			return (SpineField) {.kind = SPINE_FIELD_BOOL, .boolean = value.val.boolean};
		default:
			return null;
	}
}

/* What the jsonpath finds first, as jsonb_path_query_first has it. */
static SpineField
jsonpath_field(const SpineColumn *column, const SpineField *root)
{
	LOCAL_FCINFO(fcinfo, 4);
	FmgrInfo	function = {.fn_mcxt = CurrentMemoryContext};
	char	   *json;
	Datum		found;

	if (root->kind == SPINE_FIELD_ABSENT || root->kind == SPINE_FIELD_NULL)
		return *root;
	json = spine_field_string(root);

	InitFunctionCallInfoData(*fcinfo, &function, 4, InvalidOid, NULL, NULL);
	fcinfo->args[0] = (NullableDatum) {DirectFunctionCall1(jsonb_in, CStringGetDatum(json)), false};
	fcinfo->args[1] = (NullableDatum) {column->jsonpath, false};
	fcinfo->args[2] = (NullableDatum) {DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")), false};
	fcinfo->args[3] = (NullableDatum) {BoolGetDatum(false), false};
	found = jsonb_path_query_first(fcinfo);
	return fcinfo->isnull ? absent : jsonb_field(DatumGetJsonbP(found));
}

static SpineField
headers_field(const SpineColumn *column, const SpineRecord *record)
{
	return jsonb_field(DatumGetJsonbP(spine_headers_jsonb(record, column->max_record_memory)));
}

SpineField
spine_record_field(const SpineColumn *column, const SpineEvent *event)
{
	const SpineRecord *record = event->record;

	switch (column->source)
	{
		case SPINE_FROM_TOPIC:
			return (SpineField) {
				.kind = SPINE_FIELD_TEXT,
				.len = strlen(record->topic),
				.text = record->topic
			};

		case SPINE_FROM_PARTITION:
			return (SpineField) {.kind = SPINE_FIELD_INT64, .int64 = record->partition};

		case SPINE_FROM_OFFSET:
			return (SpineField) {.kind = SPINE_FIELD_INT64, .int64 = record->offset};

		case SPINE_FROM_TIMESTAMP:
			return time_field(record);

		case SPINE_FROM_KEY:
			return bytes_field(column, record->key, record->key_len);

		case SPINE_FROM_VALUE:
			return bytes_field(column, record->value, record->value_len);

		case SPINE_FROM_HEADER:
			return header_field(column, record);

		case SPINE_FROM_HEADERS:
			return headers_field(column, record);

		case SPINE_FROM_JSONPATH:
			return jsonpath_field(column, &event->fields[column->field]);

		case SPINE_FROM_FIELD:
		case SPINE_FROM_EXPRESSION:
			break;
	}
	pg_unreachable();
}

/*
 * headers.c
 *		Reads the headers of records.
 */
#include "apply/headers.h"

#include "apply/field_text.h"
#include "event/json_reader.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

SpineField
spine_header_field(const SpineRecord *record, const char *name)
{
	SpineField	field = {.kind = SPINE_FIELD_ABSENT, .text = ""};
	SpineHeader header;

	for (size_t i = 0; record->source->header(record, i, &header); i++)
	{
		if (strcmp(header.name, name) != 0)
			continue;
		if (header.value == NULL)
			field = (SpineField) {.kind = SPINE_FIELD_NULL, .text = ""};
		else
			field = (SpineField) {
				.kind = SPINE_FIELD_BYTES,
				.len = header.value_len,
				.bytes = header.value
			};
	}
	return field;
}

static void
append_string(StringInfo json, const char *text, size_t len)
{
	char	   *copy = pnstrdup(text, len);

	escape_json(json, copy);
	pfree(copy);
}

static void
append_header(StringInfo json, const SpineHeader *header)
{
	if (!pg_verify_mbstr(PG_UTF8, header->name, strlen(header->name), true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("the name of a header of the record is not text in UTF-8")));
	if (header->value != NULL && !pg_verify_mbstr(PG_UTF8, header->value, header->value_len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("header \"%s\" of the record is not text in UTF-8",
						spine_server_string(header->name, strlen(header->name))),
				 errhint("Map it to a column of type bytea, or leave \"$headers\" out.")));

	append_string(json, header->name, strlen(header->name));
	appendStringInfoChar(json, ':');
	if (header->value == NULL)
		appendStringInfoString(json, "null");
	else
		append_string(json, header->value, header->value_len);
}

Datum
spine_headers_jsonb(const SpineRecord *record, size_t max_memory)
{
	StringInfoData json;
	SpineHeader header;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (size_t i = 0; record->source->header(record, i, &header); i++)
	{
		if (i > 0)
			appendStringInfoChar(&json, ',');
		append_header(&json, &header);
	}
	appendStringInfoChar(&json, '}');

	if (spine_json_memory(json.data, json.len) > max_memory)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("jsonb of the record's headers would take more memory to make than spine.max_record_memory allows")));
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(spine_server_string(json.data, json.len)));
}

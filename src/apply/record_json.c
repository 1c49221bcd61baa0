/*
 * record_json.c
 *		Makes jsonb of the parts of a record, each in a subtransaction, since jsonb refuses
 *		some JSON.
 */
#include "apply/record_json.h"

#include "apply/field_text.h"
#include "apply/headers.h"
#include "apply/transaction.h"
#include "event/json_reader.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/memutils.h"

static const char *const part_names[] = {
	[SPINE_RECORD_KEY] = "key",
	[SPINE_RECORD_VALUE] = "value",
	[SPINE_RECORD_HEADERS] = "headers",
};

typedef struct Conversion
{
	const SpineRecord *record;
	SpineRecordPart part;
	size_t		max_memory;
	MemoryContext context;		/* of the result */
	Datum		result;
	bool		is_null;
} Conversion;

/* Bytes that have to be UTF-8, as a C string. */
static char *
utf8_text(const void *bytes, size_t len)
{
	if (len >= MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("longer than 1 GB")));
	if (len > 0 && !pg_verify_mbstr(PG_UTF8, bytes, len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE), errmsg("not UTF-8")));
	return pnstrdup(bytes, len);
}

static char *
key_text(const SpineRecord *record)
{
	StringInfoData json;
	char	   *text;

	if (record->key == NULL)
		return NULL;
	text = utf8_text(record->key, record->key_len);
	if (spine_json_is_valid(record->key, record->key_len))
		return text;
	initStringInfo(&json);
	escape_json(&json, text);
	return json.data;
}

/* jsonb of a key or a value; its text is NULL if the record has none. */
static void
convert_text(Conversion *conversion, const char *text)
{
	conversion->is_null = text == NULL;
	if (text == NULL)
		return;
	if (spine_json_memory(text, strlen(text)) > conversion->max_memory)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("jsonb of it would take more memory to make than spine.max_record_memory allows")));
	conversion->result = DirectFunctionCall1(jsonb_in, CStringGetDatum(spine_server_string(text, strlen(text))));
}

/* Step.  What jsonb_in leaves behind goes with the subtransaction's memory. */
static bool
convert_part(void *arg)
{
	Conversion *conversion = arg;
	const SpineRecord *record = conversion->record;

	switch (conversion->part)
	{
		case SPINE_RECORD_KEY:
			convert_text(conversion, key_text(record));
			break;
		case SPINE_RECORD_VALUE:
			convert_text(conversion, record->value ? utf8_text(record->value, record->value_len) : NULL);
			break;
		case SPINE_RECORD_HEADERS:
			conversion->result = spine_headers_jsonb(record, conversion->max_memory);
			conversion->is_null = false;
			break;
		case SPINE_RECORD_PARTS:
			break;
	}
	if (!conversion->is_null)
	{
		MemoryContextSwitchTo(conversion->context);
		conversion->result = datumCopy(conversion->result, false, -1);
	}
	return true;
}

void
spine_record_json_make(const SpineRecord *record, size_t max_memory, SpineRecordJson *json)
{
	json->error = NULL;
	for (int part = 0; part < SPINE_RECORD_PARTS; part++)
	{
		Conversion	conversion = {record, part, max_memory, CurrentMemoryContext, (Datum) 0, true};
		SpineError	error;

		json->nulls[part] = true;
		if (spine_subtransaction_run(convert_part, &conversion, &error))
		{
			json->nulls[part] = conversion.is_null;
			json->values[part] = conversion.result;
		}
		else
			json->error = psprintf("%s%s%s: %s", json->error ? json->error : "", json->error ? "; " : "",
								   part_names[part], spine_error_text(&error, false));
	}
}

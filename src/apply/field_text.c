/*
 * field_text.c
 *		Converts the texts of records, and spells fields whose value is not a text.
 */
#include "apply/field_text.h"

#include <math.h>

#include "apply/record_time.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* pg_any_to_server checks the whole length, and so finds a NUL, when nothing is converted. */
char *
spine_server_string(const char *utf8, size_t len)
{
	char	   *converted = pg_any_to_server(utf8, len, PG_UTF8);

	return converted == utf8 ? pnstrdup(utf8, len) : converted;
}

Datum
spine_server_text(const char *utf8, size_t len)
{
	const char *converted = pg_any_to_server(utf8, len, PG_UTF8);

	return PointerGetDatum(cstring_to_text_with_len(converted, converted == utf8 ? len : strlen(converted)));
}

char *
spine_field_string(const SpineField *field)
{
	return spine_server_string(field->text, field->len);
}

TimestampTz
spine_field_time(const SpineField *field)
{
	TimestampTz time;

	if (!spine_unix_time(field->unix_us, &time))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return time;
}

static char *
spell_bytes(const SpineField *field)
{
	char	   *text = palloc(2 + 2 * (size_t) field->len + 1);

	memcpy(text, "\\x", 2);
	text[2 + hex_encode((const char *) field->bytes, field->len, text + 2)] = '\0';
	return text;
}

SpineField
spine_field_text(const SpineField *field, char *buf)
{
	SpineField	spelled = {.kind = SPINE_FIELD_TEXT, .text = buf};

	switch (field->kind)
	{
		case SPINE_FIELD_BOOL:
			spelled.kind = SPINE_FIELD_JSON;
			spelled.text = field->boolean ? "true" : "false";
			break;
		case SPINE_FIELD_INT64:
			spelled.kind = SPINE_FIELD_NUMERIC;
			snprintf(buf, SPINE_FIELD_TEXT_ROOM, INT64_FORMAT, (int64) field->int64);
			break;
		case SPINE_FIELD_DOUBLE:
			spelled.kind = isfinite(field->float64) ? SPINE_FIELD_NUMERIC : SPINE_FIELD_TEXT;
			double_to_shortest_decimal_buf(field->float64, buf);
			break;
		case SPINE_FIELD_BYTES:
			spelled.text = spell_bytes(field);
			break;
		case SPINE_FIELD_TIMESTAMP:
			spelled.text = timestamptz_to_str(spine_field_time(field));
			break;
		case SPINE_FIELD_UUID:
			spelled.text = DatumGetCString(DirectFunctionCall1(uuid_out, PointerGetDatum(field->bytes)));
			break;
		case SPINE_FIELD_NUMERIC:
		case SPINE_FIELD_TEXT:
		case SPINE_FIELD_JSON:
		case SPINE_FIELD_ABSENT:
		case SPINE_FIELD_NULL:
			pg_unreachable();
	}
	spelled.len = strlen(spelled.text);
	return spelled;
}

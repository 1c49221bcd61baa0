/*
 * bind.c
 *		Turns a field into a Datum of its column's type.
 *
 * The value is the one that the type's input function makes of the field's text.  The
 * fast paths only recognise the kinds and the plain spellings that nearly every record
 * uses.  A value that does not fit raises the input function's error, and the search
 * finds the record.
 */
#include "apply/bind.h"

#include "apply/field_text.h"
#include "apply/record_time.h"
#include "common/int.h"
#include "event/json_reader.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* --------------------------------------------------------------------------
 * Texts
 * -------------------------------------------------------------------------- */

/*
 * A field's text as a C string in the server's encoding.  Raises an error for bytes that
 * are not valid UTF-8, a NUL among them, or that the server's encoding cannot represent.
 */
static char *
server_string(const SpineField *field)
{
	/* checks the whole length, and so finds a NUL, when nothing is converted */
	char	   *converted = pg_any_to_server(field->text, field->len, PG_UTF8);

	return converted == field->text ? pnstrdup(field->text, field->len) : converted;
}

static Datum
bind_text(const SpineField *field)
{
	const char *converted = pg_any_to_server(field->text, field->len, PG_UTF8);
	size_t		len = converted == field->text ? field->len : strlen(converted);

	return PointerGetDatum(cstring_to_text_with_len(converted, len));
}

/* Digits with an optional minus sign, in range; anything else is not plain. */
static bool
plain_int64(const SpineField *field, int64 *result)
{
	const char *p = field->text;
	const char *end = p + field->len;
	bool		negative = p < end && *p == '-';
	int64		value = 0;

	if (negative)
		p++;
	if (p == end)
		return false;
	for (; p < end; p++)
	{
		/* negative all the way, since there is one more of those */
		if (*p < '0' || *p > '9' ||
			pg_mul_s64_overflow(value, 10, &value) ||
			pg_sub_s64_overflow(value, *p - '0', &value))
			return false;
	}
	if (!negative && pg_mul_s64_overflow(value, -1, &value))
		return false;
	*result = value;
	return true;
}

static bool
fits_int4(int64 value)
{
	return value >= PG_INT32_MIN && value <= PG_INT32_MAX;
}

/* One more than the digit, 0 for what is none; a table, as digits are hard to predict. */
static const uint8 hex_digits[256] = {
	['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5,
	['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
	['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
	['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* 8-4-4-4-12 hexadecimal digits. */
static bool
plain_uuid(const SpineField *field, pg_uuid_t *result)
{
	const unsigned char *p = (const unsigned char *) field->text;

	if (field->len != 36)
		return false;
	for (int i = 0; i < UUID_LEN; i++)
	{
		int			high;
		int			low;

		if (i == 4 || i == 6 || i == 8 || i == 10)
		{
			if (*p++ != '-')
				return false;
		}
		high = hex_digits[*p++];
		low = hex_digits[*p++];
		if (high == 0 || low == 0)
			return false;
		result->data[i] = ((high - 1) << 4) | (low - 1);
	}
	return true;
}

/* Exactly n digits. */
static bool
take_digits(const char **p, const char *end, int n, int *result)
{
	*result = 0;
	if (end - *p < n)
		return false;
	for (int i = 0; i < n; i++, (*p)++)
	{
		if (**p < '0' || **p > '9')
			return false;
		*result = *result * 10 + (**p - '0');
	}
	return true;
}

static bool
take_char(const char **p, const char *end, char c)
{
	if (*p < end && **p == c)
	{
		(*p)++;
		return true;
	}
	return false;
}

/* +HH, +HHMM or +HH:MM, or Z, or nothing, which is UTC; in minutes. */
static bool
take_zone(const char **p, const char *end, int *minutes)
{
	int			hour;
	int			minute = 0;
	bool		west;

	*minutes = 0;
	if (*p == end || take_char(p, end, 'Z'))
		return true;
	west = **p == '-';
	if (**p != '+' && **p != '-')
		return false;
	(*p)++;
	if (!take_digits(p, end, 2, &hour))
		return false;
	if (*p < end)
	{
		take_char(p, end, ':');
		if (!take_digits(p, end, 2, &minute))
			return false;
	}
	if (hour > 14 || minute > 59)
		return false;
	*minutes = (hour * 60 + minute) * (west ? -1 : 1);
	return true;
}

/*
 * RFC 3339: YYYY-MM-DD, "T" or a space, HH:MM:SS, up to six digits of a
 * second, a zone.  Leap seconds and 24:00 are left to the input function.
 */
static bool
plain_timestamptz(const SpineField *field, TimestampTz *result)
{
	const char *p = field->text;
	const char *end = p + field->len;
	int			year,
				month,
				day,
				hour,
				minute,
				second,
				zone_minutes;
	int64		usec = 0;

	if (!take_digits(&p, end, 4, &year) || !take_char(&p, end, '-') ||
		!take_digits(&p, end, 2, &month) || !take_char(&p, end, '-') ||
		!take_digits(&p, end, 2, &day) ||
		!(take_char(&p, end, 'T') || take_char(&p, end, ' ')) ||
		!take_digits(&p, end, 2, &hour) || !take_char(&p, end, ':') ||
		!take_digits(&p, end, 2, &minute) || !take_char(&p, end, ':') ||
		!take_digits(&p, end, 2, &second))
		return false;

	if (take_char(&p, end, '.'))
	{
		int			digits = 0;

		for (; p < end && *p >= '0' && *p <= '9'; p++, digits++)
			usec = usec * 10 + (*p - '0');
		if (digits < 1 || digits > 6)
			return false;
		for (; digits < 6; digits++)
			usec *= 10;
	}
	if (!take_zone(&p, end, &zone_minutes) || p != end)
		return false;

	if (year < 1 || month < 1 || month > 12 || day < 1 ||
		day > day_tab[isleap(year)][month - 1] ||
		hour > 23 || minute > 59 || second > 59)
		return false;

	*result = ((int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE)) * USECS_PER_DAY +
		((hour * 60 + minute - zone_minutes) * INT64CONST(60) + second) * USECS_PER_SEC + usec;
	return true;
}

/* The type's own input function on the field's text. */
static Datum
bind_by_input(const SpineColumn *column, const SpineField *field)
{
	return InputFunctionCall(&column->input->function, server_string(field),
							 column->input->param, column->typmod);
}

/*
 * What jsonb_in leaves behind is a tree of up to 200 times the text, and the caller's
 * context may be that of a whole batch.
 */
static Datum
bind_jsonb(const SpineColumn *column, const SpineField *field)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine jsonb",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	Datum		value = bind_by_input(column, field);

	MemoryContextSwitchTo(old_context);
	value = datumCopy(value, false, -1);
	MemoryContextDelete(context);
	return value;
}

/* A field whose value is a text. */
static Datum
bind_spelled(const SpineColumn *column, const SpineField *field)
{
	int64		number;
	pg_uuid_t  *uuid;
	TimestampTz time;

	switch (column->binding)
	{
		case SPINE_BIND_TEXT:
			return bind_text(field);

		case SPINE_BIND_INT8:
			if (plain_int64(field, &number))
				return Int64GetDatum(number);
			break;

		case SPINE_BIND_INT4:
			if (plain_int64(field, &number) && fits_int4(number))
				return Int32GetDatum((int32) number);
			break;

		case SPINE_BIND_UUID:
			uuid = palloc(sizeof(pg_uuid_t));
			if (plain_uuid(field, uuid))
				return UUIDPGetDatum(uuid);
			break;

		case SPINE_BIND_TIMESTAMPTZ:
			if (plain_timestamptz(field, &time))
				return TimestampTzGetDatum(time);
			break;

		case SPINE_BIND_JSONB:
			return bind_jsonb(column, field);

		case SPINE_BIND_BOOL:
		case SPINE_BIND_FLOAT8:
		case SPINE_BIND_BYTEA:
		case SPINE_BIND_JSON:
		case SPINE_BIND_INPUT:
			break;
	}
	return bind_by_input(column, field);
}

/* --------------------------------------------------------------------------
 * Fields
 * -------------------------------------------------------------------------- */

/* A field that is neither absent nor null. */
static Datum
bind_field(const SpineColumn *column, const SpineField *field)
{
	SpineBinding binding = column->binding;
	char		buf[SPINE_FIELD_TEXT_ROOM];
	SpineField	spelled;

	switch (field->kind)
	{
		case SPINE_FIELD_NUMERIC:
		case SPINE_FIELD_TEXT:
		case SPINE_FIELD_JSON:
			return bind_spelled(column, field);

		case SPINE_FIELD_BOOL:
			if (binding == SPINE_BIND_BOOL)
				return BoolGetDatum(field->boolean);
			break;

		case SPINE_FIELD_INT64:
			if (binding == SPINE_BIND_INT8)
				return Int64GetDatum(field->int64);
			if (binding == SPINE_BIND_INT4 && fits_int4(field->int64))
				return Int32GetDatum((int32) field->int64);
			break;

		case SPINE_FIELD_DOUBLE:
			if (binding == SPINE_BIND_FLOAT8)
				return Float8GetDatum(field->float64);
			break;

		case SPINE_FIELD_BYTES:
			if (binding == SPINE_BIND_BYTEA)
				return PointerGetDatum(cstring_to_text_with_len((const char *) field->bytes, field->len));
			break;

		case SPINE_FIELD_TIMESTAMP:
			if (binding == SPINE_BIND_TIMESTAMPTZ)
				return TimestampTzGetDatum(spine_field_time(field));
			break;

		case SPINE_FIELD_UUID:
			if (binding == SPINE_BIND_UUID)
				return UUIDPGetDatum(memcpy(palloc(UUID_LEN), field->bytes, UUID_LEN));
			break;

		case SPINE_FIELD_ABSENT:
		case SPINE_FIELD_NULL:
			pg_unreachable();
	}
	spelled = spine_field_text(field, buf);
	return bind_spelled(column, &spelled);
}

/* A field that is not one of the record's value. */
static SpineField
record_field(SpineSource source, const SpineRecord *record)
{
	SpineField	null = {.kind = SPINE_FIELD_NULL, .text = ""};
	TimestampTz time;

	switch (source)
	{
		case SPINE_FROM_PARTITION:
			return (SpineField) {.kind = SPINE_FIELD_INT64, .int64 = record->partition};

		case SPINE_FROM_OFFSET:
			return (SpineField) {.kind = SPINE_FIELD_INT64, .int64 = record->offset};

		case SPINE_FROM_KEY:
			if (record->key == NULL)
				return null;
			return (SpineField) {
				.kind = SPINE_FIELD_TEXT,
				.len = record->key_len,
				.text = record->key
			};

		case SPINE_FROM_TIMESTAMP:
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

		case SPINE_FROM_FIELD:
			break;
	}
	pg_unreachable();
}

/* For columns that do not take a field: the decoder has checked the fields. */
static void
check_jsonb_memory(const SpineColumn *column, const SpineField *field)
{
	if (field->kind == SPINE_FIELD_TEXT &&
		spine_json_memory(field->text, field->len) > column->max_jsonb_memory)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("jsonb of the record's key would take more memory to make than spine.max_record_memory allows")));
}

Datum
spine_bind_value(const SpineColumn *column, const SpineEvent *event,
				 bool *isnull, bool *missing)
{
	SpineField	origin;
	const SpineField *field = &origin;
	Datum		value = (Datum) 0;

	if (column->source == SPINE_FROM_FIELD)
		field = &event->fields[column->field];
	else
		origin = record_field(column->source, event->record);

	*missing = field->kind == SPINE_FIELD_ABSENT;
	*isnull = *missing || field->kind == SPINE_FIELD_NULL;
	if (!*isnull)
	{
		if (column->max_jsonb_memory > 0)
			check_jsonb_memory(column, field);
		value = bind_field(column, field);
	}

	/* what becomes of a column without a value is up to the statement, which checks it */
	if (OidIsValid(column->input->domain) && !*missing)
		domain_check(value, *isnull, column->input->domain, &column->input->domain_checks,
					 column->input->context);
	return value;
}

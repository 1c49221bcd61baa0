/*
 * bind.c
 *		Turns a field into a Datum of its column's type.
 *
 * The value is the one that json_populate_record makes: mostly what the type's input
 * function makes of the field's text.  The fast paths only recognise the kinds and the
 * plain spellings that nearly every record uses.  A value that does not fit raises the
 * input function's error, and the search finds the record.
 */
#include "apply/bind.h"

#include "apply/field_text.h"
#include "apply/reading.h"
#include "apply/record_field.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "event/decimal.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* --------------------------------------------------------------------------
 * Plain spellings
 * -------------------------------------------------------------------------- */

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

/* --------------------------------------------------------------------------
 * PostgreSQL's own ways
 * -------------------------------------------------------------------------- */

/* The type's own input function. */
static Datum
bind_by_input(const SpineColumn *column, const SpineField *field)
{
	return InputFunctionCall(&column->input->function, spine_field_string(field),
							 column->input->param, column->typmod);
}

/* A string as JSON. */
static char *
quote(const SpineField *field)
{
	StringInfoData json;

	initStringInfo(&json);
	escape_json(&json, spine_field_string(field));
	return json.data;
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
	char	   *json = field->kind == SPINE_FIELD_TEXT ? quote(field) : spine_field_string(field);
	Datum		value = InputFunctionCall(&column->input->function, json, column->input->param,
										  column->typmod);

	MemoryContextSwitchTo(old_context);
	value = datumCopy(value, false, -1);
	MemoryContextDelete(context);
	return value;
}

static Datum
bind_json(const SpineColumn *column, const SpineField *field)
{
	if (field->kind == SPINE_FIELD_TEXT)
		return CStringGetTextDatum(quote(field));
	return bind_by_input(column, field);
}

/* A string is what the type's input function makes of it, such as '{1,2}'. */
static Datum
bind_nested(const SpineColumn *column, const SpineField *field, bool *isnull)
{
	if (field->kind == SPINE_FIELD_TEXT)
		return bind_by_input(column, field);
	return spine_populate_value(column->populate, spine_field_string(field), isnull);
}

/* --------------------------------------------------------------------------
 * Numbers
 * -------------------------------------------------------------------------- */

/* 5.0 and 1e6 are integers, which the input functions do not know. */
static Datum
bind_integer(const SpineColumn *column, const SpineField *field)
{
	int64		value;

	switch (spine_decimal_read(field->text, field->len, 0, &value))
	{
		case SPINE_DECIMAL_EXACT:
			if (column->base_type == INT8OID)
				return Int64GetDatum(value);
			if (column->base_type == INT4OID && fits_int4(value))
				return Int32GetDatum((int32) value);
			if (column->base_type == INT2OID && value >= PG_INT16_MIN && value <= PG_INT16_MAX)
				return Int16GetDatum((int16) value);
			break;

		case SPINE_DECIMAL_BEYOND:
			break;

		case SPINE_DECIMAL_ROUNDED:
		case SPINE_DECIMAL_NONE:
			return bind_by_input(column, field);
	}
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("value \"%s\" is out of range for type %s", spine_field_string(field),
					format_type_be(column->base_type))));
}

static Datum
bind_number(const SpineColumn *column, const SpineField *field)
{
	switch (column->base_type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return bind_integer(column, field);

		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
			/* 1731011215 would be a day of the year 173101 */
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
					 errmsg("number %s is not of type %s", spine_field_string(field),
							format_type_be(column->base_type)),
					 errhint("Say how to read it: \"as\" in the mapping is \"epoch_s\", \"epoch_ms\", \"epoch_us\" or \"days\".")));

		default:
			return bind_by_input(column, field);
	}
}

/* --------------------------------------------------------------------------
 * Fields
 * -------------------------------------------------------------------------- */

/* A field whose value is a text: a string, a number, or JSON. */
static Datum
bind_spelled(const SpineColumn *column, const SpineField *field, bool *isnull)
{
	bool		is_string = field->kind == SPINE_FIELD_TEXT;
	int64		number;
	pg_uuid_t  *uuid;
	TimestampTz time;

	switch (column->binding)
	{
		case SPINE_BIND_TEXT:
			return spine_server_text(field->text, field->len);

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
			if (is_string && plain_timestamptz(field, &time))
				return TimestampTzGetDatum(time);
			break;

		case SPINE_BIND_JSON:
			return bind_json(column, field);

		case SPINE_BIND_JSONB:
			return bind_jsonb(column, field);

		case SPINE_BIND_NESTED:
			return bind_nested(column, field, isnull);

		case SPINE_BIND_BOOL:
		case SPINE_BIND_FLOAT8:
		case SPINE_BIND_BYTEA:
		case SPINE_BIND_INPUT:
			break;
	}
	return field->kind == SPINE_FIELD_NUMERIC ? bind_number(column, field) : bind_by_input(column, field);
}

/* False: the field's kind is not that of the column. */
static bool
bind_directly(const SpineColumn *column, const SpineField *field, Datum *value)
{
	SpineBinding binding = column->binding;

	if (field->kind == SPINE_FIELD_BOOL && binding == SPINE_BIND_BOOL)
		*value = BoolGetDatum(field->boolean);
	else if (field->kind == SPINE_FIELD_INT64 && binding == SPINE_BIND_INT8)
		*value = Int64GetDatum(field->int64);
	else if (field->kind == SPINE_FIELD_INT64 && binding == SPINE_BIND_INT4 && fits_int4(field->int64))
		*value = Int32GetDatum((int32) field->int64);
	else if (field->kind == SPINE_FIELD_DOUBLE && binding == SPINE_BIND_FLOAT8)
		*value = Float8GetDatum(field->float64);
	else if (field->kind == SPINE_FIELD_BYTES && binding == SPINE_BIND_BYTEA)
		*value = PointerGetDatum(cstring_to_text_with_len((const char *) field->bytes, field->len));
	else if (field->kind == SPINE_FIELD_TIMESTAMP && binding == SPINE_BIND_TIMESTAMPTZ)
		*value = TimestampTzGetDatum(spine_field_time(field));
	else if (field->kind == SPINE_FIELD_UUID && binding == SPINE_BIND_UUID)
		*value = UUIDPGetDatum(memcpy(palloc(UUID_LEN), field->bytes, UUID_LEN));
	else
		return false;
	return true;
}

/* A field that is neither absent nor null. */
static Datum
bind_field(const SpineColumn *column, const SpineField *field, bool *isnull)
{
	char		buf[SPINE_FIELD_TEXT_ROOM];
	SpineField	spelled;
	Datum		value;

	if (field->kind != SPINE_FIELD_NUMERIC && field->kind != SPINE_FIELD_TEXT &&
		field->kind != SPINE_FIELD_JSON)
	{
		if (column->reading == SPINE_READ_PLAINLY && bind_directly(column, field, &value))
			return value;
		spelled = spine_field_text(field, buf);
		field = &spelled;
	}
	if (column->reading != SPINE_READ_PLAINLY)
		return spine_reading_bind(column, field);
	return bind_spelled(column, field, isnull);
}

/* A record that has nothing of what its sink asks for is of another kind. */
static void
check_asked(const SpineAsked *asked, const SpineEvent *event)
{
	for (int i = 0; i < asked->n; i++)
	{
		if (event->fields[asked->fields[i]].kind != SPINE_FIELD_ABSENT)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_SQL_JSON_MEMBER_NOT_FOUND),
			 errmsg("the record has none of the fields that table %s takes from it", asked->table)));
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
		origin = spine_record_field(column, event);

	*missing = field->kind == SPINE_FIELD_ABSENT;
	*isnull = *missing || field->kind == SPINE_FIELD_NULL;
	if (*missing && column->asked)
		check_asked(column->asked, event);
	if (!*isnull)
		value = bind_field(column, field, isnull);
	else if (column->has_given_default)
	{
		value = column->given_default;
		*isnull = *missing = false;
	}

	/* what becomes of a column without a value is up to the statement, which checks it */
	if (OidIsValid(column->input->domain) && !*missing)
		domain_check(value, *isnull, column->input->domain, &column->input->domain_checks,
					 column->input->context);
	return value;
}

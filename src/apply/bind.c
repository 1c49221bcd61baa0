/*
 * bind.c
 *		Turns the text of a field into a Datum of its column's type.
 *
 * Correctness is the type's input function; the fast paths only recognise the
 * plain spellings that nearly every record uses.  A value that does not fit
 * raises the input function's error, and the batch finds the record.
 */
#include "apply/bind.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "event/json_reader.h"
#include "mb/pg_wchar.h"
#include "apply/record_time.h"
#include "process/settings.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

SpineBinding
spine_choose_binding(Oid base_type, int32 typmod)
{
	/* a length or precision is the input function's to apply */
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
		case NUMERICOID:
			return SPINE_BIND_NUMERIC;
		case JSONOID:
			return SPINE_BIND_JSON;
		case JSONBOID:
			return SPINE_BIND_JSONB;
		default:
			return SPINE_BIND_INPUT;
	}
}

SpineInput *
spine_make_input(Oid type, Oid base_type, MemoryContext context)
{
	SpineInput *input = MemoryContextAllocZero(context, sizeof(SpineInput));
	Oid			function;

	getTypeInputInfo(base_type, &function, &input->param);
	fmgr_info_cxt(function, &input->function, context);
	input->domain = type == base_type ? InvalidOid : type;
	input->context = context;
	return input;
}

bool
spine_binding_wants_json(SpineBinding binding)
{
	return binding == SPINE_BIND_JSON || binding == SPINE_BIND_JSONB;
}

/*
 * A field's text as a C string in the server's encoding.  Raises an error for
 * bytes that are not valid UTF-8, a NUL among them, or that the server's
 * encoding cannot represent.
 */
static char *
server_string(const SpineField *field, size_t *len)
{
	char	   *converted;

	/* checks the whole length, and so finds a NUL, when nothing is converted */
	converted = pg_any_to_server(field->text, field->len, PG_UTF8);
	if (converted == field->text)
	{
		*len = field->len;
		return pnstrdup(field->text, field->len);
	}
	*len = strlen(converted);
	return converted;
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
	size_t		len;

	return InputFunctionCall(&column->input->function, server_string(field, &len),
							 column->input->param, column->element_typmod);
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

static Datum
bind_field(const SpineColumn *column, const SpineField *field)
{
	SpineField	text;

	if (field->kind == SPINE_FIELD_BOOL)
	{
		if (column->binding == SPINE_BIND_BOOL)
			return BoolGetDatum(field->boolean);
		text = (SpineField) {.kind = SPINE_FIELD_TEXT, .text = field->boolean ? "true" : "false"};
		text.len = strlen(text.text);
		field = &text;
	}

	switch (column->binding)
	{
		case SPINE_BIND_TEXT:
			return bind_text(field);

		case SPINE_BIND_INT8:
			{
				int64		value;

				if (plain_int64(field, &value))
					return Int64GetDatum(value);
				break;
			}

		case SPINE_BIND_INT4:
			{
				int64		value;

				if (plain_int64(field, &value) && value >= PG_INT32_MIN && value <= PG_INT32_MAX)
					return Int32GetDatum((int32) value);
				break;
			}

		case SPINE_BIND_UUID:
			{
				pg_uuid_t  *value = palloc(sizeof(pg_uuid_t));

				if (plain_uuid(field, value))
					return UUIDPGetDatum(value);
				break;
			}

		case SPINE_BIND_TIMESTAMPTZ:
			{
				TimestampTz value;

				if (plain_timestamptz(field, &value))
					return TimestampTzGetDatum(value);
				break;
			}

		case SPINE_BIND_BOOL:
		case SPINE_BIND_FLOAT8:
		case SPINE_BIND_NUMERIC:
		case SPINE_BIND_JSON:
		case SPINE_BIND_INPUT:
			break;

		case SPINE_BIND_JSONB:
			return bind_jsonb(column, field);
	}
	return bind_by_input(column, field);
}

/* Text of a value that does not come from the record's JSON. */
static SpineField
origin_field(SpineSource source, const SpineRecord *record, char *buf, size_t size)
{
	SpineField	field = {.kind = SPINE_FIELD_NUMERIC, .text = buf};

	switch (source)
	{
		case SPINE_FROM_PARTITION:
			field.len = snprintf(buf, size, "%d", record->partition);
			break;
		case SPINE_FROM_OFFSET:
			field.len = snprintf(buf, size, INT64_FORMAT, record->offset);
			break;
		case SPINE_FROM_KEY:
			if (record->key == NULL)
				field.kind = SPINE_FIELD_NULL;
			else
			{
				field.kind = SPINE_FIELD_TEXT;
				field.text = record->key;
				field.len = record->key_len;
			}
			break;
		case SPINE_FROM_TIMESTAMP:
			if (record->timestamp_ms < 0)
				field.kind = SPINE_FIELD_NULL;
			else
			{
				TimestampTz time;

				if (!spine_record_time(record, &time))
					ereport(ERROR,
							(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
							 errmsg("timestamp of the record is out of range")));
				field.kind = SPINE_FIELD_TEXT;
				field.len = strlcpy(buf, timestamptz_to_str(time), size);
			}
			break;
		case SPINE_FROM_FIELD:
			pg_unreachable();
	}
	return field;
}

/* Partition and offset in columns of their own types. */
static bool
bind_place(const SpineColumn *column, const SpineRecord *record, Datum *value)
{
	if (OidIsValid(column->input->domain))
		return false;
	if (column->source == SPINE_FROM_PARTITION && column->binding == SPINE_BIND_INT4)
		*value = Int32GetDatum(record->partition);
	else if (column->source == SPINE_FROM_OFFSET && column->binding == SPINE_BIND_INT8)
		*value = Int64GetDatum(record->offset);
	else
		return false;
	return true;
}

Datum
spine_bind_value(const SpineColumn *column, const SpineEvent *event,
				 bool *isnull, bool *missing)
{
	char		buf[MAXDATELEN + 1];
	SpineField	origin;
	const SpineField *field = &origin;
	Datum		value = (Datum) 0;

	if (column->source == SPINE_FROM_FIELD)
		field = &event->fields[column->field];
	else if (bind_place(column, event->record, &value))
	{
		*missing = *isnull = false;
		return value;
	}
	else
		origin = origin_field(column->source, event->record, buf, sizeof(buf));

	*missing = field->kind == SPINE_FIELD_ABSENT;
	*isnull = *missing || field->kind == SPINE_FIELD_NULL;

	/* of fields decoding has counted it */
	if (!*isnull && column->source == SPINE_FROM_KEY && column->binding == SPINE_BIND_JSONB &&
		spine_json_memory(field->text, field->len) > (size_t) spine_max_record_memory_kb * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("jsonb of the record's key would take more memory to make than spine.max_record_memory allows")));
	if (!*isnull)
		value = bind_field(column, field);

	/* where the default applies, SQL checks that */
	if (OidIsValid(column->input->domain) && !(*missing && column->default_expr))
		domain_check(value, *isnull, column->input->domain, &column->input->domain_checks,
					 column->input->context);
	return value;
}

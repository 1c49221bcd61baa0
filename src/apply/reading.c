/*
 * reading.c
 *		Reads times as numbers, and bytes as text, exactly.
 */
#include "apply/reading.h"

#include "apply/field_text.h"
#include "apply/record_time.h"
#include "catalog/mapping.h"
#include "catalog/pg_type.h"
#include "event/decimal.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

static bool
can_hold(SpineReading reading, Oid base_type)
{
	switch (reading)
	{
		case SPINE_READ_EPOCH_S:
		case SPINE_READ_EPOCH_MS:
		case SPINE_READ_EPOCH_US:
			return base_type == TIMESTAMPTZOID || base_type == TIMESTAMPOID || base_type == DATEOID;
		case SPINE_READ_DAYS:
			return base_type == DATEOID;
		case SPINE_READ_BASE64:
		case SPINE_READ_HEX:
			return base_type == BYTEAOID;
		case SPINE_READ_PLAINLY:
			break;
	}
	return true;
}

static const char *
holders(SpineReading reading)
{
	switch (reading)
	{
		case SPINE_READ_BASE64:
		case SPINE_READ_HEX:
			return "bytea";
		case SPINE_READ_DAYS:
			return "date";
		default:
			return "timestamptz, timestamp or date";
	}
}

void
spine_reading_check(const SpineColumn *column)
{
	if (!can_hold(column->reading, column->base_type))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of type %s cannot be read as \"%s\"", column->name,
						format_type_be(column->base_type), spine_reading_name(column->reading)),
				 errhint("That is for columns of type %s.", holders(column->reading))));
}

pg_noreturn static void
refuse(const SpineColumn *column, const SpineField *field)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("value \"%s\" cannot be read as \"%s\"", spine_field_string(field),
					spine_reading_name(column->reading))));
}

pg_noreturn static void
refuse_range(const SpineColumn *column, const SpineField *field)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("value \"%s\", read as \"%s\", is out of range for type %s", spine_field_string(field),
					spine_reading_name(column->reading), format_type_be(column->base_type))));
}

/* The number times ten to the power of `shift`; perhaps rounded. */
static int64
read_number(const SpineColumn *column, const SpineField *field, int shift, SpineDecimal *outcome)
{
	int64		value;

	*outcome = SPINE_DECIMAL_NONE;
	if (field->kind == SPINE_FIELD_NUMERIC || field->kind == SPINE_FIELD_TEXT)
		*outcome = spine_decimal_read(field->text, field->len, shift, &value);
	if (*outcome == SPINE_DECIMAL_NONE)
		refuse(column, field);
	if (*outcome == SPINE_DECIMAL_BEYOND)
		refuse_range(column, field);
	return value;
}

static Datum
read_days(const SpineColumn *column, const SpineField *field)
{
	SpineDecimal outcome;
	int64		days = read_number(column, field, 0, &outcome);

	if (outcome != SPINE_DECIMAL_EXACT)
		refuse(column, field);
	if (pg_sub_s64_overflow(days, POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE, &days) ||
		!IS_VALID_DATE(days))
		refuse_range(column, field);
	return DateADTGetDatum((DateADT) days);
}

static Datum
read_epoch(const SpineColumn *column, const SpineField *field, int shift)
{
	SpineDecimal outcome;
	TimestampTz time;
	int64		days;

	if (!spine_unix_time(read_number(column, field, shift, &outcome), &time))
		refuse_range(column, field);

	/* both kinds of timestamp count in UTC here */
	if (column->base_type != DATEOID)
		return column->typmod < 0 ? TimestampTzGetDatum(time) :
			DirectFunctionCall2(timestamp_scale, TimestampGetDatum(time), Int32GetDatum(column->typmod));
	days = time / USECS_PER_DAY - (time % USECS_PER_DAY < 0);
	return DateADTGetDatum((DateADT) days);
}

static Datum
read_bytes(const SpineColumn *column, const SpineField *field, const char *encoding)
{
	if (field->kind != SPINE_FIELD_TEXT)
		refuse(column, field);
	return DirectFunctionCall2(binary_decode,
							   PointerGetDatum(cstring_to_text_with_len(field->text, field->len)),
							   CStringGetTextDatum(encoding));
}

Datum
spine_reading_bind(const SpineColumn *column, const SpineField *field)
{
	switch (column->reading)
	{
		case SPINE_READ_EPOCH_S:
			return read_epoch(column, field, 6);
		case SPINE_READ_EPOCH_MS:
			return read_epoch(column, field, 3);
		case SPINE_READ_EPOCH_US:
			return read_epoch(column, field, 0);
		case SPINE_READ_DAYS:
			return read_days(column, field);
		case SPINE_READ_BASE64:
			return read_bytes(column, field, "base64");
		case SPINE_READ_HEX:
			return read_bytes(column, field, "hex");
		case SPINE_READ_PLAINLY:
			break;
	}
	pg_unreachable();
}

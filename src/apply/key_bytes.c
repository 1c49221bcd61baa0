/*
 * key_bytes.c
 *		Makes bytes of the values of a key.
 */
#include "apply/key_bytes.h"

#include "catalog/pg_type.h"
#include "port/pg_bswap.h"

/* The most significant byte first, and the negative numbers before the others. */
void
spine_key_append_int64(StringInfo bytes, int64 value)
{
	uint64		number = pg_hton64((uint64) value ^ (UINT64CONST(1) << 63));

	appendBinaryStringInfo(bytes, (const char *) &number, sizeof(number));
}

void
spine_key_append(StringInfo bytes, const SpineColumn *column, Datum value)
{
	Assert(column->equal_if_same_bytes);
	switch (column->base_type)
	{
		case BOOLOID:
			spine_key_append_int64(bytes, DatumGetBool(value));
			break;
		case INT4OID:
			spine_key_append_int64(bytes, DatumGetInt32(value));
			break;
		case INT8OID:
		case TIMESTAMPTZOID:
			spine_key_append_int64(bytes, DatumGetInt64(value));
			break;
		case UUIDOID:
			appendBinaryStringInfo(bytes, DatumGetPointer(value), column->len);
			break;
		default:
			{
				const struct varlena *text = (const struct varlena *) DatumGetPointer(value);

				/* no text has a NUL, which so ends it */
				appendBinaryStringInfo(bytes, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
				appendStringInfoCharMacro(bytes, '\0');
			}
			break;
	}
}

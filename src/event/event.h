/*
 * event.h
 *		A decoded record: an operation and typed fields.
 *
 * Formats make events.  What comes after a format does not know which one it was.
 */
#ifndef SPINE_EVENT_H
#define SPINE_EVENT_H

#include "event/record.h"

/* What a field turned out to be, and which member of SpineField holds its value. */
typedef enum SpineFieldKind
{
	SPINE_FIELD_ABSENT,			/* the record does not have the field */
	SPINE_FIELD_NULL,
	SPINE_FIELD_BOOL,			/* boolean */
	SPINE_FIELD_INT64,			/* int64 */
	SPINE_FIELD_DOUBLE,			/* float64 */
	SPINE_FIELD_NUMERIC,		/* text: a decimal number, spelled as in the record */
	SPINE_FIELD_TEXT,			/* text */
	SPINE_FIELD_BYTES,			/* bytes */
	SPINE_FIELD_JSON,			/* text: one JSON value, spelled as in the record */
	SPINE_FIELD_TIMESTAMP,		/* unix_us */
	SPINE_FIELD_UUID			/* bytes: 16 of them */
} SpineFieldKind;

/*
 * Texts and bytes belong to the record or to the decoder, and last until the record is
 * released or the decoder is reset.  A text is UTF-8; it is not NUL-terminated, and it
 * may contain NUL bytes.
 */
typedef struct SpineField
{
	SpineFieldKind kind;
	uint32_t	len;			/* of text and bytes, otherwise 0 */
	union
	{
		const char *text;		/* "" for ABSENT and NULL */
		const uint8_t *bytes;
		int64_t		int64;
		double		float64;
		int64_t		unix_us;	/* microseconds since 1970-01-01 00:00:00 UTC */
		bool		boolean;
	};
} SpineField;

typedef enum SpineOperation
{
	SPINE_OPERATION_UPSERT,
	SPINE_OPERATION_DELETE
} SpineOperation;

typedef struct SpineEvent
{
	SpineOperation operation;
	const SpineRecord *record;
	const SpineField *fields;	/* in the order of the specs that were compiled */
} SpineEvent;

#endif							/* SPINE_EVENT_H */

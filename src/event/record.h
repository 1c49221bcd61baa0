/*
 * record.h
 *		One message of the log, and one decoded field of it: the plain structs
 *		that the steps of an event's way hand on to each other.
 *
 * Includes neither PostgreSQL nor librdkafka, so that the pure steps (decode,
 * reduce, generate) can be built, tested and fuzzed alone.
 */
#ifndef SPINE_RECORD_H
#define SPINE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SpineRecord SpineRecord;

/* One header of a record. */
typedef struct SpineHeader
{
	const char *name;			/* NUL-terminated */
	const void *value;			/* NULL: the header has no value */
	size_t		value_len;
} SpineHeader;

/* What only the source of a record can do. */
typedef struct SpineRecordSource
{
	/* Header number i, from 0; false past the last. */
	bool		(*header) (const SpineRecord *record, size_t i, SpineHeader *header);

	/* Frees the record's bytes: its key, value and headers are gone. */
	void		(*release) (SpineRecord *record);
} SpineRecordSource;

/* One message of the log.  All pointers are the source's, until it is released. */
struct SpineRecord
{
	const char *topic;
	int32_t		partition;
	int64_t		offset;
	int64_t		timestamp_ms;	/* milliseconds since 1970, -1: none */
	const void *key;			/* NULL: the record has no key */
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	size_t		size;			/* of all this with its headers, about */
	const SpineRecordSource *source;
	void	   *object;			/* the source's */
};

/* What a field of a JSON object turned out to be. */
typedef enum SpineFieldKind
{
	SPINE_FIELD_MISSING,		/* the object has no such key */
	SPINE_FIELD_NULL,
	SPINE_FIELD_BOOLEAN,		/* text is "true" or "false" */
	SPINE_FIELD_NUMBER,			/* text is a JSON number, as the record spells it */
	SPINE_FIELD_STRING,			/* text is the string itself, unescaped UTF-8 */
	SPINE_FIELD_ESCAPED,		/* still with its escapes: see spine_unescape */
	SPINE_FIELD_JSON			/* text is JSON, as the record spells it: an object
								 * or array, or any value asked for as JSON */
} SpineFieldKind;

/* A field's text is not NUL-terminated, and a string may contain NUL bytes. */
typedef struct SpineField
{
	SpineFieldKind kind;
	uint32_t	len;
	const char *text;
} SpineField;

#endif							/* SPINE_RECORD_H */

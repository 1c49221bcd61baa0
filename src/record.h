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

/*
 * A record as the broker gave it.  All pointers belong to `message` (the
 * client library's object) and live as long as that does.
 */
typedef struct SpineRecord
{
	int32_t		partition;
	int64_t		offset;
	int64_t		timestamp_ms;	/* milliseconds since 1970, -1: none */
	const void *key;			/* NULL: the record has no key */
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	size_t		size;			/* with its headers, about */
	void	   *message;
} SpineRecord;

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

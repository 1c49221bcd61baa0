/*
 * decode.h
 *		Bytes of a record to fields.
 */
#ifndef SPINE_DECODE_H
#define SPINE_DECODE_H

#include "event/record.h"

/* One field to take from each record. */
typedef struct SpineFieldSpec
{
	const char *json_key;		/* UTF-8, NUL-terminated */
	bool		as_json;		/* give any value but null as JSON text */
	bool		for_jsonb;		/* jsonb is made of it: what that takes counts */

	/* set by spine_index_specs */
	size_t		key_len;
	int			by_key;			/* of specs[i]: the i-th in the order of keys */
	int			same_key;		/* the next with the same key, round in a circle */
} SpineFieldSpec;

typedef enum SpineDecodeOutcome
{
	SPINE_DECODED,
	SPINE_NO_VALUE,				/* a tombstone */
	SPINE_NOT_JSON,				/* not one JSON object in UTF-8 (RFC 8259) */
	SPINE_BEYOND_LIMIT			/* a valid one, maybe, but too much */
} SpineDecodeOutcome;

/* To be called once when the specs are complete, before spine_decode. */
extern void spine_index_specs(SpineFieldSpec *specs, int nspecs);

/*
 * Decodes one JSON object into fields[0..nspecs-1], in the order of specs.  The
 * texts of fields are the record's own bytes; nothing is allocated.  Strings with
 * escapes are left as they are, SPINE_FIELD_ESCAPED, for spine_unescape.
 *
 * max_memory: the most bytes that PostgreSQL may need, about, to make jsonb of the
 * fields that it is made of.
 *
 * Anything but SPINE_DECODED comes with a reason in plain words.
 */
extern SpineDecodeOutcome spine_decode(const void *value, size_t value_len,
									   const SpineFieldSpec *specs, int nspecs,
									   size_t max_memory, SpineField *fields,
									   char *reason, size_t reason_size);

/*
 * Makes a SPINE_FIELD_ESCAPED the SPINE_FIELD_STRING that it stands for.  `room` has
 * the field's len bytes, of which its text is then a part.
 */
extern void spine_unescape(SpineField *field, char *room);

/*
 * What PostgreSQL may need, about, to make jsonb of a text that is no part of a record's
 * JSON; SIZE_MAX where that cannot be said.
 */
extern size_t spine_jsonb_memory(const void *text, size_t len);

#endif							/* SPINE_DECODE_H */

/*
 * format.h
 *		How the bytes of a record are read: a struct of functions per format.
 *
 * To add a format, write format_<name>.c, declare its struct here and enter the struct
 * into the table in format.c.  A format may use malloc, but nothing of PostgreSQL, and it
 * never longjmps.
 */
#ifndef SPINE_FORMAT_H
#define SPINE_FORMAT_H

#include "event/event.h"
#include "event/path.h"

/* A field to take from each record. */
typedef struct SpineFieldSpec
{
	SpinePath	path;
	bool		as_json;		/* deliver any value except null as SPINE_FIELD_JSON */
	bool		for_jsonb;		/* jsonb is made of the field, and max_memory limits that */
} SpineFieldSpec;

typedef enum SpineDecodeOutcome
{
	SPINE_DECODED,
	SPINE_NO_VALUE,				/* a tombstone */
	SPINE_MALFORMED,			/* the bytes are not of this format */
	SPINE_BEYOND_LIMIT,			/* perhaps well-formed, but too large or too deep */
	SPINE_DECODE_NO_MEMORY		/* not the record's fault: try again later */
} SpineDecodeOutcome;

/* The specs, prepared for one format, and the memory of its events.  Each format has its own. */
typedef struct SpineDecoder SpineDecoder;

typedef struct SpineFormat
{
	const char *name;

	/*
	 * Makes a decoder for these fields; NULL if there is no memory.  Copies the specs.
	 * The caller frees the decoder with free().
	 */
	SpineDecoder *(*compile)(const SpineFieldSpec *specs, int nspecs);

	/*
	 * Decodes a record into an event: sets its operation, record and fields.  The fields
	 * are the decoder's, until its reset.
	 *
	 * max_memory: how many bytes, about, PostgreSQL may need to make jsonb of the fields.
	 *
	 * Any outcome except SPINE_DECODED comes with a reason in plain words, and leaves the
	 * event undefined.
	 */
	SpineDecodeOutcome (*decode)(SpineDecoder *decoder, const SpineRecord *record,
								 size_t max_memory, SpineEvent *event,
								 char *reason, size_t reason_size);

	/* Ends all events decoded so far: their memory is used again or given back. */
	void		(*reset)(SpineDecoder *decoder);

	/* Frees the decoder and its events.  Safe on NULL. */
	void		(*free)(SpineDecoder *decoder);
} SpineFormat;

extern const SpineFormat spine_format_json;

/* The format of this name, or NULL. */
extern const SpineFormat *spine_format_find(const char *name);

#endif							/* SPINE_FORMAT_H */

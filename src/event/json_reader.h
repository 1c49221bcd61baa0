/*
 * json_reader.h
 *		JSON (RFC 8259) in one pass: its strings, words and nesting.
 *
 * No tree is built: a tree is up to 260 times as large as its text.  A value stays where
 * the text has it, and a nested value is checked and skipped.
 *
 * A function that returns false has left a complaint in the reader.  What runs for every
 * key or value is inline.
 */
#ifndef SPINE_JSON_READER_H
#define SPINE_JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SpineJsonReader
{
	const char *start;
	const char *at;
	const char *end;
	const char *complaint;		/* about the byte at `at` */
	bool		beyond_limit;	/* the complaint is that there is too much of something */
	bool		has_escapes;	/* the last string had some */
	bool		has_nul;		/* and \u0000 was among them */
	int			depth;			/* objects and arrays around `at` */
	size_t		nested_memory;	/* grows with what is nested; see spine_json_value_memory */
} SpineJsonReader;

typedef enum SpineJsonKind
{
	SPINE_JSON_NULL,
	SPINE_JSON_BOOL,
	SPINE_JSON_NUMBER,
	SPINE_JSON_STRING,
	SPINE_JSON_NESTED			/* an object or an array */
} SpineJsonKind;

/* A value as the text spells it; a string without its quotes. */
typedef struct SpineJsonValue
{
	SpineJsonKind kind;
	bool		has_escapes;	/* of a string: spine_json_unescape resolves them */
	const char *text;
	size_t		len;
} SpineJsonValue;

/*
 * What PostgreSQL allocates while it makes jsonb of JSON text, about: measured for each
 * kind of value, with its doubling arrays at their worst.  Its tree is up to 220 times as
 * large as the text; test/t/026_big_records.pl measures the whole.
 */
#define SPINE_JSON_OBJECT_COST	720
#define SPINE_JSON_ARRAY_COST	320
#define SPINE_JSON_KEY_COST		120
#define SPINE_JSON_SCALAR_COST	140
#define SPINE_JSON_BYTE_COST	4

/* Leaves a complaint; returns false. */
extern bool spine_json_complain(SpineJsonReader *reader, const char *complaint);

/* Writes the complaint and where it is; the first byte is byte 1. */
extern void spine_json_describe(const SpineJsonReader *reader, char *reason, size_t reason_size);

/* Reads a string; `at` is at its opening quote. */
extern bool spine_json_read_string(SpineJsonReader *reader);

/* Reads a number, true, false or null; `first` is its first byte. */
extern bool spine_json_read_word(SpineJsonReader *reader, char first, SpineJsonValue *value);

/* Reads an object or an array with everything in it. */
extern bool spine_json_read_nested(SpineJsonReader *reader);

/* Goes into the object or array whose first byte is at `at`; spine_json_close leaves it. */
extern bool spine_json_open(SpineJsonReader *reader);

/*
 * Writes the string with its escapes resolved, which makes it no longer; returns its
 * length.  The string must have been read without a complaint.
 */
extern size_t spine_json_unescape(const SpineJsonValue *string, char *to);

/* Compares the string with a name, as memcmp does. */
extern int	spine_json_compare(const SpineJsonValue *string, const char *name, size_t name_len);

/*
 * Writes the text as a JSON string, with its quotes; returns its length.  With NULL for `to`,
 * only counts.  SIZE_MAX: the text is not UTF-8.
 */
extern size_t spine_json_write_string(const char *text, size_t len, char *to);

/* Is the text one JSON value, nested not too deep? */
extern bool spine_json_is_valid(const void *text, size_t len);

/*
 * How many bytes PostgreSQL needs, about, to make jsonb of this text; SIZE_MAX if it is
 * nested too deep.  The text may be any bytes.
 */
extern size_t spine_json_memory(const void *text, size_t len);

/* The next byte that is not white space; '\0' at the end. */
static inline char
spine_json_peek(SpineJsonReader *reader)
{
	while (reader->at < reader->end)
	{
		char		c = *reader->at;

		if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
			return c;
		reader->at++;
	}
	return '\0';
}

/* Reads a value that is neither object nor array; `first` is its first byte. */
static inline bool
spine_json_read_scalar(SpineJsonReader *reader, char first, SpineJsonValue *value)
{
	const char *text = reader->at + 1;

	if (first != '"')
		return spine_json_read_word(reader, first, value);
	if (!spine_json_read_string(reader))
		return false;
	value->kind = SPINE_JSON_STRING;
	value->has_escapes = reader->has_escapes;
	value->text = text;
	value->len = (size_t) (reader->at - 1 - text);
	return true;
}

/* Reads any value, and the white space before it. */
static inline bool
spine_json_read_value(SpineJsonReader *reader, SpineJsonValue *value)
{
	char		first = spine_json_peek(reader);
	const char *text = reader->at;

	if (first != '{' && first != '[')
		return spine_json_read_scalar(reader, first, value);
	if (!spine_json_read_nested(reader))
		return false;
	value->kind = SPINE_JSON_NESTED;
	value->text = text;
	value->len = (size_t) (reader->at - text);
	return true;
}

/* Reads the key of a member, and its colon. */
static inline bool
spine_json_read_key(SpineJsonReader *reader, SpineJsonValue *key)
{
	if (spine_json_peek(reader) != '"')
		return spine_json_complain(reader, "no key");
	if (!spine_json_read_scalar(reader, '"', key))
		return false;
	if (spine_json_peek(reader) != ':')
		return spine_json_complain(reader, "no colon after a key");

	/* PostgreSQL cannot hold such a key, and other readers take it for a shorter one */
	if (reader->has_nul)
		return spine_json_complain(reader, "\\u0000 in a key");
	reader->at++;
	return true;
}

/* Reads the comma before the next value or member; `closing` would end the whole. */
static inline bool
spine_json_read_comma(SpineJsonReader *reader, char closing)
{
	if (spine_json_peek(reader) != ',')
		return spine_json_complain(reader, closing == '}' ?
								   "neither a comma nor the end of the object" :
								   "neither a comma nor the end of the array");
	reader->at++;
	if (spine_json_peek(reader) == closing)
		return spine_json_complain(reader, "nothing after a comma");
	return true;
}

/* Leaves an object or array; `at` is at its closing bracket. */
static inline void
spine_json_close(SpineJsonReader *reader)
{
	reader->at++;
	reader->depth--;
}

/*
 * How many bytes PostgreSQL needs, about, to make jsonb of a value.  nested_memory is how much
 * that of the reader has grown since the value began, and len is the length of the value's
 * text, including the quotes of a string.
 */
static inline size_t
spine_json_value_memory(size_t nested_memory, size_t len)
{
	return SPINE_JSON_SCALAR_COST + nested_memory + SPINE_JSON_BYTE_COST * len;
}

#endif							/* SPINE_JSON_READER_H */

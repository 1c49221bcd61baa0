/*
 * decode.c
 *		Bytes of a record to fields, exactly or not at all.
 *
 * json-c builds the tree, but it is more forgiving than RFC 8259 and loses
 * some values: it takes NaN, 'single quotes', -01, control characters and
 * overlong UTF-8; turns a lone surrogate into U+FFFD; cuts a key at \u0000;
 * and clamps integers at 64 bits.  So every token is scanned first, and only
 * bytes whose tokens are all valid, and which json-c keeps exactly, reach it.
 * How tokens may follow each other is left to json-c, which is strict there
 * (test_decode.c tries every short sequence).
 *
 * Depends on json-c alone.  Turning fields into typed values is not done here:
 * what a number or a string means is the target column's affair.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "decode.h"

/* Deep enough for any sensible event; bounds json-c's recursion on output. */
#define MAX_DEPTH			512

/* Shorter integers fit json-c's int64, longer ones may not. */
#define MAX_INT64_DIGITS	18

/*
 * What json-c 0.16 allocates, about, measured.  A record of nothing but {} is
 * 260 times larger as a tree, so that the tree is bounded before it is built,
 * by what PostgreSQL allows a single value.
 */
#define OBJECT_COST			800
#define ARRAY_COST			160
#define SCALAR_COST			100
#define MAX_TREE_COST		((size_t) 1 << 30)

/*
 * json-c counts bytes in int, and the copy with its e0s is up to a ninth
 * longer.  Neither a Kafka client nor a PostgreSQL value gets as far.
 */
#define MAX_RECORD_LEN		((size_t) 1 << 30)

#define OUTPUT_FLAGS		(JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)

struct SpineDecoder
{
	struct json_tokener *tokener;
	struct json_object *root;	/* owns the texts of the last record */
};

typedef struct Scan
{
	const unsigned char *start;
	const unsigned char *at;
	const unsigned char *end;
	const char *complaint;		/* about the byte at `at` */
	size_t		tree_cost;
	bool		nul_in_string;	/* the last string had a \u0000 */

	/*
	 * The record with e0 after each long integer, which makes json-c keep it
	 * as text; NULL while there is none.  Source bytes before `copied` are in
	 * it.
	 */
	char	   *copy;
	size_t		copy_len;
	const unsigned char *copied;
} Scan;

SpineDecoder *
spine_decoder_create(void)
{
	SpineDecoder *decoder = calloc(1, sizeof(SpineDecoder));

	if (decoder == NULL)
		return NULL;
	decoder->tokener = json_tokener_new_ex(MAX_DEPTH);
	if (decoder->tokener == NULL)
	{
		free(decoder);
		return NULL;
	}

	/* not JSON_TOKENER_VALIDATE_UTF8: the scan has done it, and better */
	json_tokener_set_flags(decoder->tokener, JSON_TOKENER_STRICT);
	return decoder;
}

void
spine_decoder_destroy(SpineDecoder *decoder)
{
	if (decoder == NULL)
		return;
	json_object_put(decoder->root);
	json_tokener_free(decoder->tokener);
	free(decoder);
}

static bool
complain(Scan *scan, const char *complaint)
{
	scan->complaint = complaint;
	return false;
}

/* Bytes of the UTF-8 sequence that starts here, or 0 if it is not valid. */
static int
utf8_length(const unsigned char *at, const unsigned char *end)
{
	unsigned char lead = at[0];
	int			len;

	if (lead < 0xC2 || lead > 0xF4)
		return 0;
	len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
	if (end - at < len)
		return 0;
	for (int i = 1; i < len; i++)
	{
		if ((at[i] & 0xC0) != 0x80)
			return 0;
	}

	/* overlong, surrogate or above U+10FFFF: the second byte tells */
	if ((lead == 0xE0 && at[1] < 0xA0) || (lead == 0xED && at[1] > 0x9F) ||
		(lead == 0xF0 && at[1] < 0x90) || (lead == 0xF4 && at[1] > 0x8F))
		return 0;
	return len;
}

/* The UTF-16 unit that a \uXXXX here stands for, or -1 if there is none. */
static int
escaped_unit(const unsigned char *at, const unsigned char *end)
{
	int			unit = 0;

	if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++)
	{
		unsigned char c = at[i];

		if (c >= '0' && c <= '9')
			unit = unit * 16 + (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			unit = unit * 16 + ((c | 0x20) - 'a' + 10);
		else
			return -1;
	}
	return unit;
}

static bool
scan_escape(Scan *scan)
{
	int			unit;

	if (scan->end - scan->at >= 2 && scan->at[1] != '\0' &&
		strchr("\"\\/bfnrt", scan->at[1]) != NULL)
	{
		scan->at += 2;
		return true;
	}

	unit = escaped_unit(scan->at, scan->end);
	if (unit < 0)
		return complain(scan, "invalid escape in a string");
	if (unit == 0)
		scan->nul_in_string = true;
	if (unit >= 0xD800 && unit <= 0xDFFF)
	{
		int			low = escaped_unit(scan->at + 6, scan->end);

		if (unit >= 0xDC00 || low < 0xDC00 || low > 0xDFFF)
			return complain(scan, "half of a surrogate pair in a string");
		scan->at += 6;
	}
	scan->at += 6;
	return true;
}

static bool
scan_string(Scan *scan)
{
	const unsigned char *opening = scan->at++;

	scan->nul_in_string = false;
	while (scan->at < scan->end)
	{
		unsigned char c = *scan->at;

		if (c == '"')
		{
			scan->at++;
			return true;
		}
		else if (c == '\\')
		{
			if (!scan_escape(scan))
				return false;
		}
		else if (c < 0x20)
			return complain(scan, "control character in a string");
		else if (c < 0x80)
			scan->at++;
		else
		{
			int			len = utf8_length(scan->at, scan->end);

			if (len == 0)
				return complain(scan, "invalid UTF-8");
			scan->at += len;
		}
	}
	scan->at = opening;
	return complain(scan, "string without an end");
}

static const unsigned char *
skip_digits(const unsigned char *at, const unsigned char *end)
{
	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at;
}

/* Is the word from `at` to `end` a number?  Counts the digits of an integer. */
static bool
is_number(const unsigned char *at, const unsigned char *end, size_t *int_digits)
{
	const unsigned char *digits;

	*int_digits = 0;
	if (at < end && *at == '-')
		at++;
	digits = at;
	at = skip_digits(at, end);
	if (at == digits || (*digits == '0' && at - digits > 1))
		return false;
	if (at == end)
	{
		*int_digits = at - digits;
		return true;
	}
	if (*at == '.')
	{
		digits = ++at;
		at = skip_digits(at, end);
		if (at == digits)
			return false;
	}
	if (at < end && (*at == 'e' || *at == 'E'))
	{
		at++;
		if (at < end && (*at == '+' || *at == '-'))
			at++;
		digits = at;
		at = skip_digits(at, end);
		if (at == digits)
			return false;
	}
	return at == end;
}

/* Brings the copy up to here, and makes the integer that ends here a float. */
static bool
widen_integer(Scan *scan)
{
	size_t		len = scan->at - scan->copied;

	if (scan->copy == NULL)
	{
		size_t		total = scan->end - scan->start;

		/* each e0 goes with the 19 digits or more before it */
		scan->copy = malloc(total + total / (MAX_INT64_DIGITS + 1) * 2 + 1);
		if (scan->copy == NULL)
			return complain(scan, "out of memory");
	}
	memcpy(scan->copy + scan->copy_len, scan->copied, len);
	memcpy(scan->copy + scan->copy_len + len, "e0", 2);
	scan->copy_len += len + 2;
	scan->copied = scan->at;
	return true;
}

static bool
is_word_byte(unsigned char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
		c == '-' || c == '+' || c == '.';
}

/* A number or a literal name: whatever stands up to the next other byte. */
static bool
scan_word(Scan *scan)
{
	const unsigned char *word = scan->at;
	size_t		len;
	size_t		int_digits;

	while (scan->at < scan->end && is_word_byte(*scan->at))
		scan->at++;
	len = scan->at - word;

	if (is_number(word, scan->at, &int_digits))
		return int_digits <= MAX_INT64_DIGITS || widen_integer(scan);
	if ((len == 4 && memcmp(word, "true", 4) == 0) ||
		(len == 5 && memcmp(word, "false", 5) == 0) ||
		(len == 4 && memcmp(word, "null", 4) == 0))
		return true;

	scan->at = word;
	return complain(scan, len > 0 ? "neither a number nor true, false or null" :
					"unexpected byte");
}

static bool
is_white_space(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool
scan_token(Scan *scan)
{
	switch (*scan->at)
	{
		case ' ':
		case '\t':
		case '\n':
		case '\r':
		case ',':
		case '}':
		case ']':
			scan->at++;
			return true;
		case ':':

			/*
			 * json-c would take the key for a shorter one, and so replace the
			 * value of that one
			 */
			if (scan->nul_in_string)
				return complain(scan, "\\u0000 in a key");
			scan->at++;
			return true;
		case '{':
			scan->tree_cost += OBJECT_COST;
			scan->at++;
			return true;
		case '[':
			scan->tree_cost += ARRAY_COST;
			scan->at++;
			return true;
		case '"':
			scan->tree_cost += SCALAR_COST;
			return scan_string(scan);
		default:
			scan->tree_cost += SCALAR_COST;
			return scan_word(scan);
	}
}

static bool
scan_record(Scan *scan)
{
	while (scan->at < scan->end && is_white_space(*scan->at))
		scan->at++;
	if (scan->at == scan->end)
		return complain(scan, "nothing but white space");
	if (*scan->at != '{')
		return complain(scan, "not a JSON object");

	while (scan->at < scan->end)
	{
		if (!scan_token(scan))
			return false;
		if (scan->tree_cost > MAX_TREE_COST)
			return complain(scan, "too many values");
	}

	if (scan->copy != NULL)
	{
		size_t		len = scan->end - scan->copied;

		memcpy(scan->copy + scan->copy_len, scan->copied, len);
		scan->copy_len += len;
	}
	return true;
}

/* Builds the tree from scanned bytes. */
static bool
parse(SpineDecoder *decoder, const Scan *scan, char *reason, size_t reason_size)
{
	const char *text = (const char *) scan->start;
	size_t		len = scan->end - scan->start;
	enum json_tokener_error error;

	if (scan->copy != NULL)
	{
		text = scan->copy;
		len = scan->copy_len;
	}
	json_tokener_reset(decoder->tokener);
	decoder->root = json_tokener_parse_ex(decoder->tokener, text, (int) len);
	if (decoder->root != NULL)
		return true;

	error = json_tokener_get_error(decoder->tokener);
	if (error == json_tokener_continue)
		snprintf(reason, reason_size, "JSON without an end");
	else if (error == json_tokener_success)
		snprintf(reason, reason_size, "out of memory");
	else if (scan->copy != NULL)	/* positions are those of the copy */
		snprintf(reason, reason_size, "%s", json_tokener_error_desc(error));
	else
		snprintf(reason, reason_size, "%s at byte %zu",
				 json_tokener_error_desc(error),
				 json_tokener_get_parse_end(decoder->tokener) + 1);
	return false;
}

/* The value as JSON, in memory of its own; NULL when out of memory. */
static const char *
json_text(struct json_object *value, size_t *len)
{
	const char *text = json_object_to_json_string_length(value, OUTPUT_FLAGS, len);

	/* undo widen_integer; should the e0 be from the source, it says nothing */
	if (text != NULL && json_object_is_type(value, json_type_double) &&
		*len > MAX_INT64_DIGITS + 2 && memcmp(text + *len - 2, "e0", 2) == 0)
		*len -= 2;
	return text;
}

/* Returns false when out of memory. */
static bool
take_field(struct json_object *root, const SpineFieldSpec *spec,
		   SpineField *field)
{
	struct json_object *value;
	const char *text = "";
	size_t		len = 0;

	if (!json_object_object_get_ex(root, spec->json_key, &value))
		field->kind = SPINE_FIELD_MISSING;
	else if (value == NULL)
		field->kind = SPINE_FIELD_NULL;
	else if (spec->as_json)
	{
		field->kind = SPINE_FIELD_JSON;
		text = json_text(value, &len);
	}
	else
	{
		switch (json_object_get_type(value))
		{
			case json_type_boolean:
				field->kind = SPINE_FIELD_BOOLEAN;
				text = json_object_get_boolean(value) ? "true" : "false";
				len = strlen(text);
				break;
			case json_type_int:
			case json_type_double:
				field->kind = SPINE_FIELD_NUMBER;
				text = json_text(value, &len);
				break;
			case json_type_string:
				field->kind = SPINE_FIELD_STRING;
				text = json_object_get_string(value);
				len = json_object_get_string_len(value);
				break;
			default:
				field->kind = SPINE_FIELD_JSON;
				text = json_text(value, &len);
				break;
		}
	}

	field->text = text;
	field->len = (uint32_t) len;
	return text != NULL;
}

/* Positions in reasons count bytes from 1. */
bool
spine_decode(SpineDecoder *decoder, const void *value, size_t value_len,
			 const SpineFieldSpec *specs, int nspecs, SpineField *fields,
			 char *reason, size_t reason_size)
{
	Scan		scan = {.start = value, .at = value, .copied = value};
	bool		ok;

	json_object_put(decoder->root);
	decoder->root = NULL;

	if (value == NULL || value_len == 0)
	{
		snprintf(reason, reason_size, value == NULL ? "tombstone" : "empty value");
		return false;
	}
	if (value_len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, "longer than 1 GB");
		return false;
	}

	scan.end = scan.start + value_len;
	ok = scan_record(&scan);
	if (ok)
		ok = parse(decoder, &scan, reason, reason_size);
	else
		snprintf(reason, reason_size, "%s at byte %zu", scan.complaint,
				 (size_t) (scan.at - scan.start) + 1);
	free(scan.copy);

	for (int i = 0; ok && i < nspecs; i++)
	{
		ok = take_field(decoder->root, &specs[i], &fields[i]);
		if (!ok)
			snprintf(reason, reason_size, "out of memory");
	}
	return ok;
}

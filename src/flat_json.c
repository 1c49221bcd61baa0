/*
 * flat_json.c
 *		One pass over a flat object, without a tree.
 *
 * json-c makes an object on the heap for each value, and text of it again: several
 * times the work, for what lies there in the record already.  But only what is
 * certain is taken here: whatever is unusual is left to decode.c, which says, too,
 * what is wrong with it.
 *
 * Depends on json_scan.c alone; test_decode.c and the fuzzer hold it to what decode.c
 * says.
 */
#include "flat_json.h"

#include <string.h>

#include "json_scan.h"

/* json_scan.c refuses what would be a giant as a tree; short of this, nothing is. */
#define MAX_LEN			((size_t) 1 << 20)

/* Each key is looked for among them one by one. */
#define MAX_SPECS		64

typedef struct Cursor
{
	const char *at;
	const char *end;
} Cursor;

/* The next byte that is no white space; '\0' at the end. */
static char
peek(Cursor *cursor)
{
	while (cursor->at < cursor->end)
	{
		char		c = *cursor->at;

		if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
			return c;
		cursor->at++;
	}
	return '\0';
}

static bool
take_char(Cursor *cursor, char c)
{
	if (peek(cursor) != c)
		return false;
	cursor->at++;
	return true;
}

/* A string without escapes; *text is what is between its quotes. */
static bool
take_string(Cursor *cursor, const char **text, size_t *len)
{
	const char *p;

	if (!take_char(cursor, '"'))
		return false;
	for (p = cursor->at; p < cursor->end && *p != '"';)
	{
		unsigned char c = *p;
		int			n = 1;

		if (c < 0x20 || c == '\\')
			return false;
		if (c >= 0x80)
			n = spine_utf8_length((const unsigned char *) p, (const unsigned char *) cursor->end);
		if (n == 0)
			return false;
		p += n;
	}
	if (p == cursor->end)
		return false;
	*text = cursor->at;
	*len = p - cursor->at;
	cursor->at = p + 1;
	return true;
}

/* An integer that json-c would spell in the same way: no 01, no -0. */
static bool
take_integer(Cursor *cursor, SpineField *field)
{
	const char *start = cursor->at;
	const char *digits = *start == '-' ? start + 1 : start;
	const char *p = digits;

	while (p < cursor->end && *p >= '0' && *p <= '9')
		p++;
	if (p == digits || p - digits > SPINE_MAX_INT64_DIGITS ||
		(*digits == '0' && p - start > 1))
		return false;
	field->kind = SPINE_FIELD_NUMBER;
	field->text = start;
	field->len = p - start;
	cursor->at = p;
	return true;
}

static bool
take_word(Cursor *cursor, const char *word, SpineFieldKind kind, SpineField *field)
{
	size_t		len = strlen(word);

	if ((size_t) (cursor->end - cursor->at) < len || memcmp(cursor->at, word, len) != 0)
		return false;
	field->kind = kind;
	field->text = cursor->at;
	field->len = kind == SPINE_FIELD_NULL ? 0 : len;
	cursor->at += len;
	return true;
}

static bool
take_value(Cursor *cursor, SpineField *field)
{
	size_t		len;

	switch (peek(cursor))
	{
		case '"':
			field->kind = SPINE_FIELD_STRING;
			if (!take_string(cursor, &field->text, &len))
				return false;
			field->len = len;
			return true;
		case 't':
			return take_word(cursor, "true", SPINE_FIELD_BOOLEAN, field);
		case 'f':
			return take_word(cursor, "false", SPINE_FIELD_BOOLEAN, field);
		case 'n':
			return take_word(cursor, "null", SPINE_FIELD_NULL, field);
		case '\0':
			return false;
		default:
			return take_integer(cursor, field);
	}
}

/* The spec of a key, or -1.  Keys mostly come in the order of the specs. */
static int
find_spec(const SpineFieldSpec *specs, int nspecs, int first, const char *key, size_t len)
{
	for (int i = 0; i < nspecs; i++)
	{
		int			spec = first + i < nspecs ? first + i : first + i - nspecs;

		if (strncmp(specs[spec].json_key, key, len) == 0 && specs[spec].json_key[len] == '\0')
			return spec;
	}
	return -1;
}

bool
spine_flat_json(const void *value, size_t value_len, const SpineFieldSpec *specs, int nspecs,
				SpineField *fields)
{
	Cursor		cursor;
	int			next = 0;

	if (value == NULL || value_len > MAX_LEN || nspecs > MAX_SPECS)
		return false;
	cursor.at = value;
	cursor.end = cursor.at + value_len;
	for (int i = 0; i < nspecs; i++)
	{
		if (specs[i].as_json)
			return false;
		fields[i] = (SpineField) {SPINE_FIELD_MISSING, 0, ""};
	}

	if (!take_char(&cursor, '{'))
		return false;
	if (peek(&cursor) != '}')
	{
		do
		{
			SpineField	field;
			const char *key;
			size_t		key_len;
			int			spec;

			if (!take_string(&cursor, &key, &key_len) || !take_char(&cursor, ':') ||
				!take_value(&cursor, &field))
				return false;
			spec = find_spec(specs, nspecs, next, key, key_len);
			if (spec >= 0)
			{
				fields[spec] = field;	/* of a key that comes twice, the last counts */
				next = spec + 1;
			}
		} while (take_char(&cursor, ','));
	}
	return take_char(&cursor, '}') && peek(&cursor) == '\0' && cursor.at == cursor.end;
}

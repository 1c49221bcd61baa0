/*
 * json_reader.c
 *		JSON (RFC 8259) in one pass: its strings, words and nesting.
 *
 * Does not convert numbers: a number is its text.
 */
#include "event/json_reader.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "event/character.h"

/* Levels of objects and arrays; the outermost one is one of them. */
#define MAX_DEPTH			512

#define EVERY_BYTE(c)		(UINT64_C(0x0101010101010101) * (c))

bool
spine_json_complain(SpineJsonReader *reader, const char *complaint)
{
	reader->complaint = reader->at == reader->end ? "JSON without an end" : complaint;
	return false;
}

void
spine_json_describe(const SpineJsonReader *reader, char *reason, size_t reason_size)
{
	if (reader->at == reader->end)
		snprintf(reason, reason_size, "%s", reader->complaint);
	else
		snprintf(reason, reason_size, "%s at byte %zu", reader->complaint,
				 (size_t) (reader->at - reader->start) + 1);
}

/* --------------------------------------------------------------------------
 * Strings
 * -------------------------------------------------------------------------- */

/* The length of the multi-byte UTF-8 sequence that starts at `at`; 0: there is none. */
static int
utf8_length(const char *at, const char *end)
{
	const unsigned char *bytes = (const unsigned char *) at;
	unsigned char lead = bytes[0];
	int			len;

	if (lead < 0xC2 || lead > 0xF4)
		return 0;
	len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
	if (end - at < len)
		return 0;
	for (int i = 1; i < len; i++)
	{
		if ((bytes[i] & 0xC0) != 0x80)
			return 0;
	}

	/* the second byte tells what is overlong, a surrogate or above U+10FFFF */
	if ((lead == 0xE0 && bytes[1] < 0xA0) || (lead == 0xED && bytes[1] > 0x9F) ||
		(lead == 0xF0 && bytes[1] < 0x90) || (lead == 0xF4 && bytes[1] > 0x8F))
		return 0;
	return len;
}

/*
 * The first byte that is a quote, a backslash, a control character or not ASCII.
 * Looks at eight bytes at a time.  A subtraction can borrow from the next higher byte
 * and mark it wrongly, but the lowest marked byte is always right.
 */
static inline const char *
skip_plain(const char *at, const char *end)
{
	for (; end - at >= 8; at += 8)
	{
		uint64_t	bytes;
		uint64_t	marks;

		memcpy(&bytes, at, 8);
		bytes = le64toh(bytes);
		marks = (bytes | (bytes - EVERY_BYTE(0x20)) |
				 ((bytes ^ EVERY_BYTE('"')) - EVERY_BYTE(1)) |
				 ((bytes ^ EVERY_BYTE('\\')) - EVERY_BYTE(1))) & EVERY_BYTE(0x80);
		if (marks != 0)
			return at + __builtin_ctzll(marks) / 8;
	}
	for (; at < end; at++)
	{
		unsigned char c = *at;

		if (c == '"' || c == '\\' || c < 0x20 || c >= 0x80)
			break;
	}
	return at;
}

/* The UTF-16 unit of the \uXXXX that starts at `at`; -1: there is none. */
static int
escaped_unit(const char *at, const char *end)
{
	int			unit = 0;

	if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++)
	{
		int			digit = spine_hex_digit(at[i]);

		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

static bool
read_escape(SpineJsonReader *reader)
{
	const char *at = reader->at;
	int			unit;

	reader->has_escapes = true;
	if (reader->end - at >= 2 && at[1] != '\0' && strchr("\"\\/bfnrt", at[1]) != NULL)
	{
		reader->at += 2;
		return true;
	}

	unit = escaped_unit(at, reader->end);
	if (unit < 0)
		return spine_json_complain(reader, "invalid escape in a string");
	if (unit == 0)
		reader->has_nul = true;
	if (unit >= 0xD800 && unit <= 0xDFFF)
	{
		int			low = escaped_unit(at + 6, reader->end);

		if (unit >= 0xDC00 || low < 0xDC00 || low > 0xDFFF)
			return spine_json_complain(reader, "half of a surrogate pair in a string");
		reader->at += 6;
	}
	reader->at += 6;
	return true;
}

bool
spine_json_read_string(SpineJsonReader *reader)
{
	const char *opening = reader->at++;

	reader->has_escapes = reader->has_nul = false;
	for (;;)
	{
		unsigned char c;

		reader->at = skip_plain(reader->at, reader->end);
		if (reader->at == reader->end)
		{
			reader->at = opening;
			return spine_json_complain(reader, "string without an end");
		}
		c = *reader->at;
		if (c == '"')
		{
			reader->at++;
			return true;
		}
		else if (c == '\\')
		{
			if (!read_escape(reader))
				return false;
		}
		else if (c < 0x20)
			return spine_json_complain(reader, "control character in a string");
		else
		{
			int			len = utf8_length(reader->at, reader->end);

			if (len == 0)
				return spine_json_complain(reader, "invalid UTF-8");
			reader->at += len;
		}
	}
}

/* Writes the character at *at, which may be an escape, as UTF-8; returns its length. */
static int
unescape(const char **at, const char *end, char *to)
{
	static const char *const letters = "bfnrt";
	static const char *const meanings = "\b\f\n\r\t";
	const char *letter;
	unsigned	code;

	if (**at != '\\')
	{
		*to = *(*at)++;
		return 1;
	}
	if ((*at)[1] != 'u')
	{
		letter = strchr(letters, (*at)[1]);
		*to = letter ? meanings[letter - letters] : (*at)[1];
		*at += 2;
		return 1;
	}

	code = (unsigned) escaped_unit(*at, end);
	*at += 6;
	if (code >= 0xD800 && code <= 0xDFFF)
	{
		code = 0x10000 + ((code - 0xD800) << 10) + ((unsigned) escaped_unit(*at, end) - 0xDC00);
		*at += 6;
	}
	return spine_utf8_write(code, to);
}

size_t
spine_json_unescape(const SpineJsonValue *string, char *to)
{
	const char *at = string->text;
	const char *end = at + string->len;
	char	   *start = to;

	while (at < end)
	{
		const char *escape = memchr(at, '\\', end - at);
		size_t		plain = (escape ? escape : end) - at;

		memcpy(to, at, plain);
		at += plain;
		to += plain;
		if (at < end)
			to += unescape(&at, end, to);
	}
	return (size_t) (to - start);
}

size_t
spine_json_write_string(const char *text, size_t len, char *to)
{
	static const char *const letters = "bfnrt";
	static const char *const meanings = "\b\f\n\r\t";
	const char *end = text + len;
	size_t		size = 1;

	if (to)
		to[0] = '"';
	while (text < end)
	{
		unsigned char c = *text;
		char		escape[8];
		const char *piece = text;
		int			text_len = c < 0x80 ? 1 : utf8_length(text, end);
		int			piece_len = text_len;

		if (text_len == 0)
			return SIZE_MAX;
		if (c < 0x20 || c == '"' || c == '\\')
		{
			const char *letter = c != 0 ? strchr(meanings, c) : NULL;

			piece = escape;
			piece_len = c < 0x20 && !letter ? snprintf(escape, sizeof(escape), "\\u%04x", c) :
				snprintf(escape, sizeof(escape), "\\%c", letter ? letters[letter - meanings] : c);
		}
		if (to)
			memcpy(to + size, piece, (size_t) piece_len);
		size += (size_t) piece_len;
		text += text_len;
	}
	if (to)
		to[size] = '"';
	return size + 1;
}

int
spine_json_compare(const SpineJsonValue *string, const char *name, size_t name_len)
{
	const char *at = string->text;
	const char *end = at + string->len;
	size_t		compared = 0;

	if (!string->has_escapes)
	{
		int			order = memcmp(at, name, string->len < name_len ? string->len : name_len);

		return order ? order : (string->len > name_len) - (string->len < name_len);
	}
	while (at < end)
	{
		char		character[4];
		int			len = unescape(&at, end, character);

		for (int i = 0; i < len; i++, compared++)
		{
			unsigned char ours = character[i];

			if (compared == name_len || ours > (unsigned char) name[compared])
				return 1;
			if (ours < (unsigned char) name[compared])
				return -1;
		}
	}
	return compared < name_len ? -1 : 0;
}

/* --------------------------------------------------------------------------
 * Words
 * -------------------------------------------------------------------------- */

static const char *
skip_digits(const char *at, const char *end)
{
	while (at < end && spine_is_digit(*at))
		at++;
	return at;
}

/* The end of the number that starts at `at`; NULL: there is none. */
static const char *
number_end(const char *at, const char *end)
{
	const char *digits;

	if (at < end && *at == '-')
		at++;
	digits = at;
	at = skip_digits(at, end);
	if (at == digits || (*digits == '0' && at - digits > 1))
		return NULL;
	if (at < end && *at == '.')
	{
		digits = ++at;
		at = skip_digits(at, end);
		if (at == digits)
			return NULL;
	}
	if (at < end && (*at | 0x20) == 'e')
	{
		at++;
		if (at < end && (*at == '+' || *at == '-'))
			at++;
		digits = at;
		at = skip_digits(at, end);
		if (at == digits)
			return NULL;
	}
	return at;
}

static const char *
name_end(const char *at, const char *end, const char *name)
{
	size_t		len = strlen(name);

	return (size_t) (end - at) >= len && memcmp(at, name, len) == 0 ? at + len : NULL;
}

/* Does this byte make another word of the number or name before it? */
static bool
is_word_byte(char c)
{
	return spine_is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
		c == '-' || c == '+' || c == '.';
}

bool
spine_json_read_word(SpineJsonReader *reader, char first, SpineJsonValue *value)
{
	const char *word = reader->at;
	const char *end;

	switch (first)
	{
		case 't':
			value->kind = SPINE_JSON_BOOL;
			end = name_end(word, reader->end, "true");
			break;
		case 'f':
			value->kind = SPINE_JSON_BOOL;
			end = name_end(word, reader->end, "false");
			break;
		case 'n':
			value->kind = SPINE_JSON_NULL;
			end = name_end(word, reader->end, "null");
			break;
		default:
			value->kind = SPINE_JSON_NUMBER;
			end = number_end(word, reader->end);
			break;
	}
	if (end == NULL || (end < reader->end && is_word_byte(*end)))
		return spine_json_complain(reader, is_word_byte(first) ?
								   "neither a number nor true, false or null" : "unexpected byte");

	reader->at = end;
	value->text = word;
	value->len = (size_t) (end - word);
	return true;
}

/* --------------------------------------------------------------------------
 * Nesting
 * -------------------------------------------------------------------------- */

bool
spine_json_open(SpineJsonReader *reader)
{
	if (reader->depth == MAX_DEPTH)
	{
		reader->beyond_limit = true;
		return spine_json_complain(reader, "nested deeper than 512 levels");
	}
	reader->nested_memory += *reader->at == '{' ? SPINE_JSON_OBJECT_COST : SPINE_JSON_ARRAY_COST;
	reader->at++;
	reader->depth++;
	return true;
}

bool
spine_json_read_nested(SpineJsonReader *reader)
{
	char		closing[MAX_DEPTH];
	int			depth = 0;

	do
	{
		char		first = spine_json_peek(reader);
		bool		is_open = false;
		SpineJsonValue scalar;
		SpineJsonValue key;

		/* a value begins here */
		if (first == '{' || first == '[')
		{
			if (!spine_json_open(reader))
				return false;
			closing[depth++] = first == '{' ? '}' : ']';
			is_open = spine_json_peek(reader) != closing[depth - 1];
		}
		else if (spine_json_read_scalar(reader, first, &scalar))
			reader->nested_memory += SPINE_JSON_SCALAR_COST;
		else
			return false;

		/* when a value ends, the objects and arrays around it may end as well */
		if (!is_open)
		{
			while (depth > 0 && spine_json_peek(reader) == closing[depth - 1])
			{
				spine_json_close(reader);
				depth--;
			}
			if (depth > 0 && !spine_json_read_comma(reader, closing[depth - 1]))
				return false;
		}
		if (depth > 0 && closing[depth - 1] == '}')
		{
			if (!spine_json_read_key(reader, &key))
				return false;
			reader->nested_memory += SPINE_JSON_KEY_COST;
		}
	} while (depth > 0);
	return true;
}

bool
spine_json_is_valid(const void *text, size_t len)
{
	SpineJsonReader reader = {.start = text, .at = text, .end = (const char *) text + len};
	SpineJsonValue value;

	if (!spine_json_read_value(&reader, &value))
		return false;
	(void) spine_json_peek(&reader);
	return reader.at == reader.end;
}

size_t
spine_json_memory(const void *text, size_t len)
{
	SpineJsonReader reader = {.start = text, .at = text, .end = (const char *) text + len};
	SpineJsonValue value;

	/* PostgreSQL stops, too, where the text is no longer JSON */
	(void) spine_json_read_value(&reader, &value);
	return reader.beyond_limit ? SIZE_MAX : spine_json_value_memory(reader.nested_memory, len);
}

/*
 * json_scan.c
 *		Checks every token of a record.
 *
 * json-c is more forgiving than RFC 8259 and loses some values: it takes NaN,
 * 'single quotes', -01, control characters and overlong UTF-8; turns a lone
 * surrogate into U+FFFD; cuts a key at \u0000; and clamps integers at 64 bits.
 * So only bytes whose tokens are all valid, and which it keeps exactly, reach
 * it.  How tokens may follow each other is left to json-c, but for a comma before
 * a closing bracket (test_decode.c tries every short sequence): json-c has a
 * strict mode, but that of 0.18 refuses every string that is not ASCII.
 */
#include "json_scan.h"

#include <stdlib.h>
#include <string.h>

/*
 * What json-c 0.16 allocates, about, measured.  A record of nothing but {} is
 * 260 times larger as a tree, so that the tree is bounded before it is built,
 * by what PostgreSQL allows a single value.
 */
#define OBJECT_COST			800
#define ARRAY_COST			160
#define SCALAR_COST			100
#define MAX_TREE_COST		((size_t) 1 << 30)

static bool
complain(SpineJsonScan *scan, const char *complaint)
{
	scan->complaint = complaint;
	return false;
}

int
spine_utf8_length(const unsigned char *at, const unsigned char *end)
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
scan_escape(SpineJsonScan *scan)
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
scan_string(SpineJsonScan *scan)
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
			int			len = spine_utf8_length(scan->at, scan->end);

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
widen_integer(SpineJsonScan *scan)
{
	size_t		len = scan->at - scan->copied;

	if (scan->copy == NULL)
	{
		size_t		total = scan->end - scan->start;

		/* each e0 goes with the 19 digits or more before it */
		scan->copy = malloc(total + total / (SPINE_MAX_INT64_DIGITS + 1) * 2 + 1);
		if (scan->copy == NULL)
			return false;		/* without a complaint */
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
scan_word(SpineJsonScan *scan)
{
	const unsigned char *word = scan->at;
	size_t		len;
	size_t		int_digits;

	while (scan->at < scan->end && is_word_byte(*scan->at))
		scan->at++;
	len = scan->at - word;

	if (is_number(word, scan->at, &int_digits))
		return int_digits <= SPINE_MAX_INT64_DIGITS || widen_integer(scan);
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
scan_token(SpineJsonScan *scan)
{
	bool		after_comma = scan->after_comma;

	if (is_white_space(*scan->at))
	{
		scan->at++;
		return true;
	}
	scan->after_comma = *scan->at == ',';
	switch (*scan->at)
	{
		case '}':
		case ']':
			if (after_comma)
				return complain(scan, "nothing after a comma");
			scan->at++;
			return true;
		case ',':
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

bool
spine_json_scan(SpineJsonScan *scan, const void *bytes, size_t len)
{
	scan->start = scan->at = scan->copied = bytes;
	scan->end = scan->start + len;

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
		size_t		rest = scan->end - scan->copied;

		memcpy(scan->copy + scan->copy_len, scan->copied, rest);
		scan->copy_len += rest;
	}
	return true;
}

/*
 * path.c
 *		Parses the paths that a decoder can follow: the members and elements of jsonpath.
 *
 * Takes exactly what the type jsonpath of all supported versions of PostgreSQL takes for such
 * a path.  Where they differ, or where the meaning is not plain, the path is not taken, and
 * PostgreSQL evaluates it: comments, escapes in names without quotes, numbers that are not
 * decimal integers.
 */
#include "event/path.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "event/character.h"

typedef struct PathReader
{
	const char *at;
	char	   *names;			/* free from here */
} PathReader;

/* Not ASCII, or a character that may be in a name without quotes. */
static bool
is_name_byte(char c)
{
	return c != '\0' && strchr("?%$.[]{}()|&!=<>@#,*:-+/\\\" \t\n\r\f", c) == NULL;
}

static char
skip_blanks(PathReader *reader)
{
	reader->at += strspn(reader->at, " \t\n\r\f");
	return *reader->at;
}

/* --------------------------------------------------------------------------
 * Escapes
 * -------------------------------------------------------------------------- */

/* Reads hexadecimal digits, at least min of them and at most max; -1: there are fewer. */
static long
read_hex(PathReader *reader, int min, int max)
{
	long		code = 0;
	int			n = 0;

	for (; n < max; n++, reader->at++)
	{
		int			digit = spine_hex_digit(*reader->at);

		if (digit < 0)
			break;
		code = code * 16 + digit;
	}
	return n < min ? -1 : code;
}

/* Reads \uXXXX or \u{X...}; -1: there is none. */
static long
read_unit(PathReader *reader)
{
	long		code;

	if (reader->at[0] != '\\' || reader->at[1] != 'u')
		return -1;
	reader->at += 2;
	if (*reader->at != '{')
		return read_hex(reader, 4, 4);
	reader->at++;
	code = read_hex(reader, 1, 6);
	return *reader->at++ == '}' ? code : -1;
}

static bool
add_character(PathReader *reader, long code)
{
	/* a name ends with a NUL */
	if (code <= 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
		return false;
	reader->names += spine_utf8_write((uint32_t) code, reader->names);
	return true;
}

/* Reads an escape of a quoted name; `at` is at its backslash. */
static bool
read_escape(PathReader *reader)
{
	static const char letters[] = "bfnrtv";
	static const char meanings[] = "\b\f\n\r\t\v";
	char		c = reader->at[1];
	const char *letter;
	long		code;

	if (c == 'u')
	{
		code = read_unit(reader);
		if (code >= 0xD800 && code <= 0xDBFF)
		{
			long		low = read_unit(reader);

			code = low >= 0xDC00 && low <= 0xDFFF ?
				0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : -1;
		}
		return add_character(reader, code);
	}
	if (c == '\0' || c == '\n')
		return false;
	reader->at += 2;
	if (c == 'x')
		return add_character(reader, read_hex(reader, 2, 2));
	letter = strchr(letters, c);
	*reader->names++ = letter ? meanings[letter - letters] : c;
	return true;
}

/* --------------------------------------------------------------------------
 * Steps
 * -------------------------------------------------------------------------- */

static bool
read_member(PathReader *reader, SpinePathStep *step)
{
	bool		is_quoted = skip_blanks(reader) == '"';

	*step = (SpinePathStep) {.member = reader->names};
	if (is_quoted)
	{
		reader->at++;
		while (*reader->at != '"')
		{
			if (*reader->at == '\0')
				return false;
			if (*reader->at != '\\')
				*reader->names++ = *reader->at++;
			else if (!read_escape(reader))
				return false;
		}
		reader->at++;
	}
	else
	{
		/* .1 is a number */
		if (spine_is_digit(*reader->at))
			return false;
		while (is_name_byte(*reader->at))
			*reader->names++ = *reader->at++;
		if (reader->names == step->member)
			return false;
	}
	*reader->names++ = '\0';
	return true;
}

static bool
read_element(PathReader *reader, SpinePathStep *step)
{
	const char *digits;
	uint64_t	element = 0;

	(void) skip_blanks(reader);
	digits = reader->at;
	for (; spine_is_digit(*reader->at); reader->at++)
	{
		element = element * 10 + (uint64_t) (*reader->at - '0');
		if (element > INT32_MAX)
			return false;
	}
	if (reader->at == digits || (*digits == '0' && reader->at - digits > 1) ||
		skip_blanks(reader) != ']')
		return false;
	reader->at++;
	*step = (SpinePathStep) {.element = (uint32_t) element};
	return true;
}

int
spine_path_parse(const char *text, SpinePathStep *steps, char *names)
{
	PathReader	reader = {.at = text, .names = names};
	int			nsteps = 0;

	(void) skip_blanks(&reader);
	if (strncasecmp(reader.at, "lax", 3) == 0)
	{
		reader.at += 3;
		(void) skip_blanks(&reader);
	}

	/* $name is a variable, and so is $"name" */
	if (reader.at[0] != '$' || is_name_byte(reader.at[1]) || reader.at[1] == '"')
		return -1;
	reader.at++;
	while (skip_blanks(&reader) != '\0')
	{
		char		first = *reader.at++;

		if (first == '.' ? !read_member(&reader, &steps[nsteps]) :
			first != '[' || !read_element(&reader, &steps[nsteps]))
			return -1;
		nsteps++;
	}
	return nsteps;
}

/*
 * test_path.c
 *		The text of a simple jsonpath becomes its steps, and no other text does.
 *
 * What would break this: a name that is cut or changed; a path that is taken for another
 * one, or that jsonpath refuses; a path with more than members and elements; reads past the
 * end of the text, or writes beyond the room that the caller gives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "event/path.h"

/* The steps as jsonpath itself would write them, except that names have no escapes; NULL: none. */
static const struct
{
	const char *text;
	const char *steps;
}			cases[] = {
	{"$", ""},
	{" \t\n\r\f$ \t\n\r\f", ""},
	{"lax $", ""},
	{"LaX$.a", ".\"a\""},
	{"lax\n$", ""},
	{"$.a", ".\"a\""},
	{"$ . a . b", ".\"a\".\"b\""},
	{"$.a[0].b[2147483647]", ".\"a\"[0].\"b\"[2147483647]"},
	{"$[0]", "[0]"},
	{"$ [ 12 ] [3]", "[12][3]"},
	{"$[0].a", "[0].\"a\""},
	{"$.\"a b\".\"c.d\"", ".\"a b\".\"c.d\""},
	{"$.\"\"", ".\"\""},
	{"$.\"$\"[1]", ".\"$\"[1]"},
	{"$.a1_x'y", ".\"a1_x'y\""},
	{"$.\xc3\xa9t\xc3\xa9", ".\"\xc3\xa9t\xc3\xa9\""},
	{"$.\"\xf0\x9f\x98\x80\"", ".\"\xf0\x9f\x98\x80\""},
	{"$.size.type.lax.strict.to.last.null.true.is", ".\"size\".\"type\".\"lax\".\"strict\".\"to\".\"last\".\"null\".\"true\".\"is\""},
	{"$.\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\v\\z\"", ".\"\"\\/\b\f\n\r\t\vz\""},
	{"$.\"\\u00e9\\u{e9}\\xe9\\x41\"", ".\"\xc3\xa9\xc3\xa9\xc3\xa9" "A\""},
	{"$.\"\\u20ac\\u{20AC}\\uD83D\\uDE00\\u{1f600}\\u{d83d}\\ude00\"",
	".\"\xe2\x82\xac\xe2\x82\xac\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\""},
	{"$.\"\\\xc3\xa9\"", ".\"\xc3\xa9\""},
	{"$.\"\\u{10FFFF}\\u{7ff}\\u{800}\"", ".\"\xf4\x8f\xbf\xbf\xdf\xbf\xe0\xa0\x80\""},

	{"", NULL},
	{" ", NULL},
	{"lax", NULL},
	{"lax ", NULL},
	{"a", NULL},
	{".a", NULL},
	{"[0]", NULL},
	{"strict $.a", NULL},
	{"laxx $", NULL},
	{"lax lax $", NULL},
	{"$a", NULL},
	{"$\"a\"", NULL},
	{"$\xc3\xa9", NULL},
	{"$$", NULL},
	{"$ $", NULL},
	{"$ a", NULL},
	{"@", NULL},
	{"$.", NULL},
	{"$. ", NULL},
	{"$..a", NULL},
	{"$.a.", NULL},
	{"$.a b", NULL},
	{"$.a\"b\"", NULL},
	{"$.\"a\"b", NULL},
	{"$.1", NULL},
	{"$.1a", NULL},
	{"$. 1a", NULL},
	{"$.a-b", NULL},
	{"$.a:b", NULL},
	{"$.*", NULL},
	{"$.**", NULL},
	{"$.**.a", NULL},
	{"$.a.size()", NULL},
	{"$.a.type ()", NULL},
	{"$.a ? (@ > 1)", NULL},
	{"$.a + 1", NULL},
	{"-$.a", NULL},
	{"($.a)", NULL},
	{"$.a == 1", NULL},
	{"$.a, $.b", NULL},
	{"exists($.a)", NULL},
	{"$.a/*c*/", NULL},
	{"/*c*/$", NULL},
	{"$[", NULL},
	{"$[]", NULL},
	{"$[ ]", NULL},
	{"$[0", NULL},
	{"$[0 ", NULL},
	{"$[*]", NULL},
	{"$[last]", NULL},
	{"$[0 to 1]", NULL},
	{"$[0,1]", NULL},
	{"$[-1]", NULL},
	{"$[+1]", NULL},
	{"$[01]", NULL},
	{"$[00]", NULL},
	{"$[1.0]", NULL},
	{"$[1e0]", NULL},
	{"$[0x1]", NULL},
	{"$[1_0]", NULL},
	{"$[$]", NULL},
	{"$[\"a\"]", NULL},
	{"$[2147483648]", NULL},
	{"$[4294967296]", NULL},
	{"$[18446744073709551616]", NULL},
	{"$[0]]", NULL},
	{"$.a[0]b", NULL},
	{"$[1 2]", NULL},
	{"$.a\\u0062", NULL},
	{"$.\\\"a", NULL},
	{"$.a\\", NULL},
	{"$\\", NULL},
	{"$.\"", NULL},
	{"$.\"a", NULL},
	{"$.\"a\\", NULL},
	{"$.\"a\\\"", NULL},
	{"$.\"\\\n\"", NULL},
	{"$.\"\\u\"", NULL},
	{"$.\"\\u00\"", NULL},
	{"$.\"\\u00g0\"", NULL},
	{"$.\"\\u{}\"", NULL},
	{"$.\"\\u{1234567}\"", NULL},
	{"$.\"\\u{12\"", NULL},
	{"$.\"\\u{12", NULL},
	{"$.\"\\u{", NULL},
	{"$.\"\\u", NULL},
	{"$.\"\\x\"", NULL},
	{"$.\"\\x4\"", NULL},
	{"$.\"\\x", NULL},
	{"$.\"\\u0000\"", NULL},
	{"$.\"\\u{0}\"", NULL},
	{"$.\"\\x00\"", NULL},
	{"$.\"\\ud83d\"", NULL},
	{"$.\"\\ude00\"", NULL},
	{"$.\"\\ud83dx\"", NULL},
	{"$.\"\\ud83d\\ud83d\"", NULL},
	{"$.\"\\ud83d\\u0041\"", NULL},
	{"$.\"\\u{110000}\"", NULL},
	{"$.\"\\u{FFFFFF}\"", NULL},
};

/* Parses from and into memory of exactly the size that the contract names. */
static int
parse(const char *text, char *written)
{
	size_t		len = strlen(text);
	char	   *copy = strdup(text);
	SpinePathStep *steps = malloc(len / 2 * sizeof(SpinePathStep) + 1);
	char	   *names = malloc(len + 1);
	char	   *exact_names = names + 1;
	int			n;

	assert_non_null(copy);
	assert_non_null(steps);
	assert_non_null(names);
	n = spine_path_parse(copy, steps, exact_names);
	memset(copy, '#', len);
	*written = '\0';
	for (int i = 0; i < n; i++)
	{
		if (steps[i].member)
			written += sprintf(written, ".\"%s\"", steps[i].member);
		else
			written += sprintf(written, "[%u]", steps[i].element);
	}
	free(copy);
	free(steps);
	free(names);
	return n;
}

static void
test_paths(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char		written[1000];
		int			n = parse(cases[i].text, written);

		if ((n >= 0) != (cases[i].steps != NULL))
			fail_msg("%s: %d steps", cases[i].text, n);
		if (n >= 0 && strcmp(written, cases[i].steps) != 0)
			fail_msg("%s: %s", cases[i].text, written);
	}
}

/* Any byte may be lost or changed. */
static void
test_broken_paths(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		size_t		len = strlen(cases[i].text);

		for (size_t at = 0; at < len; at++)
		{
			static const char others[] = "$.[]\"\\ \n0u{}x(\xc3";
			char		text[1000];
			char		written[2000];

			strcpy(text, cases[i].text);
			for (size_t o = 0; o < sizeof(others) - 1; o++)
			{
				text[at] = others[o];
				(void) parse(text, written);
			}
			text[at] = '\0';
			(void) parse(text, written);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_broken_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

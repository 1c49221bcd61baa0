/*
 * test_decimal.c
 *		Decimal numbers become integers exactly, or it is said that they do not.
 *
 * What would break this: floating point; an exponent that takes time or memory, or
 * overflows; a rounding that is lost, or towards zero; the smallest integer taken for too
 * small; a text taken for a number that is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "event/decimal.h"

#define MANY_ZEROES	"00000000000000000000000000000000000000000000000000"

static void
check(const char *text, int shift, SpineDecimal expected, int64_t value)
{
	int64_t		result = 0;
	SpineDecimal outcome = spine_decimal_read(text, strlen(text), shift, &result);

	if (outcome != expected || (expected <= SPINE_DECIMAL_ROUNDED && result != value))
		fail_msg("%s with shift %d: outcome %d, value %lld", text, shift, outcome, (long long) result);
}

static void
test_exact(void **state)
{
	(void) state;
	check("0", 0, SPINE_DECIMAL_EXACT, 0);
	check("-0.0", 0, SPINE_DECIMAL_EXACT, 0);
	check("5.0", 0, SPINE_DECIMAL_EXACT, 5);
	check("5.", 0, SPINE_DECIMAL_EXACT, 5);
	check("+7", 0, SPINE_DECIMAL_EXACT, 7);
	check("1e6", 0, SPINE_DECIMAL_EXACT, 1000000);
	check("-1E+2", 0, SPINE_DECIMAL_EXACT, -100);
	check("1200e-2", 0, SPINE_DECIMAL_EXACT, 12);
	check("0.00000000000000000012e20", 0, SPINE_DECIMAL_EXACT, 12);
	check(MANY_ZEROES "3", 0, SPINE_DECIMAL_EXACT, 3);
	check("3." MANY_ZEROES, 0, SPINE_DECIMAL_EXACT, 3);
	check("9223372036854775807", 0, SPINE_DECIMAL_EXACT, INT64_MAX);
	check("-9223372036854775808", 0, SPINE_DECIMAL_EXACT, INT64_MIN);
	check("-9.223372036854775808e18", 0, SPINE_DECIMAL_EXACT, INT64_MIN);
	check("1731011215.123456", 6, SPINE_DECIMAL_EXACT, 1731011215123456);
	check("1731011215123.5", 3, SPINE_DECIMAL_EXACT, 1731011215123500);
	check("0e1000000000000000000000", 6, SPINE_DECIMAL_EXACT, 0);
	check("0e-1000000000000000000000", 6, SPINE_DECIMAL_EXACT, 0);
}

static void
test_rounded(void **state)
{
	(void) state;
	check("0.5", 0, SPINE_DECIMAL_ROUNDED, 1);
	check("0.4999", 0, SPINE_DECIMAL_ROUNDED, 0);
	check("-0.5", 0, SPINE_DECIMAL_ROUNDED, -1);
	check("-1.4", 0, SPINE_DECIMAL_ROUNDED, -1);
	check("5e-1", 0, SPINE_DECIMAL_ROUNDED, 1);
	check("5e-2", 0, SPINE_DECIMAL_ROUNDED, 0);
	check("9e-1000000000000000000000", 0, SPINE_DECIMAL_ROUNDED, 0);
	check("1.0000005", 6, SPINE_DECIMAL_ROUNDED, 1000001);
	check("1.00000049", 6, SPINE_DECIMAL_ROUNDED, 1000000);
	check("3." MANY_ZEROES "1", 0, SPINE_DECIMAL_ROUNDED, 3);
}

static void
test_beyond(void **state)
{
	(void) state;
	check("9223372036854775808", 0, SPINE_DECIMAL_BEYOND, 0);
	check("-9223372036854775809", 0, SPINE_DECIMAL_BEYOND, 0);
	check("9223372036854775807.5", 0, SPINE_DECIMAL_BEYOND, 0);
	check("-9223372036854775808.5", 0, SPINE_DECIMAL_BEYOND, 0);
	check("1e1000000000000000000000", 0, SPINE_DECIMAL_BEYOND, 0);
	check("-1e19", 0, SPINE_DECIMAL_BEYOND, 0);
	check("9223372036854775807", 1, SPINE_DECIMAL_BEYOND, 0);
}

static void
test_no_number(void **state)
{
	static const char *const texts[] = {
		"", "-", "+", ".", "-.", "e5", "1e", "1e+", "1e5.0", "1.2.3", "--1", " 1", "1 ", "0x10", "NaN",
		"Infinity", "1_000", "1,5"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		check(texts[i], 0, SPINE_DECIMAL_NONE, 0);
	check(".5e1", 0, SPINE_DECIMAL_EXACT, 5);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_rounded),
		cmocka_unit_test(test_beyond),
		cmocka_unit_test(test_no_number)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

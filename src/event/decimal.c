/*
 * decimal.c
 *		Reads decimal numbers without floating point.
 */
#include "event/decimal.h"

#include <stdbool.h>

#include "event/character.h"

/* No exponent matters beyond this; no text is as long. */
#define MAX_EXPONENT	((int64_t) 1 << 40)

static bool
is_sign(char c)
{
	return c == '-' || c == '+';
}

/* The exponent at the end of a number; false: there is something else. */
static bool
read_exponent(const char *at, const char *end, int64_t *exponent)
{
	bool		negative = false;

	*exponent = 0;
	if (at == end)
		return true;
	if (*at != 'e' && *at != 'E')
		return false;
	if (++at < end && is_sign(*at))
		negative = *at++ == '-';
	if (at == end)
		return false;
	for (; at < end; at++)
	{
		if (!spine_is_digit(*at))
			return false;
		if (*exponent < MAX_EXPONENT)
			*exponent = *exponent * 10 + (*at - '0');
	}
	if (negative)
		*exponent = -*exponent;
	return true;
}

/* Multiplies by ten and subtracts the digit: there are more negative numbers than positive. */
static bool
append_digit(int64_t *value, int digit)
{
	return !__builtin_mul_overflow(*value, 10, value) &&
		!__builtin_sub_overflow(*value, digit, value);
}

/* The first `places` digits from here on, negative; what follows is rounded. */
static SpineDecimal
read_places(const char *at, const char *end, int64_t places, int64_t *value)
{
	bool		is_exact = true;
	int64_t		place = 0;

	*value = 0;
	for (; at < end; at++)
	{
		int			digit = *at - '0';

		if (*at == '.')
			continue;
		if (place < places && !append_digit(value, digit))
			return SPINE_DECIMAL_BEYOND;
		if (place == places && digit >= 5 && __builtin_sub_overflow(*value, 1, value))
			return SPINE_DECIMAL_BEYOND;
		if (place >= places && digit > 0)
			is_exact = false;
		place++;
	}
	for (; place < places && *value != 0; place++)
	{
		if (!append_digit(value, 0))
			return SPINE_DECIMAL_BEYOND;
	}
	return is_exact ? SPINE_DECIMAL_EXACT : SPINE_DECIMAL_ROUNDED;
}

SpineDecimal
spine_decimal_read(const char *text, size_t len, int shift, int64_t *result)
{
	const char *end = text + len;
	const char *at = text;
	bool		negative = false;
	const char *digits;
	const char *point = NULL;
	int64_t		exponent;
	int64_t		whole;
	SpineDecimal outcome;

	if (at < end && is_sign(*at))
		negative = *at++ == '-';
	digits = at;
	while (at < end && (spine_is_digit(*at) || (*at == '.' && point == NULL)))
	{
		if (*at == '.')
			point = at;
		at++;
	}
	if (at - digits - (point != NULL) == 0 || !read_exponent(at, end, &exponent))
		return SPINE_DECIMAL_NONE;

	whole = (point ? point : at) - digits;
	outcome = read_places(digits, at, whole + exponent + shift, result);
	if (outcome <= SPINE_DECIMAL_ROUNDED && !negative && __builtin_mul_overflow(*result, -1, result))
		return SPINE_DECIMAL_BEYOND;
	return outcome;
}

/*
 * decimal.h
 *		Decimal numbers as integers, exactly.
 */
#ifndef SPINE_DECIMAL_H
#define SPINE_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

typedef enum SpineDecimal
{
	SPINE_DECIMAL_EXACT,
	SPINE_DECIMAL_ROUNDED,		/* half away from zero */
	SPINE_DECIMAL_BEYOND,		/* what 64 bits can hold */
	SPINE_DECIMAL_NONE			/* the text is no decimal number */
} SpineDecimal;

/*
 * Reads a number such as -12.5e3, multiplied by ten to the power of `shift`.  Takes time
 * for its length, whatever the exponent is.
 */
extern SpineDecimal spine_decimal_read(const char *text, size_t len, int shift, int64_t *result);

#endif							/* SPINE_DECIMAL_H */

/*
 * character.h
 *		Digits, and characters as UTF-8.
 */
#ifndef SPINE_CHARACTER_H
#define SPINE_CHARACTER_H

#include <stdbool.h>
#include <stdint.h>

static inline bool
spine_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit; -1: it is none. */
static inline int
spine_hex_digit(char c)
{
	if (spine_is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * Writes a character, which is neither a surrogate nor above U+10FFFF, as UTF-8; returns its
 * length, at most 4.
 */
static inline int
spine_utf8_write(uint32_t code, char *to)
{
	int			len = 0;

	if (code < 0x80)
	{
		to[0] = (char) code;
		return 1;
	}
	if (code < 0x800)
		to[len++] = (char) (0xC0 | code >> 6);
	else
	{
		if (code < 0x10000)
			to[len++] = (char) (0xE0 | code >> 12);
		else
		{
			to[len++] = (char) (0xF0 | code >> 18);
			to[len++] = (char) (0x80 | (code >> 12 & 0x3F));
		}
		to[len++] = (char) (0x80 | (code >> 6 & 0x3F));
	}
	to[len++] = (char) (0x80 | (code & 0x3F));
	return len;
}

#endif							/* SPINE_CHARACTER_H */

/*
 * dead_letters.h
 *		Records that cannot be applied, kept with their bytes and the reason.
 */
#ifndef SPINE_DEAD_LETTERS_H
#define SPINE_DEAD_LETTERS_H

#include "compat.h"
#include "process/positions.h"
#include "event/record.h"

typedef struct SpineDeadLetter
{
	const SpineRecord *record;
	char		sqlstate[6];
	char	   *reason;
} SpineDeadLetter;

/* One for a record; the reason is copied into the current memory context. */
extern SpineDeadLetter spine_make_dead_letter(const SpineRecord *record, const char *sqlstate,
											  const char *reason);

/* Writes them, in the current transaction with SPI. */
extern void spine_write_dead_letters(const SpineLog *log,
									 const SpineDeadLetter *letters, size_t n);

#endif							/* SPINE_DEAD_LETTERS_H */

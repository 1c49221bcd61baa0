/*
 * dead_letters.h
 *		Records that cannot be applied, kept with their bytes and the reason.
 */
#ifndef SPINE_DEAD_LETTERS_H
#define SPINE_DEAD_LETTERS_H

#include "compat.h"
#include "event/record.h"

typedef struct SpineDeadLetter
{
	const SpineRecord *record;
	char		sqlstate[6];
	char	   *reason;
} SpineDeadLetter;

/* A dead letter of a record; the reason is copied into the current memory context. */
extern SpineDeadLetter spine_dead_letter_make(const SpineRecord *record, const char *sqlstate,
											  const char *reason);

/*
 * Writes dead letters of a pipeline to the table of the extension, whose schema is given
 * quoted.  In a transaction with SPI.
 */
extern void spine_dead_letters_write(const char *schema, const NameData *pipeline,
									 const SpineDeadLetter *letters, size_t n);

#endif							/* SPINE_DEAD_LETTERS_H */

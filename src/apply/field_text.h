/*
 * field_text.h
 *		A field as the text that PostgreSQL prints of such a value.
 */
#ifndef SPINE_FIELD_TEXT_H
#define SPINE_FIELD_TEXT_H

#include "compat.h"
#include "event/event.h"
#include "utils/datetime.h"

/* For the text of a number, a time or a UUID. */
#define SPINE_FIELD_TEXT_ROOM	(MAXDATELEN + 1)

/*
 * A field, neither absent nor null, as one whose value is a text; one that is already so is
 * returned as it is.  Times are ISO and in UTC, whatever the session's settings.  buf has
 * SPINE_FIELD_TEXT_ROOM bytes; a longer text is palloc'ed.
 */
extern SpineField spine_field_text(const SpineField *field, char *buf);

/* The time of a field of that kind; raises an error if a timestamptz cannot hold it. */
extern TimestampTz spine_field_time(const SpineField *field);

#endif							/* SPINE_FIELD_TEXT_H */

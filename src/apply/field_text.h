/*
 * field_text.h
 *		Texts of a record in the server's encoding; a field as the text that PostgreSQL
 *		prints of such a value.
 */
#ifndef SPINE_FIELD_TEXT_H
#define SPINE_FIELD_TEXT_H

#include "compat.h"

#include "common/shortest_dec.h"
#include "datatype/timestamp.h"
#include "event/event.h"

/*
 * UTF-8 as a C string in the server's encoding, or as a Datum of type text; in the current
 * memory context.  Raises an error for bytes that are not valid UTF-8, a NUL among them, or
 * that the server's encoding cannot represent.
 */
extern char *spine_server_string(const char *utf8, size_t len);
extern Datum spine_server_text(const char *utf8, size_t len);

/* The same of a field's text. */
extern char *spine_field_string(const SpineField *field);

/* For the text of a number. */
#define SPINE_FIELD_TEXT_ROOM	DOUBLE_SHORTEST_DECIMAL_LEN

/*
 * A field of a kind whose value is not a text, as a field of text, NUMERIC or JSON.  With
 * the settings of role.h, so that times are in UTC.  buf has SPINE_FIELD_TEXT_ROOM bytes and
 * holds the text of a number; other texts last until the memory context or the next call.
 */
extern SpineField spine_field_text(const SpineField *field, char *buf);

/* The time of a field of that kind; raises an error if a timestamptz cannot hold it. */
extern TimestampTz spine_field_time(const SpineField *field);

#endif							/* SPINE_FIELD_TEXT_H */

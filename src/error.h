/*
 * error.h
 *		What went wrong, as a value: how to deal with it, and what to tell a person.
 *
 * It is made where the trouble is found (an error of the server, a report of the broker),
 * and reaches spine_status unchanged.
 */
#ifndef SPINE_ERROR_H
#define SPINE_ERROR_H

#include "compat.h"
#include "datatype/timestamp.h"

typedef enum SpineErrorClass
{
	SPINE_NO_ERROR,
	SPINE_REFUSED,				/* the data is at fault: a dead letter */
	SPINE_TRANSIENT,			/* will pass: try again */
	SPINE_STRUCTURAL			/* needs a person: wait, try again slowly; or the
								 * fault of one record, if others pass */
} SpineErrorClass;

#define SPINE_MAX_MESSAGE_LEN	512 /* of each text, with its NUL */

typedef struct SpineError
{
	SpineErrorClass class;
	char		sqlstate[6];	/* "": it is not an error of the server */
	char		message[SPINE_MAX_MESSAGE_LEN];
	char		detail[SPINE_MAX_MESSAGE_LEN];	/* "": none; and so below */
	char		column[NAMEDATALEN];	/* whose value it is about, if the message does not say */
	char		hint[SPINE_MAX_MESSAGE_LEN];
	TimestampTz since;			/* when it was first met */
} SpineError;

/* Sets the class and the message; the rest is empty, and `since` is now. */
extern void spine_error_set(SpineError *error, SpineErrorClass class,
							const char *message, ...) pg_attribute_printf(3, 4);

extern void spine_error_set_detail(SpineError *error, const char *detail, ...) pg_attribute_printf(2, 3);
extern void spine_error_set_hint(SpineError *error, const char *hint, ...) pg_attribute_printf(2, 3);

/* From an error that was caught; the class is the caller's to choose. */
extern void spine_error_copy(SpineError *error, SpineErrorClass class, const ErrorData *edata);

/*
 * Do the two say the same, apart from `since`?  Two records are refused for the same reason
 * even if their details differ.
 */
extern bool spine_error_is_same(const SpineError *a, const SpineError *b);
extern bool spine_error_is_same_reason(const SpineError *a, const SpineError *b);

/*
 * "message DETAIL: ... COLUMN: ...", without or with " HINT: ...", palloc'ed: what the
 * tables of the extension keep of an error.
 */
extern char *spine_error_text(const SpineError *error, bool with_hint);

#endif							/* SPINE_ERROR_H */

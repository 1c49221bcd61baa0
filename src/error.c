/*
 * error.c
 *		Makes, compares and spells errors as values.
 */
#include "error.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

/* Cuts at a character, not within one. */
static void
copy_text(char *to, size_t size, const char *text)
{
	int			len = strlen(text);

	if (len >= (int) size)
		len = pg_mbcliplen(text, len, size - 1);
	memcpy(to, text, len);
	to[len] = '\0';
}

static void format_text(char *to, size_t size, const char *format, va_list args) pg_attribute_printf(3, 0);

static void
format_text(char *to, size_t size, const char *format, va_list args)
{
	char		text[4 * SPINE_MAX_MESSAGE_LEN];

	vsnprintf(text, sizeof(text), format, args);
	copy_text(to, size, text);
}

void
spine_error_set(SpineError *error, SpineErrorClass class, const char *message, ...)
{
	va_list		args;

	memset(error, 0, sizeof(*error));
	error->class = class;
	error->since = GetCurrentTimestamp();
	va_start(args, message);
	format_text(error->message, sizeof(error->message), message, args);
	va_end(args);
}

void
spine_error_set_detail(SpineError *error, const char *detail, ...)
{
	va_list		args;

	va_start(args, detail);
	format_text(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
}

void
spine_error_set_hint(SpineError *error, const char *hint, ...)
{
	va_list		args;

	va_start(args, hint);
	format_text(error->hint, sizeof(error->hint), hint, args);
	va_end(args);
}

void
spine_error_copy(SpineError *error, SpineErrorClass class, const ErrorData *edata)
{
	const char *message = edata->message ? edata->message : "missing error text";

	spine_error_set(error, class, "%s", message);
	strlcpy(error->sqlstate, unpack_sql_state(edata->sqlerrcode), sizeof(error->sqlstate));
	if (edata->detail)
		copy_text(error->detail, sizeof(error->detail), edata->detail);
	else if (edata->internalquery && edata->internalpos > 0)
	{
		char	   *place = psprintf("At character %d of: %s", edata->internalpos, edata->internalquery);

		copy_text(error->detail, sizeof(error->detail), place);
		pfree(place);
	}
	if (edata->hint)
		copy_text(error->hint, sizeof(error->hint), edata->hint);
	if (edata->column_name && strstr(message, edata->column_name) == NULL &&
		(edata->detail == NULL || strstr(edata->detail, edata->column_name) == NULL))
		strlcpy(error->column, edata->column_name, sizeof(error->column));
}

bool
spine_error_is_same_reason(const SpineError *a, const SpineError *b)
{
	return strcmp(a->sqlstate, b->sqlstate) == 0 && strcmp(a->message, b->message) == 0;
}

bool
spine_error_is_same(const SpineError *a, const SpineError *b)
{
	return a->class == b->class && spine_error_is_same_reason(a, b) &&
		strcmp(a->detail, b->detail) == 0 && strcmp(a->column, b->column) == 0 &&
		strcmp(a->hint, b->hint) == 0;
}

char *
spine_error_text(const SpineError *error, bool with_hint)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, error->message);
	if (error->detail[0])
		appendStringInfo(&text, " DETAIL: %s", error->detail);
	if (error->column[0])
		appendStringInfo(&text, " COLUMN: %s", error->column);
	if (with_hint && error->hint[0])
		appendStringInfo(&text, " HINT: %s", error->hint);
	return text.data;
}

/*
 * headers.h
 *		The headers of a record as fields.
 */
#ifndef SPINE_HEADERS_H
#define SPINE_HEADERS_H

#include "compat.h"

#include "event/event.h"

/*
 * The value of the last header of this name (in UTF-8), as bytes; ABSENT if the record has
 * no such header, NULL if that header has no value.
 */
extern SpineField spine_header_field(const SpineRecord *record, const char *name);

/*
 * All headers as the text of a JSON object, in UTF-8 and the current memory context: a string
 * for each, or null for a header without a value.  Raises an error for a header that is not
 * text.
 */
extern char *spine_headers_json(const SpineRecord *record);

/*
 * The same as jsonb: of several headers of one name, it has the last.  Raises an error, too,
 * when making it would take more memory than this.
 */
extern Datum spine_headers_jsonb(const SpineRecord *record, size_t max_memory);

#endif							/* SPINE_HEADERS_H */

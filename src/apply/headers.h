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
 * All headers as a jsonb object, in the current memory context: a string for each, or null
 * for a header without a value; of several of one name, the last.  Raises an error for a
 * header that is not text, or when making the object would take more memory than this.
 */
extern Datum spine_headers_jsonb(const SpineRecord *record, size_t max_memory);

#endif							/* SPINE_HEADERS_H */

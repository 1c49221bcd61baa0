/*
 * key_bytes.h
 *		Keys as bytes: two keys are the same if their bytes are.
 */
#ifndef SPINE_KEY_BYTES_H
#define SPINE_KEY_BYTES_H

#include "apply/column.h"
#include "lib/stringinfo.h"

/*
 * Appends the value of a column whose values are equal if their bytes are.  Keys compare by
 * memcmp as their values do (texts as in the collation "C"): rows that are written in this
 * order come to the index in about its own.
 */
extern void spine_key_append(StringInfo bytes, const SpineColumn *column, Datum value);

/* Appends a number that stands for a value. */
extern void spine_key_append_int64(StringInfo bytes, int64 value);

#endif							/* SPINE_KEY_BYTES_H */

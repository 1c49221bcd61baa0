/*
 * reading.h
 *		Values that a mapping says how to read: times as numbers, bytes as text.
 */
#ifndef SPINE_READING_H
#define SPINE_READING_H

#include "apply/column.h"

/* Raises an error (structural) when the column's type does not hold what is read. */
extern void spine_reading_check(const SpineColumn *column);

/*
 * The value of a column that has a reading, in the current memory context.  The field is
 * neither absent nor null.  Raises an error when it does not fit.
 */
extern Datum spine_reading_bind(const SpineColumn *column, const SpineField *field);

#endif							/* SPINE_READING_H */

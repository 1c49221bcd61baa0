/*
 * record_field.h
 *		What a record has for a column, as a field.
 */
#ifndef SPINE_RECORD_FIELD_H
#define SPINE_RECORD_FIELD_H

#include "apply/column.h"

/*
 * The field of a column whose source is not SPINE_FROM_FIELD.  Its text lasts as long as
 * the record or the current memory context, whichever ends first.  Raises an error for
 * what is not text, is too large, or has no meaning.
 */
extern SpineField spine_record_field(const SpineColumn *column, const SpineEvent *event);

#endif							/* SPINE_RECORD_FIELD_H */

/*
 * newest.h
 *		Of the events of one key, the newest; and what older ones have that it lacks.
 */
#ifndef SPINE_NEWEST_H
#define SPINE_NEWEST_H

#include "apply/rows.h"
#include "catalog/pg_type.h"

/*
 * Keeps the newest event of each key, in an order of the keys.  Of two events with the same
 * version, or without versions, the later in the log is newer.  Sets left_out and partial,
 * too: a column that an event lacks is given by the next older one that has it.  Binds the
 * keys and the version.  Raises what the types' comparison functions raise.
 */
extern void spine_newest_find(const SpineSink *sink, SpineRows *rows);

/*
 * What a jsonpath finds, and which headers there are, is not known before it is looked for.
 * What is left does not miss values, or has fields that say so.
 */
extern bool spine_newest_must_look(const SpineColumn *column);

/* Do values of the column compare as integers do? */
static inline bool
spine_version_is_integer(const SpineColumn *column)
{
	return column->base_type == INT8OID || column->base_type == INT4OID ||
		column->base_type == TIMESTAMPTZOID || column->base_type == TIMESTAMPOID;
}

/* The value of such a column as an integer. */
static inline int64
spine_version_integer(const SpineColumn *column, Datum value)
{
	return column->base_type == INT4OID ? DatumGetInt32(value) : DatumGetInt64(value);
}

#endif							/* SPINE_NEWEST_H */

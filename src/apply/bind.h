/*
 * bind.h
 *		Fields to Datums: what PostgreSQL makes of a decoded event.
 */
#ifndef SPINE_BIND_H
#define SPINE_BIND_H

#include "apply/column.h"
#include "event/event.h"

/*
 * The value of a column, in the current memory context.  *missing: the record does not
 * have it at all (then *isnull is true as well).  Raises the error of the type's input
 * function when the value does not fit the type.  The checks of a domain may run a user's
 * functions: call it as the role that the sink runs as, with its settings (role.h).
 */
extern Datum spine_bind_value(const SpineColumn *column, const SpineEvent *event,
							  bool *isnull, bool *missing);

/* The same *missing as above, of a column whose values are fields. */
static inline bool
spine_bind_is_missing(const SpineColumn *column, const SpineEvent *event)
{
	Assert(column->source == SPINE_FROM_FIELD);
	return event->fields[column->field].kind == SPINE_FIELD_ABSENT && !column->has_given_default;
}

#endif							/* SPINE_BIND_H */

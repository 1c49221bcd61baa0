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

/*
 * Does the record lack the column's value?  Of a jsonpath and of a header that is not known
 * here.
 */
static inline bool
spine_bind_is_missing(const SpineColumn *column, const SpineEvent *event)
{
	return column->source == SPINE_FROM_FIELD && !column->has_given_default &&
		event->fields[column->field].kind == SPINE_FIELD_ABSENT;
}

#endif							/* SPINE_BIND_H */

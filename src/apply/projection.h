/*
 * projection.h
 *		What a sink computes with SQL: the columns whose source is an expression, and its
 *		filter.
 *
 * They are computed for all events before anything is reduced, so that what becomes of a
 * record does not depend on its batch.  In an expression the record is a row; constant
 * chains such as value->'a'->>'b' are fields that the decoder takes.
 */
#ifndef SPINE_PROJECTION_H
#define SPINE_PROJECTION_H

#include "apply/column.h"

typedef struct SpineProjection SpineProjection;

/* What was computed for some events, by expression and event. */
typedef struct SpineComputed
{
	Datum	  **values;
	bool	  **nulls;
	bool	   *passes;			/* the filter, by event; NULL: it has none */
} SpineComputed;

/* Nothing is computed yet.  In the current memory context, which is to outlive it. */
extern SpineProjection *spine_projection_make(SpineFieldList *fields);

/*
 * Adds an expression whose value is to be of this type; returns its index.  Adds the
 * fields that it needs.  what: "column \"x\"", for messages.  Raises an error (structural)
 * with the position in the text when it is not one expression over the record, or not of
 * the type.  In a transaction, with an empty search_path.
 */
extern int	spine_projection_add(SpineProjection *projection, const char *sql, const char *what,
								 Oid type, int32 typmod, Oid collation);

/* The same for the filter, which is boolean. */
extern void spine_projection_set_filter(SpineProjection *projection, const char *sql);

/*
 * Computes everything for events[*at..n-1], in the current memory context.  Raises an
 * error for the first event that an expression does not take: *at is that event then, and
 * n otherwise.  computed is indexed from the old *at.  In a transaction with SPI, as the
 * role that the sink runs as, with its settings (role.h).
 */
extern void spine_projection_run(SpineProjection *projection, const SpineEvent *events, size_t n,
								 size_t *at, SpineComputed *computed);

#endif							/* SPINE_PROJECTION_H */

/*
 * projection.h
 *		What a sink computes with SQL: the columns whose source is an expression, and its
 *		filter.
 *
 * They are computed for all events before anything is reduced, so that what becomes of a
 * record does not depend on its batch.  In an expression the record is a row; constant
 * chains such as value->'a'->>'b' are fields that the decoder takes.  An expression that
 * reads tables sees them as they are when its sink's turn comes, with the rows that earlier
 * sinks have written.
 */
#ifndef SPINE_PROJECTION_H
#define SPINE_PROJECTION_H

#include "apply/column.h"
#include "apply/watch.h"
#include "event/event.h"
#include "lib/stringinfo.h"

typedef struct SpineProjection SpineProjection;

/* A projection while it is computed for some events. */
typedef struct SpineProjectionRun SpineProjectionRun;

/*
 * Nothing is computed yet.  In the current memory context, which is to outlive it, as does
 * `fields`.  max_record_memory: as in plan.h.
 */
extern SpineProjection *spine_projection_make(SpineFieldList *fields, size_t max_record_memory);

/*
 * Adds the expression of a column; returns its index.  column NULL: the filter, whose index
 * has no meaning.  Adds the fields that it needs.  Raises an error (structural) with the
 * place in the text when it is not one expression over the record, or not of the column's
 * type.  In a transaction, as the role that the sink runs as, with its settings (role.h).
 */
extern int	spine_projection_add(SpineProjection *projection, const char *text,
								 const SpineTableColumn *column);

/* Plans it, when all is added.  As spine_projection_add, with a snapshot. */
extern void spine_projection_plan(SpineProjection *projection);

/*
 * Locks the tables that the expressions read, in a transaction.  What has changed of them
 * is known afterwards: see plan.c.
 */
extern void spine_projection_lock(const SpineProjection *projection);

/* Does an expression look rows up?  Safe on NULL. */
extern bool spine_projection_looks_up(const SpineProjection *projection);

/* Adds what the expressions depend on, when they are planned. */
extern void spine_projection_watch(const SpineProjection *projection, SpineWatch *watch);

/*
 * Begins to compute, in the current memory context.  In a transaction with SPI, as the role
 * that the sink runs as, with its settings.  *looking_up: is an expression computed that
 * looks rows up?  It is left as it is by an error.
 */
extern SpineProjectionRun *spine_projection_begin(SpineProjection *projection, bool *looking_up);

/*
 * Computes all expressions for an event: values[i] and nulls[i] for the one with index i.
 * The values are in the current memory context.  False: the filter is not true, and nothing
 * is computed.  Raises an error for what does not fit.
 */
extern bool spine_projection_compute(SpineProjectionRun *run, const SpineEvent *event,
									 Datum *values, bool *nulls);

/* Ends the run; after an error, the end of the (sub)transaction does. */
extern void spine_projection_end(SpineProjectionRun *run);

/* How many expressions it has, without the filter. */
extern int	spine_projection_count(const SpineProjection *projection);

/*
 * For spine_explain: appends lines about the expression with this index, or about the filter
 * (-1), if there is one.
 */
extern void spine_projection_explain(const SpineProjection *projection, int index, StringInfo text);

#endif							/* SPINE_PROJECTION_H */

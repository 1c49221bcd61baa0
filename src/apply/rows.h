/*
 * rows.h
 *		spine_rows: the rows that a sink's statement reads.
 *
 * It is a tuplestore that the statement finds by name, as a trigger finds its transition
 * table.  Its columns are c<i>, the value for column i of the sink; m<i>, if that column
 * has a default, which says whether the record lacks the value; and `ordinal`, if the
 * statement is to reduce the rows.
 */
#ifndef SPINE_ROWS_H
#define SPINE_ROWS_H

#include "apply/sink.h"
#include "utils/tuplestore.h"

/* The name by which the statements find the rows. */
#define SPINE_ROWS			"spine_rows"

struct SpineRows
{
	const SpineEvent *events;	/* in log order */
	size_t		nevents;
	size_t		nfiltered;		/* events that the filter has left out */
	int			ncomputed;		/* expressions */
	Datum	   *computed;		/* by event, and then by expression */
	bool	   *computed_nulls;
	bool		may_find_later; /* a computed null may be a value when earlier sinks have written */
	Datum	  **bound;			/* by column: its values of all events; NULL: not yet bound */
	uint32	   *kept;			/* the events whose rows are stored; NULL: all */
	size_t		nkept;
	const SpineColumn *current; /* whose value is being made: for errors */
};

/* Rows for a statement. */
typedef struct SpineStoredRows
{
	Tuplestorestate *whole;
	size_t		nfiltered;		/* events that the filter has left out */
} SpineStoredRows;

/* Sets the type of a sink's rows, when all else is known of the sink. */
extern void spine_rows_describe(SpineSink *sink);

/* Appends "SELECT ... FROM spine_rows AS u", with defaults for what the records lack. */
extern void spine_rows_append_select(StringInfo sql, const SpineSink *sink);

/*
 * Makes the rows of these events, in log order, in the current memory context.  The values
 * of all events are converted, also of those whose rows the kind leaves out.  Raises an
 * error for the first value that does not fit.  In a transaction, as the role that the
 * sink runs as.
 */
extern SpineStoredRows spine_rows_make(const SpineSink *sink, const SpineEvent *events, size_t n);

/*
 * Converts the values of events[*at..n-1] and forgets them; raises an error for the first
 * event that does not fit: *at is that event then, and n otherwise.  As spine_rows_make.
 */
extern void spine_rows_convert(const SpineSink *sink, const SpineEvent *events, size_t n, size_t *at);

/* For the kinds: binds these columns of all events.  None of the values may be null. */
extern void spine_rows_bind(const SpineSink *sink, SpineRows *rows, const int *columns, int ncolumns);

#endif							/* SPINE_ROWS_H */

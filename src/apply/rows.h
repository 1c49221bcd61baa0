/*
 * rows.h
 *		spine_rows: the rows that a sink's statements read.
 *
 * It is a tuplestore that a statement finds by name, as a trigger finds its transition
 * table.  Its columns are
 *
 *		c<i>	the value for column i of the sink
 *		m<i>	a bit for each column: is its value missing?  If a statement asks for that.
 *		givers	if the sink has a version: by column (from 1), the version of the event that
 *				gave the value; NULL: all values are of the row's own event
 *
 * A sink that updates rows leaves a column as it is when the record lacks its value.  Rows
 * with such columns are partial, and have statements of their own.
 */
#ifndef SPINE_ROWS_H
#define SPINE_ROWS_H

#include "apply/sink.h"
#include "utils/tuplestore.h"

/* The name by which the statements find the rows. */
#define SPINE_ROWS			"spine_rows"

/* The value of one column in a partial row comes from an older event of the same key. */
typedef struct SpineGiven
{
	uint32		column;
	uint32		event;
} SpineGiven;

/* A partial row: an event that lacks some columns, and where they come from, if anywhere. */
typedef struct SpinePartialRow
{
	int			ngiven;
	SpineGiven	given[FLEXIBLE_ARRAY_MEMBER];	/* in the order of the columns */
} SpinePartialRow;

struct SpineRows
{
	const SpineEvent *events;	/* in log order */
	size_t		nevents;
	size_t		nfiltered;		/* events that the filter has left out */
	int			ncomputed;		/* expressions */
	Datum	   *computed;		/* by event, and then by expression */
	bool	   *computed_nulls;
	bool		may_find_later; /* a computed null may be a value when others have written */
	Datum	  **bound;			/* by column: its values of all events; NULL: not yet bound */
	bool	  **missing;		/* by column: in which events; NULL: see newest.c */
	uint32	   *kept;			/* the events whose rows are stored; NULL: all */
	size_t		nkept;
	bool	   *left_out;		/* by column: no event has it, and the statement does not
								 * name it; NULL: there are none */
	SpinePartialRow **partial;	/* by kept event; its elements or itself NULL: not partial */
	const SpineColumn *current; /* whose value is being made: for errors */
};

/* Rows on their way to the statements. */
typedef struct SpineStoredRows
{
	const bool *left_out;		/* as in SpineRows */
	Tuplestorestate *whole;
	Tuplestorestate *partial;	/* NULL: there are none */
	size_t		nfiltered;		/* events that the filter has left out */
} SpineStoredRows;

/* Bits in one m<i>, so that a mask is never a negative number. */
#define SPINE_ROWS_WORD_BITS	60

/* words: the m<i> of a row. */
static inline void
spine_rows_set_missing(Datum *words, int column)
{
	words[column / SPINE_ROWS_WORD_BITS] |= Int64GetDatum(INT64CONST(1) << column % SPINE_ROWS_WORD_BITS);
}

static inline bool
spine_rows_is_missing(const Datum *words, int column)
{
	return (DatumGetInt64(words[column / SPINE_ROWS_WORD_BITS]) >> column % SPINE_ROWS_WORD_BITS & 1) != 0;
}

/* Sets the type of a sink's rows, when all else is known of the sink. */
extern void spine_rows_describe(SpineSink *sink);

/* Appends "the value of this column is missing in row u". */
extern void spine_rows_append_missing(StringInfo sql, int column);

/* Appends the value of this column in row u, or the column's default if it is missing. */
extern void spine_rows_append_value(StringInfo sql, const SpineSink *sink, int column);

/*
 * Makes the rows of these events, in log order, in the current memory context.  The values
 * of all events are converted, also of those whose rows the kind leaves out.  Raises an
 * error for the first value that does not fit.  In a transaction with SPI, as the role that
 * the sink runs as, with its settings (role.h).
 */
extern SpineStoredRows spine_rows_make(const SpineSink *sink, const SpineEvent *events, size_t n);

/*
 * Converts the values of events[*at..n-1] and forgets them; raises an error for the first
 * event that does not fit: *at is that event then, and n otherwise.  *looking_up: the error
 * comes of an expression that looks rows up, which may be there when what is before the
 * event has been applied.  As spine_rows_make.
 */
extern void spine_rows_convert(const SpineSink *sink, const SpineEvent *events, size_t n, size_t *at,
							   bool *looking_up);

/*
 * For writers that take rows as they come.  Computes what SQL makes of rows->events, and
 * leaves those out that the filter does not let pass.
 */
extern void spine_rows_compute(const SpineSink *sink, SpineRows *rows);

/* ... and makes the row of one of these events, by column, in the current memory context. */
extern void spine_rows_make_row(const SpineSink *sink, SpineRows *rows, size_t event,
								Datum *values, bool *nulls, bool *missing);
/* An empty store of rows, in the current memory context; beyond some size it is in a file. */
extern Tuplestorestate *spine_rows_begin_store(void);

/* For the kinds: binds these columns of all events.  None of the values may be null. */
extern void spine_rows_bind(const SpineSink *sink, SpineRows *rows, const int *columns, int ncolumns);

#endif							/* SPINE_ROWS_H */

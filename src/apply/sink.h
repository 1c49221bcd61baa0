/*
 * sink.h
 *		A sink: one target table of a pipeline, as that table is now, and the SQL that
 *		writes to it.
 *
 * What a mode of sinks means is said by its kind: a struct of functions in a file of its
 * own (sink_append.c, sink_upsert.c).  sink.c has the table of kinds and what they share.
 */
#ifndef SPINE_SINK_H
#define SPINE_SINK_H

#include "compat.h"

#include "access/tupdesc.h"
#include "apply/column.h"
#include "apply/projection.h"
#include "apply/statement.h"
#include "apply/table_row.h"
#include "catalog/pipeline.h"
#include "lib/stringinfo.h"

typedef struct SpineSink SpineSink;

/* The events of a batch on their way into the rows of a sink: see rows.h. */
typedef struct SpineRows SpineRows;

/* How rows of a sink get into its table without a statement: see table_upsert.h. */
typedef struct SpineUpsertTarget SpineUpsertTarget;

typedef enum SpineSinkStatement
{
	/* the two ways to run a sink */
	SPINE_SINK_PLAIN,			/* rows that are there already may raise an error */
	SPINE_SINK_SKIP_EXISTING,	/* they are left alone, or updated */

	/* of sinks that update rows: what becomes of partial rows (rows.h), in this order */
	SPINE_SINK_UPDATE_PARTIAL,
	SPINE_SINK_INSERT_PARTIAL,

	SPINE_SINK_STATEMENTS
} SpineSinkStatement;

/* What applying events came to. */
typedef struct SpineApplyCounts
{
	uint64		nupserts;		/* rows written by sinks that update rows */
	uint64		nunchanged;		/* rows of theirs that were not: what is there is the same or newer */
	uint64		nfiltered;		/* events that a sink's filter has left out, over all sinks */
} SpineApplyCounts;

/* A sink while events are added to it in one transaction; its kind's own. */
typedef struct SpineSinkWriter SpineSinkWriter;

typedef struct SpineSinkKind
{
	const char *mode;			/* as in spine_sinks.mode */

	/*
	 * It updates rows that are there already: it has a key, by default the primary key; a
	 * column that the record lacks stays as it is; and its rows count as upserts.
	 */
	bool		updates_rows;

	/*
	 * Checks the key and the version of a sink whose columns are known, and sets what
	 * follows from them.  Raises an error (structural).  NULL: there is nothing to check.
	 */
	void		(*describe)(SpineSink *sink, const SpineSinkDefinition *definition);

	/*
	 * Appends a statement that reads spine_rows (rows.h), or nothing if it has no such
	 * statement.  left_out, by column: those that the statement does not name; NULL: none.
	 */
	void		(*write_statement)(StringInfo sql, const SpineSink *sink, SpineSinkStatement which,
								   const bool *left_out);

	/*
	 * Chooses the events whose rows are stored: it sets kept and nkept, and left_out and
	 * partial where columns are missing.  It may bind columns of all events for that.
	 * NULL: the rows of all events are stored, and none is partial.
	 */
	void		(*reduce)(const SpineSink *sink, SpineRows *rows);

	/*
	 * A faster way than the statement SPINE_SINK_PLAIN, with the same result.  begin makes a
	 * writer in the current memory context, which lives until the end of the transaction, or
	 * NULL: take the statement.  add takes events in log order, which need not last, and may
	 * keep their rows; held says how many bytes it keeps; finish writes them; explain says to
	 * users how, or NULL: by the statement.  All are called as the role that the sink runs as,
	 * add and finish in a memory context that is reset afterwards.  NULL: there is no such way.
	 */
	SpineSinkWriter *(*begin)(SpineSink *sink);
	void		(*add)(SpineSinkWriter *writer, const SpineEvent *events, size_t n,
					   SpineApplyCounts *counts);
	size_t		(*held)(const SpineSinkWriter *writer);
	void		(*finish)(SpineSinkWriter *writer, SpineApplyCounts *counts);
	const char *(*explain)(const SpineSinkWriter *writer);
} SpineSinkKind;

struct SpineSink
{
	const SpineSinkKind *kind;
	Oid			table;
	char	   *table_name;		/* qualified and quoted */
	List	   *relations;		/* the table; of a view: it, and what is below it: view.h */
	Oid			owner;			/* the pipeline's */
	Oid			run_as;			/* the role that its statements run as */
	int			ncolumns;
	SpineColumn *columns;
	SpineProjection *projection;	/* NULL: no SQL over the record */
	int			nkeys;
	int		   *keys;			/* indexes into columns */
	int			version;		/* index into columns, -1: it has none */
	MemoryContext context;		/* that the sink lives in */
	TupleDesc	row_type;		/* of spine_rows: see rows.h */
	int			nwords;			/* how many m<i> they have */
	bool		may_be_written_late;	/* behind the rows of later pieces and sinks: see postpone.h */
	int			mixed;			/* sink_upsert.c's: for how many transactions rows are not kept */
	char	   *sql[SPINE_SINK_STATEMENTS];
	SpineStatement statements[SPINE_SINK_STATEMENTS];	/* prepared under run_as */

	/* of sinks that write rows without a statement: set by the first writer */
	bool		knows_target;
	SpineRowTarget *target;		/* of inserts; NULL: they need a statement */
	SpineUpsertTarget *upsert_target;	/* NULL: upserts need a statement */
};

/* The kinds. */
extern const SpineSinkKind spine_sink_append;
extern const SpineSinkKind spine_sink_upsert;

/*
 * Makes a sink: looks its table up, and writes the SQL.  In the current memory context,
 * which is to live as long as the sink; adds the fields that it needs to `fields`.  In a
 * transaction with SPI, with an empty search_path.  Raises an error (structural) when the
 * table or a column is not there, or does not fit.
 */
extern void spine_sink_make(SpineSink *sink, const SpinePipeline *pipeline,
							const SpineSinkDefinition *definition, SpineFieldList *fields,
							size_t max_record_memory);

/* Frees what is not in the sink's memory context. */
extern void spine_sink_release(SpineSink *sink);

/*
 * Is the sink still valid?  The table has its name, and the pipeline's owner may still act for
 * the role that the statements run as.  In a transaction that has locked the table.
 */
extern bool spine_sink_is_current(const SpineSink *sink);

/* For the kinds: the index of a column that is a key or version; raises an error. */
extern int	spine_sink_find_column(const SpineSink *sink, const char *name);

/*
 * For the kinds: "INSERT INTO table AS t (columns) SELECT ... FROM spine_rows AS u" of all
 * rows, with defaults for what they miss, and without the columns that are left out.
 */
extern void spine_sink_append_insert(StringInfo sql, const SpineSink *sink, const bool *left_out);

/* For the kinds: the names of the key's columns, with commas between them. */
extern void spine_sink_append_keys(StringInfo sql, const SpineSink *sink);

/* Is the column one of the key? */
extern bool spine_sink_is_key(const SpineSink *sink, int column);

/* Do updates set the column?  Not those that are left out (NULL: none is). */
extern bool spine_sink_sets(const SpineSink *sink, int column, const bool *left_out);

/* The condition that row t of the table has the key of row u of spine_rows. */
extern void spine_sink_append_same_key(StringInfo sql, const SpineSink *sink);

#endif							/* SPINE_SINK_H */

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
#include "catalog/pipeline.h"
#include "lib/stringinfo.h"
#include "storage/lockdefs.h"

typedef struct SpineSink SpineSink;

/* The events of a batch on their way into the rows of a sink: see rows.h. */
typedef struct SpineRows SpineRows;

/* The two ways to run a sink's statement. */
typedef enum SpineSinkStatement
{
	SPINE_SINK_PLAIN,			/* rows that are there already may raise an error */
	SPINE_SINK_SKIP_EXISTING,	/* they are left alone, or updated */
	SPINE_SINK_STATEMENTS
} SpineSinkStatement;

typedef struct SpineSinkKind
{
	const char *mode;			/* as in spine_sinks.mode */
	LOCKMODE	lock;			/* on the table, while a batch is applied */
	bool		counts_upserts; /* its rows count as upserts in the metrics */

	/*
	 * Checks the key and the version of a sink whose columns are known, and sets what
	 * follows from them.  Raises an error (structural).  NULL: there is nothing to check.
	 */
	void		(*describe)(SpineSink *sink, const SpineSinkDefinition *definition);

	/* Appends a statement that reads spine_rows (rows.h), for one of the two ways. */
	void		(*write_statement)(StringInfo sql, const SpineSink *sink, SpineSinkStatement which);

	/*
	 * Chooses the events whose rows are stored: it sets kept and nkept.  It may bind
	 * columns of all events for that.  NULL: the rows of all events are stored.
	 */
	void		(*reduce)(const SpineSink *sink, SpineRows *rows);
} SpineSinkKind;

struct SpineSink
{
	const SpineSinkKind *kind;
	Oid			table;
	char	   *table_name;		/* qualified and quoted */
	Oid			owner;			/* the pipeline's */
	Oid			run_as;			/* the role that its statements run as */
	int			ncolumns;
	SpineColumn *columns;
	SpineProjection *projection;	/* NULL: no SQL over the record */
	int			nkeys;
	int		   *keys;			/* indexes into columns */
	int			version;		/* index into columns, -1: it has none */
	bool		reduce_in_sql;	/* keys or a version that C cannot compare */
	TupleDesc	row_type;		/* of spine_rows: see rows.h */
	int			ndefaults;		/* columns that have a default */
	bool		packs_missing;	/* see rows.c */
	char	   *sql[SPINE_SINK_STATEMENTS];
	SpineStatement statements[SPINE_SINK_STATEMENTS];	/* prepared under run_as */
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

/* For the kinds: "INSERT INTO table AS t (columns) SELECT ..." of all rows. */
extern void spine_sink_append_insert(StringInfo sql, const SpineSink *sink);

/* For the kinds: the names of the key's columns, with commas between them. */
extern void spine_sink_append_keys(StringInfo sql, const SpineSink *sink);

#endif							/* SPINE_SINK_H */

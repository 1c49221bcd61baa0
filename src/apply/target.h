/*
 * target.h
 *		A sink put together with its target table as that is now: the columns,
 *		the SQL, and the plan of fields to decode.
 */
#ifndef SPINE_TARGET_H
#define SPINE_TARGET_H

#include "apply/bind.h"
#include "catalog/pipeline.h"
#include "event/format.h"
#include "executor/spi.h"

/* The name by which the statements find the rows of a batch. */
#define SPINE_ROWS			"spine_rows"

typedef struct SpineTarget
{
	const SpineSink *sink;
	char	   *table_name;		/* qualified and quoted */
	Oid			owner;			/* the pipeline's */
	Oid			run_as;			/* the role its statements run as */
	int			ncolumns;
	SpineColumn *columns;
	int			nkeys;
	int		   *keys;			/* indexes into columns */
	int			version;		/* index into columns, -1 in append mode */
	int			ndefaults;		/* columns that have a default */
	bool		packs_missing;	/* see target.c */
	bool		reduce_in_sql;	/* keys or version that C cannot compare */
	TupleDesc	rows;			/* of SPINE_ROWS: see target.c */
	char	   *insert;			/* append: plain INSERT; upsert: NULL */
	char	   *merge;			/* upsert, or append that skips what is there;
								 * NULL: append without a key */

	/* kept plans, made at first use, under run_as */
	SPIPlanPtr	insert_plan;
	SPIPlanPtr	merge_plan;
} SpineTarget;

/* What one pipeline needs: the fields to decode, and the targets. */
typedef struct SpinePlan
{
	MemoryContext context;
	int			nfields;
	SpineFieldSpec *fields;
	const SpineFormat *format;
	SpineDecoder *decoder;		/* of these fields */
	int			ntargets;
	SpineTarget *targets;
} SpinePlan;

/*
 * Looks the targets up.  Lives in a context of its own below TopMemoryContext.
 * In a transaction; raises an error (structural) when a table or column is not
 * there.
 */
extern SpinePlan *spine_make_plan(const SpinePipeline *pipeline);

/* Safe on NULL. */
extern void spine_free_plan(SpinePlan *plan);

/* Was a target table altered since the plan was made, as far as we were told? */
extern bool spine_plan_is_stale(const SpinePlan *plan);

/*
 * Does the plan hold?  In a transaction that has locked the targets: none was
 * altered, its SQL still names the tables that the sinks mean, and the
 * pipeline's owner may still act for the roles that it runs as.
 */
extern bool spine_plan_is_current(const SpinePlan *plan);

#endif							/* SPINE_TARGET_H */

/*
 * table_row.h
 *		Whole rows of a table, of the columns that a sink gives; for what writes them without a
 *		statement.
 */
#ifndef SPINE_TABLE_ROW_H
#define SPINE_TABLE_ROW_H

#include "compat.h"

#include "access/attnum.h"
#include "nodes/execnodes.h"

/* What can be known of a table before a transaction: it is kept from one to the next. */
typedef struct SpineRowTarget
{
	Oid			table;
	int			nattributes;
	int		   *columns;		/* by attribute: which column gives its values; -1: none */
	Expr	  **defaults;		/* by attribute; NULL: null */
	Bitmapset  *written;		/* attributes, as the executor numbers them */
	bool		may_look_at_table;	/* a default may */
} SpineRowTarget;

/* The attributes that are inserted, updated and read; as the executor numbers them. */
typedef struct SpineRights
{
	const Bitmapset *inserted;
	const Bitmapset *updated;
	const Bitmapset *selected;
} SpineRights;

/* Makes rows while they are written. */
typedef struct SpineRowMaker
{
	const SpineRowTarget *target;
	EState	   *estate;
	ExprState **defaults;		/* by attribute; NULL: not yet needed */
} SpineRowMaker;

/*
 * The target of rows that give these columns (NULL is allowed for n = 0).  In the current
 * memory context.  In a transaction, as the role that the rows are written as, with a lock on
 * the table.
 */
extern SpineRowTarget *spine_row_target_make(Oid table, const AttrNumber *columns, int ncolumns);

/*
 * Makes the table the first of the executor's range table.  Raises an error unless the
 * current role may insert, and update and read what it says, if anything.
 */
extern void spine_row_target_open(const SpineRowTarget *target, EState *estate, const SpineRights *rights);

/* Lives as long as the executor's state. */
extern SpineRowMaker spine_row_maker(const SpineRowTarget *target, EState *estate);

/*
 * Puts a row into the slot: its values by column of the target; they need not last longer than
 * the slot is not materialized.  A column that is missing takes its default.
 */
extern void spine_row_make(SpineRowMaker *maker, TupleTableSlot *slot, const Datum *values,
						   const bool *nulls, const bool *missing);

#endif							/* SPINE_TABLE_ROW_H */

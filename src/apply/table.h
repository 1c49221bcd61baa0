/*
 * table.h
 *		A table that a sink writes to, as the system catalog describes it now.
 */
#ifndef SPINE_TABLE_H
#define SPINE_TABLE_H

#include "compat.h"

#include "access/attnum.h"
#include "nodes/pg_list.h"

typedef struct SpineTableColumn
{
	AttrNumber	number;
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
	bool		is_generated;	/* or an expression of a view: it cannot be written */
	bool		is_identity;	/* GENERATED ALWAYS: it may be inserted, but not updated */
	char	   *default_expr;	/* as SQL, or NULL */
	bool		takes_null;		/* or a trigger may replace the null */
} SpineTableColumn;

typedef struct SpineTable
{
	char	   *name;			/* qualified and quoted */
	Oid			owner;
	int			ncolumns;
	SpineTableColumn *columns;	/* in the table's order */
} SpineTable;

/*
 * Looks the target of a sink up, in the current memory context.  In a transaction with SPI,
 * with an empty search_path, so that defaults are spelled in full.  Raises an error
 * (structural) when it is not there, or is neither a table nor a view that PostgreSQL
 * itself can insert into.  Keeps AccessShareLock on the target and what is below it.
 */
extern SpineTable *spine_table_look_up(Oid target);

/* Raises an error (structural) when the table has no such column. */
extern const SpineTableColumn *spine_table_find_column(const SpineTable *table, const char *name);

#endif							/* SPINE_TABLE_H */

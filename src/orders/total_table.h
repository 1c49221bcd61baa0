/*
 * total_table.h
 *		Writes rows of the tables of totals without statements.
 */
#ifndef SPINE_TOTAL_TABLE_H
#define SPINE_TOTAL_TABLE_H

#include "compat.h"

#include "utils/relcache.h"

typedef struct SpineTotalColumn
{
	const char *name;
	Oid			type;
	bool		takes_default;	/* always */
} SpineTotalColumn;

/* The columns that the extension has made; the first of them are the primary key. */
typedef struct SpineTotalShape
{
	int			nkeys;
	int			ncolumns;
	const SpineTotalColumn *columns;
} SpineTotalShape;

typedef struct SpineTotalTable SpineTotalTable;

/*
 * Raises an error unless the table has these columns and this primary key; it may have
 * more columns, indexes and checks.  With an active snapshot, and a lock on the relation
 * for writing, which stays open.  No triggers of the table will run.
 */
extern SpineTotalTable *spine_total_table_open(Relation relation, const SpineTotalShape *shape);

extern void spine_total_table_close(SpineTotalTable *table);

/*
 * Finds the row with this key, waits for others who write it, and locks it.  Returns its
 * values, which are good until the next call for the table, or NULL: there is no such row.
 */
extern const Datum *spine_total_table_find(SpineTotalTable *table, const Datum *key);

/* Writes these values into the row that was found. */
extern void spine_total_table_update(SpineTotalTable *table, const Datum *values);

/*
 * Adds a row.  nulls: NULL if no value is null.  Returns the row's values, with the defaults
 * that it has taken, which are good until the next call for the table.
 */
extern const Datum *spine_total_table_insert(SpineTotalTable *table, const Datum *values, const bool *nulls);

#endif							/* SPINE_TOTAL_TABLE_H */

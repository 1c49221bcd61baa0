/*
 * expression.h
 *		SQL expressions over a record: from their text to what the planner takes.
 */
#ifndef SPINE_EXPRESSION_H
#define SPINE_EXPRESSION_H

#include "apply/table.h"

#include "access/tupdesc.h"
#include "nodes/nodes.h"
#include "utils/queryenvironment.h"

/* The relation that an expression reads the record from, and its place among the others. */
#define SPINE_RECORD_RELATION	"record"
#define SPINE_RECORD_INDEX		1

/*
 * Analyses the text of a column's source, or of a filter (column is NULL), over a record
 * whose row is of this type.  The result is of the column's type, by a cast as INSERT makes
 * it, or boolean.  It refers to the record as to the first of a query's relations.
 *
 * Raises an error with the place in the text when that is not one expression, or not of the
 * type.  In a transaction, as the role that the expression will run as, with the settings of
 * role.h.
 */
extern Node *spine_expression_analyse(const char *text, const SpineTableColumn *column,
									  TupleDesc record);

/*
 * Does an analysed expression look rows up, in a sub-SELECT or in a function that is not
 * PostgreSQL's own?  What it yields may be another value once more rows are there.
 */
extern bool spine_expression_looks_up(Node *expr);

/* Names the expression's column, or the filter, in the error that is being raised. */
extern void spine_expression_name_in_error(const char *column);

/*
 * What makes the record known to a query by its name.  rows: a tuplestore of such rows;
 * NULL: the query is not to run.
 */
extern QueryEnvironment *spine_expression_environment(TupleDesc record, void *rows);

#endif							/* SPINE_EXPRESSION_H */

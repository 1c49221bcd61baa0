/*
 * statement.h
 *		A statement that runs again and again: its plan is kept.
 */
#ifndef SPINE_STATEMENT_H
#define SPINE_STATEMENT_H

#include "compat.h"
#include "executor/spi.h"

/* All zero: not prepared yet. */
typedef struct SpineStatement
{
	char	   *query;
	SPIPlanPtr	plan;
} SpineStatement;

/*
 * The plan of the statement for this query, which is prepared if the statement has no
 * plan yet, or one of another text (the extension's schema was changed).  The plan is
 * kept until the text is another, or spine_statement_free.  With SPI; raises what the
 * parser says.
 */
extern SPIPlanPtr spine_statement_prepare(SpineStatement *statement, const char *query,
										  int nargs, Oid *types);

/* Frees the plan; the statement may be prepared again. */
extern void spine_statement_free(SpineStatement *statement);

#endif							/* SPINE_STATEMENT_H */

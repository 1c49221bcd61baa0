/*
 * compare.h
 *		How the values of a column are compared: as the default btree operator class of the type
 *		does, by the column's collation.
 */
#ifndef SPINE_COMPARE_H
#define SPINE_COMPARE_H

#include "compat.h"

#include "access/stratnum.h"
#include "apply/column.h"

/*
 * The function that compares two values, with the column's collation.  It lasts as long as the
 * process.  Raises an error (structural) when the type has no order.  In a transaction.
 */
extern FmgrInfo *spine_compare_function(const SpineColumn *column);

/* The operator of this btree strategy as SQL that needs no search_path.  The same. */
extern char *spine_compare_operator(const SpineColumn *column, StrategyNumber strategy);

#endif							/* SPINE_COMPARE_H */

/*
 * changes.h
 *		The newest orders that a statement has written, in spine_order_changes.
 */
#ifndef SPINE_CHANGES_H
#define SPINE_CHANGES_H

#include "orders/sums.h"

typedef struct SpineChanges SpineChanges;

/* The list is empty.  Its memory is in the context that is current at each call. */
extern SpineChanges *spine_changes_make(void);

/* Adds an order, if it is among the newest so far.  The order is copied. */
extern void spine_changes_add(SpineChanges *changes, const SpineOrder *order);

/*
 * Writes the list into spine_order_changes, unless it is empty.  With an active snapshot,
 * and a lock on the table for writing.  Returns whether it is time to cut the changes.
 */
extern bool spine_changes_write(const SpineChanges *changes, Relation relation);

/* Removes old lists.  The schema is the extension's. */
extern void spine_changes_cut(Oid schema);

#endif							/* SPINE_CHANGES_H */

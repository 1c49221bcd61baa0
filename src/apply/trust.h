/*
 * trust.h
 *		May a pipeline write to its tables?  Code that is attached to them must not get
 *		rights that its author does not have, and a crash must not empty them.
 */
#ifndef SPINE_TRUST_H
#define SPINE_TRUST_H

#include "compat.h"

/* A table that is written to, and the role that the statements run as. */
typedef struct SpineTrustedTable
{
	Oid			table;
	Oid			run_as;
} SpineTrustedTable;

/* What is known of the tables of one plan. */
typedef struct SpineTrust SpineTrust;

/*
 * Nothing is looked at yet.  Goes with the current memory context, which holds the tables
 * as well.
 */
extern SpineTrust *spine_trust_make(const SpineTrustedTable *tables, int n);

/*
 * Raises an error (structural) that says what is wrong: a trigger that the rows of a table
 * reach runs a function of a role that the applying role does not trust; a partition, or
 * what is below a view, belongs to such a role; a table is not permanent; a bookkeeping
 * table has a trigger that is not the extension's.  In a transaction that has locked the
 * tables; locks the bookkeeping tables.  Costs three locks as long as nothing changes.
 */
extern void spine_trust_check(SpineTrust *trust);

/*
 * Until `context` is reset or deleted, no code runs as a table's role after a change, unless
 * the tables were checked again.  The context must end with the (sub)transaction at the
 * latest.
 */
extern void spine_trust_guard(SpineTrust *trust, MemoryContext context);

#endif							/* SPINE_TRUST_H */

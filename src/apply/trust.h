/*
 * trust.h
 *		May a pipeline write to its tables?  Code that hangs on them must not get
 *		rights that its author does not have, and a crash must not empty them.
 */
#ifndef SPINE_TRUST_H
#define SPINE_TRUST_H

#include "apply/target.h"

/*
 * Raises an error (structural) that says what is wrong: a trigger that a target's
 * rows reach runs a function of a role that the applying role does not trust; a
 * partition belongs to such a role; a target is not permanent; a bookkeeping table
 * has a trigger that is not the extension's.  In a transaction that has locked the
 * targets; locks the bookkeeping tables.  Costs next to nothing while the caches
 * have not been told of a change.
 *
 * Until the transaction ends, code that would run as a target's role is held back
 * and the tables are looked at again as soon as something has changed.
 */
extern void spine_check_trust(const SpinePlan *plan);

#endif							/* SPINE_TRUST_H */

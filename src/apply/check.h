/*
 * check.h
 *		Would PostgreSQL run the statements of a plan?
 */
#ifndef SPINE_CHECK_H
#define SPINE_CHECK_H

#include "apply/plan.h"

/*
 * Has the statements of the sinks planned as a batch would run them, but runs none.  Raises
 * what PostgreSQL says: the role lacks a privilege, the key has no unique index, a column
 * cannot be written, the target is not a table and cannot stand for one.  In a transaction
 * with SPI.
 */
extern void spine_plan_check(const SpinePlan *plan);

#endif							/* SPINE_CHECK_H */

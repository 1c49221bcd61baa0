/*
 * postpone.h
 *		Which sinks' rows may be written late: when a transaction of several pieces ends, and
 *		behind the rows of later sinks.
 */
#ifndef SPINE_POSTPONE_H
#define SPINE_POSTPONE_H

#include "apply/plan.h"

/*
 * Sets may_be_written_late of the sinks of a plan that is nearly made, and watches what that
 * depends on.  In a transaction that has locked the sinks' tables.
 */
extern void spine_postpone_find(SpinePlan *plan);

#endif							/* SPINE_POSTPONE_H */

/*
 * session.h
 *		Which rows of the totals a session counts in.
 */
#ifndef SPINE_SESSION_H
#define SPINE_SESSION_H

#include "compat.h"

/*
 * A number that no other session has at the same time; a later session may have it.  A
 * session has several numbers, one after the other, which are the same modulo 262144.
 */
extern int32 spine_session(void);

/*
 * Adds up the rows of the session's other numbers, if it is time for that.  The schema
 * is the extension's.
 */
extern void spine_session_add_up(Oid schema);

#endif							/* SPINE_SESSION_H */

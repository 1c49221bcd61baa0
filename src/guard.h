/*
 * guard.h
 *		Keeps spine's processes out of a database that is about to go.
 */
#ifndef SPINE_GUARD_H
#define SPINE_GUARD_H

/* Installs the hooks; called from _PG_init. */
extern void spine_guard_init(void);

#endif							/* SPINE_GUARD_H */

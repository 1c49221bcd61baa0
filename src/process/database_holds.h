/*
 * database_holds.h
 *		Keeps spine's processes out of a database that is about to go.
 */
#ifndef SPINE_DATABASE_HOLDS_H
#define SPINE_DATABASE_HOLDS_H

/* Installs the hooks; called from _PG_init. */
extern void spine_guard_init(void);

#endif							/* SPINE_DATABASE_HOLDS_H */

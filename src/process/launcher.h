/*
 * launcher.h
 *		The process that keeps all other processes of spine running.
 */
#ifndef SPINE_LAUNCHER_H
#define SPINE_LAUNCHER_H

#include "compat.h"

/*
 * Adds a process, of which the server is to have one while any database has the
 * extension and is_wanted() says so.  Called from _PG_init, before spine_launcher_init.
 * `function` is its exported main function; `name` is shown in pg_stat_activity; both
 * must stay.  is_wanted is called in the launcher, without the lock, and again after
 * each reload; it must not raise an error.
 */
extern void spine_launcher_add(const char *function, const char *name, bool (*is_wanted)(void));

/*
 * The first thing that the process does: takes its place, with the argument of its main
 * function.  False: another process has it.  Takes the lock.
 */
extern bool spine_launcher_claim(Datum arg);

/* Registers the launcher; called from _PG_init. */
extern void spine_launcher_init(void);

extern PGDLLEXPORT void spine_launcher_main(Datum arg);

#endif							/* SPINE_LAUNCHER_H */

/*
 * launcher.h
 *		The process that keeps all others of spine running.
 */
#ifndef SPINE_LAUNCHER_H
#define SPINE_LAUNCHER_H

#include "compat.h"

/* Registers the launcher; called from _PG_init. */
extern void spine_launcher_init(void);

extern PGDLLEXPORT void spine_launcher_main(Datum arg);

#endif							/* SPINE_LAUNCHER_H */

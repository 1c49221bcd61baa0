/*
 * database_holds.h
 *		Keeps spine's processes out of a database that is about to be dropped or moved.
 */
#ifndef SPINE_DATABASE_HOLDS_H
#define SPINE_DATABASE_HOLDS_H

#include "compat.h"

/* Installs the hooks; called from _PG_init. */
extern void spine_database_holds_init(void);

#endif							/* SPINE_DATABASE_HOLDS_H */

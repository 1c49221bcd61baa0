/*
 * catalog_changes.h
 *		Tells the other processes what a transaction has changed, once it is committed.
 */
#ifndef SPINE_CATALOG_CHANGES_H
#define SPINE_CATALOG_CHANGES_H

#include "compat.h"

/*
 * This transaction has changed a server or a user mapping.  The workers look again when it
 * has committed; not when it is prepared first, until something else wakes them.
 */
extern void spine_catalog_changes_note_server(void);

#endif							/* SPINE_CATALOG_CHANGES_H */

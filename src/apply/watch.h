/*
 * watch.h
 *		What a plan was made of, and whether that has changed since.
 *
 * Functions, operators and enums are not told apart: when one changes, every plan is out of
 * date.  They change seldom.
 */
#ifndef SPINE_WATCH_H
#define SPINE_WATCH_H

#include "compat.h"

#include "lib/ilist.h"
#include "nodes/pg_list.h"

typedef struct SpineWatch
{
	bool		is_stale;		/* something has changed */

	/* watch.c's */
	dlist_node	node;
	bool		is_complete;
	List	   *relations;
	int			ntypes;
	uint32	   *types;			/* hash values of the cache of types */
} SpineWatch;

/*
 * Begins to watch: before anything is looked up.  The watch ends with the current memory
 * context.
 */
extern SpineWatch *spine_watch_begin(void);

/* Adds a relation, or a type with the domains, elements and attributes it is made of. */
extern void spine_watch_relation(SpineWatch *watch, Oid relation);
extern void spine_watch_type(SpineWatch *watch, Oid type);

/* Adds a type by the hash of its entry in the cache TYPEOID. */
extern void spine_watch_type_entry(SpineWatch *watch, uint32 hash_value);

/* From here on, only a change of what was added counts. */
extern void spine_watch_complete(SpineWatch *watch);

#endif							/* SPINE_WATCH_H */

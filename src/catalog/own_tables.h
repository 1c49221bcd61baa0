/*
 * own_tables.h
 *		The extension's own tables: the catalog and the bookkeeping.  Code that writes
 *		to them has rights that the triggers of others must not get.
 */
#ifndef SPINE_OWN_TABLES_H
#define SPINE_OWN_TABLES_H

#include "compat.h"

#include "catalog/pg_trigger.h"
#include "nodes/pg_list.h"

/* condition: the WHEN clause as a node tree, or NULL. */
typedef void (*SpineTriggerCheck)(const Form_pg_trigger trigger, const char *condition, void *arg);

/* Calls check for each trigger of the table that may fire.  Needs no lock on it. */
extern void spine_triggers_check(Oid table, SpineTriggerCheck check, void *arg);

/*
 * Makes a table of this name one of the extension's own.  written_by_batches: batches
 * write to it, by themselves or through the extension's triggers.  When the server
 * starts; the name is not copied.
 */
extern void spine_own_tables_add(const char *name, bool written_by_batches);

/* The tables that batches write to, always in the same order.  In a transaction. */
extern List *spine_own_tables_written_by_batches(void);

/* Raises an error if this table of the extension has a trigger that is not the extension's. */
extern void spine_own_tables_check(Oid table);

/* For messages: the name of a table, qualified and quoted. */
extern char *spine_table_name(Oid table);

/*
 * When the server starts: adds the tables of the catalog and the bookkeeping.  From then
 * on nobody makes a trigger on the extension's own tables, or replaces one of its triggers.
 */
extern void spine_own_tables_init(void);

#endif							/* SPINE_OWN_TABLES_H */

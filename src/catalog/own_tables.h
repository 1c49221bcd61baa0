/*
 * own_tables.h
 *		The extension's own tables, the catalog and the bookkeeping: what is
 *		written to them is written with rights that nobody else's trigger must get.
 */
#ifndef SPINE_OWN_TABLES_H
#define SPINE_OWN_TABLES_H

#include "compat.h"

#include "catalog/pg_trigger.h"

/* condition: the WHEN clause as a node tree, or NULL. */
typedef void (*SpineTriggerCheck) (const Form_pg_trigger trigger, const char *condition, void *arg);

/* Calls check for each trigger of the table that may fire.  Needs no lock on it. */
extern void spine_check_each_trigger(Oid table, SpineTriggerCheck check, void *arg);

/* Raises an error when such a table has a trigger that is not the extension's. */
extern void spine_check_own_table(Oid table);

/* Does the object belong to the extension? */
extern bool spine_is_extension_member(Oid class_id, Oid object);

/* For messages: the name of a table, qualified and quoted. */
extern char *spine_table_name(Oid table);

/* When the server starts: nobody makes a trigger on these tables, or replaces one. */
extern void spine_own_tables_init(void);

#endif							/* SPINE_OWN_TABLES_H */

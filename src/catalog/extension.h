/*
 * extension.h
 *		The extension in the current database.
 */
#ifndef SPINE_EXTENSION_H
#define SPINE_EXTENSION_H

#include "compat.h"

/*
 * The extension's schema in the current database, quoted for use in SQL and
 * palloc'ed, or NULL when the extension is not there.  In a transaction.
 */
extern char *spine_extension_schema(void);

/* A table of the extension's; InvalidOid when this version of the extension has none such. */
extern Oid	spine_extension_find_table(const char *name);

/* The same; raises an error when it is not there. */
extern Oid	spine_extension_table(const char *name);

/* Does the object belong to the extension? */
extern bool spine_extension_has(Oid class_id, Oid object);

/* Does the current user own the extension of this database, if there is one? */
extern bool spine_owns_extension(void);

#endif							/* SPINE_EXTENSION_H */

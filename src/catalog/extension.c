/*
 * extension.c
 *		Finds the extension in the current database: its schema, its tables, its owner.
 */
#include "catalog/extension.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* The row of pg_extension; false: the extension is not there. */
static bool
find_extension(FormData_pg_extension *found)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("spine"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		memcpy(found, GETSTRUCT(tuple), offsetof(FormData_pg_extension, extrelocatable));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

char *
spine_extension_schema(void)
{
	FormData_pg_extension extension;
	char	   *name;

	if (!find_extension(&extension))
		return NULL;
	name = get_namespace_name(extension.extnamespace);
	return name ? pstrdup(quote_identifier(name)) : NULL;
}

Oid
spine_extension_find_table(const char *name)
{
	FormData_pg_extension extension;

	return find_extension(&extension) ? get_relname_relid(name, extension.extnamespace) : InvalidOid;
}

Oid
spine_extension_table(const char *name)
{
	Oid			table = spine_extension_find_table(name);

	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the extension spine has no table %s", name)));
	return table;
}

bool
spine_extension_has(Oid class_id, Oid object)
{
	Oid			extension = getExtensionOfObject(class_id, object);

	return OidIsValid(extension) && extension == get_extension_oid("spine", true);
}

bool
spine_owns_extension(void)
{
	FormData_pg_extension extension;

	return find_extension(&extension) && has_privs_of_role(GetUserId(), extension.extowner);
}

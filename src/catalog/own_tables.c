/*
 * own_tables.c
 *		Keeps others' triggers off the extension's own tables.
 *
 * Whoever has the privilege TRIGGER can make one, or replace one of the extension's
 * own, and GRANT ALL ON ALL TABLES is common.  So both are refused; and since they
 * may be there already (made while the server did without this library), what
 * writes to these tables with somebody else's rights looks first.
 */
#include "catalog/own_tables.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static const char *const own_tables[] = {
	"spine_pipelines", "spine_sinks", "spine_offsets", "spine_dead_letters", "spine_order_totals"
};

static object_access_hook_type prev_object_access = NULL;

PG_FUNCTION_INFO_V1(spine_check_triggers);

char *
spine_table_name(Oid table)
{
	char	   *name = get_rel_name(table);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), name) :
		psprintf("with OID %u", table);
}

bool
spine_is_extension_member(Oid class_id, Oid object)
{
	Oid			extension = getExtensionOfObject(class_id, object);

	return OidIsValid(extension) && extension == get_extension_oid("spine", true);
}

static bool
is_own_table(Oid table)
{
	char	   *name = get_rel_name(table);

	for (int i = 0; name && i < (int) lengthof(own_tables); i++)
	{
		if (strcmp(name, own_tables[i]) == 0)
			return spine_is_extension_member(RelationRelationId, table);
	}
	return false;
}

/* From the system table: the relation cache would want a lock on the relation. */
void
spine_check_each_trigger(Oid table, SpineTriggerCheck check, void *arg)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	scan = systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		const Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		bool		isnull;
		Datum		condition;

		if (trigger->tgenabled == TRIGGER_DISABLED || trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA)
			continue;
		condition = heap_getattr(tuple, Anum_pg_trigger_tgqual, RelationGetDescr(rel), &isnull);
		check(trigger, isnull ? NULL : TextDatumGetCString(condition), arg);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* What a foreign key does, it does as the table's owner, and triggers with it. */
static void
check_foreign_key(const Form_pg_trigger trigger)
{
	if (OidIsValid(trigger->tgconstrrelid) &&
		!spine_is_extension_member(RelationRelationId, trigger->tgconstrrelid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table %s has a foreign key to %s, which is spine's own",
						spine_table_name(trigger->tgconstrrelid), spine_table_name(trigger->tgrelid)),
				 errhint("Drop the foreign key.")));
}

static void
check_own_trigger(const Form_pg_trigger trigger, const char *condition, void *arg)
{
	if (trigger->tgisinternal)
		check_foreign_key(trigger);
	else if (!spine_is_extension_member(ProcedureRelationId, trigger->tgfoid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" of table %s runs function %s, which is not a part of spine",
						NameStr(trigger->tgname), spine_table_name(trigger->tgrelid),
						format_procedure_qualified(trigger->tgfoid)),
				 errhint("Drop the trigger: this table may have none but spine's own.")));
}

void
spine_check_own_table(Oid table)
{
	spine_check_each_trigger(table, check_own_trigger, NULL);
}

/* spine_check_triggers(regclass) */
Datum
spine_check_triggers(PG_FUNCTION_ARGS)
{
	Oid			table = PG_GETARG_OID(0);

	if (!is_own_table(table))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table of spine's own", spine_table_name(table))));

	/* before it is looked at, so that nobody adds a trigger afterwards */
	LockRelationOid(table, RowExclusiveLock);
	spine_check_own_table(table);
	PG_RETURN_VOID();
}

/* current_orders may have others' triggers, but they must not replace those of spine_count_orders. */
static bool
replaces_count(const Form_pg_trigger trigger)
{
	return strncmp(NameStr(trigger->tgname), "spine_count_", strlen("spine_count_")) == 0 &&
		spine_is_extension_member(RelationRelationId, trigger->tgrelid);
}

static void
guard_creation(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (access != OAT_POST_CREATE || class_id != TriggerRelationId || creating_extension || IsBinaryUpgrade)
		return;

	/* it is made by this very command, and so visible to this snapshot only */
	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object_id));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) && replaces_count((Form_pg_trigger) GETSTRUCT(tuple)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot make trigger \"%s\" of table %s: the name belongs to spine's own, which move the totals",
						NameStr(((Form_pg_trigger) GETSTRUCT(tuple))->tgname),
						spine_table_name(((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid))));
	if (HeapTupleIsValid(tuple) && is_own_table(((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid))
	{
		const Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if (!trigger->tgisinternal)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("cannot make trigger \"%s\": table %s may have none but spine's own",
							NameStr(trigger->tgname), spine_table_name(trigger->tgrelid))));
		check_foreign_key(trigger);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

void
spine_own_tables_init(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = guard_creation;
}

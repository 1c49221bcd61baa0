/*
 * own_tables.c
 *		Keeps the triggers of others off the extension's own tables.
 *
 * Every role with the privilege TRIGGER can make a trigger, or replace one of the
 * extension's, and GRANT ALL ON ALL TABLES is common.  So both are refused.  But such
 * triggers may exist already, made while the server ran without this library.  So code
 * that writes to these tables with the rights of another role looks for them first.
 */
#include "catalog/own_tables.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/extension.h"
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

#define MAX_OWN_TABLES	16

/* Names of this prefix are for the extension's triggers, on its tables. */
#define RESERVED_PREFIX	"spine_"

typedef struct OwnTable
{
	const char *name;
	bool		written_by_batches;
} OwnTable;

/* Filled when the server starts. */
static OwnTable own_tables[MAX_OWN_TABLES];
static int	nown_tables = 0;

static object_access_hook_type prev_object_access = NULL;

PG_FUNCTION_INFO_V1(spine_check_triggers);

void
spine_own_tables_add(const char *name, bool written_by_batches)
{
	if (nown_tables == MAX_OWN_TABLES)
		elog(ERROR, "no room for table %s among the extension's own", name);
	own_tables[nown_tables++] = (OwnTable) {name, written_by_batches};
}

List *
spine_own_tables_written_by_batches(void)
{
	List	   *tables = NIL;

	Assert(IsTransactionState());
	for (int i = 0; i < nown_tables; i++)
	{
		Oid			table = own_tables[i].written_by_batches ?
			spine_extension_find_table(own_tables[i].name) : InvalidOid;

		if (OidIsValid(table))
			tables = lappend_oid(tables, table);
	}
	return tables;
}

char *
spine_table_name(Oid table)
{
	char	   *name = get_rel_name(table);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), name) :
		psprintf("with OID %u", table);
}

static bool
is_own_table(Oid table)
{
	char	   *name = get_rel_name(table);

	for (int i = 0; name && i < nown_tables; i++)
	{
		if (strcmp(name, own_tables[i].name) == 0)
			return spine_extension_has(RelationRelationId, table);
	}
	return false;
}

/* From the system table: the relation cache would want a lock on the relation. */
void
spine_triggers_check(Oid table, SpineTriggerCheck check, void *arg)
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

/* A foreign key changes rows, and so runs triggers, as the owner of the table it is to. */
static void
check_foreign_key(const Form_pg_trigger trigger)
{
	if (OidIsValid(trigger->tgconstrrelid) &&
		!spine_extension_has(RelationRelationId, trigger->tgconstrrelid))
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
	else if (!spine_extension_has(ProcedureRelationId, trigger->tgfoid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" of table %s runs function %s, which is not a part of spine",
						NameStr(trigger->tgname), spine_table_name(trigger->tgrelid),
						format_procedure_qualified(trigger->tgfoid)),
				 errhint("Drop the trigger: this table may have none but spine's own.")));
}

void
spine_own_tables_check(Oid table)
{
	spine_triggers_check(table, check_own_trigger, NULL);
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

	/* lock first, look then: nobody adds a trigger in between */
	LockRelationOid(table, RowExclusiveLock);
	spine_own_tables_check(table);
	PG_RETURN_VOID();
}

/*
 * Other tables of the extension may have the triggers of others.  But a trigger with the
 * name of one of ours would replace ours.
 */
static bool
has_reserved_name(const Form_pg_trigger trigger)
{
	return strncmp(NameStr(trigger->tgname), RESERVED_PREFIX, strlen(RESERVED_PREFIX)) == 0 &&
		spine_extension_has(RelationRelationId, trigger->tgrelid);
}

/* A trigger that was just made. */
static void
check_new_trigger(const Form_pg_trigger trigger)
{
	const char *name = NameStr(trigger->tgname);

	if (is_own_table(trigger->tgrelid))
	{
		if (trigger->tgisinternal)
			check_foreign_key(trigger);
		else
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("cannot make trigger \"%s\": table %s may have none but spine's own",
							name, spine_table_name(trigger->tgrelid))));
	}
	else if (has_reserved_name(trigger))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot make trigger \"%s\" of table %s: the name belongs to spine's own triggers",
						name, spine_table_name(trigger->tgrelid)),
				 errhint("Use a name that does not begin with \"" RESERVED_PREFIX "\".")));
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

	/* this very command makes it, so that only this snapshot sees it */
	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object_id));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		check_new_trigger((Form_pg_trigger) GETSTRUCT(tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

void
spine_own_tables_init(void)
{
	spine_own_tables_add("spine_pipelines", false);
	spine_own_tables_add("spine_sinks", false);
	spine_own_tables_add("spine_offsets", true);
	spine_own_tables_add("spine_dead_letters", true);

	prev_object_access = object_access_hook;
	object_access_hook = guard_creation;
}

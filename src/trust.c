/*
 * trust.c
 *		Looks at the code that hangs on a pipeline's tables.
 *
 * A statement on a target runs as the target's role, and so do its triggers, which
 * whoever has the privilege TRIGGER can make.  A trigger has no owner.  Its function
 * has one, and must belong to a role that could do as much anyway; its WHEN
 * condition could call anything with any arguments, and so may use only what has no
 * effects.
 *
 * A batch locks a target before it looks, so that nobody adds a trigger afterwards.
 * The partitions are not locked: somebody's work on an old one would hold up the
 * batch.  Instead the functions that hang on them are stopped at their first call,
 * and everything is looked at again, when the caches have been told of a change by
 * then.  A partition is locked before its triggers run, and that lock brings the news.
 */
#include "trust.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* What a batch writes to with its own rights, or through the extension's functions. */
static const char *const bookkeeping[] = {
	"spine_offsets", "spine_dead_letters", "spine_order_totals"
};
static Oid	bookkeeping_oids[lengthof(bookkeeping)];

/* Those on which nobody else's triggers may be: the catalog as well. */
static const char *const own_tables[] = {
	"spine_pipelines", "spine_sinks", "spine_offsets", "spine_dead_letters", "spine_order_totals"
};

typedef struct CheckedTarget
{
	Oid			table;
	Oid			run_as;
} CheckedTarget;

/* What was checked last; all of it in `checked_context`. */
static MemoryContext checked_context = NULL;
static CheckedTarget *checked = NULL;
static int	nchecked = 0;
static List *watched = NIL;		/* all tables that were looked at */
static bool watch_everything = true;	/* while they are being found out */

/* Changes that the caches have told of, and how many there were at the last check. */
static uint64 nchanges = 1;
static uint64 nchanges_checked = 0;

static object_access_hook_type prev_creation_hook = NULL;
static object_access_hook_type prev_object_access = NULL;
static needs_fmgr_hook_type prev_needs_fmgr_hook = NULL;
static fmgr_hook_type prev_fmgr_hook = NULL;

/* A trigger's condition while it is looked through. */
typedef struct Condition
{
	Oid			role;
	Oid			function;		/* the one that is not allowed */
} Condition;

PG_FUNCTION_INFO_V1(spine_check_triggers);

static char *
role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name ? name : psprintf("with OID %u", role);
}

static char *
table_name(Oid table)
{
	char	   *name = get_rel_name(table);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), name) :
		psprintf("with OID %u", table);
}

static bool
is_extension_member(Oid class_id, Oid object)
{
	Oid			extension = getExtensionOfObject(class_id, object);

	return OidIsValid(extension) && extension == get_extension_oid("spine", true);
}

/* May code of the author's run as the role?  Yes, if the author may do as much anyway. */
static bool
trusts(Oid role, Oid author)
{
	return has_privs_of_role(author, role);
}

static bool
trusts_function(Oid role, Oid function, bool allow_definer)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	proc = (Form_pg_proc) GETSTRUCT(tuple);

	/* SECURITY DEFINER: it runs with its author's rights, not with the role's */
	result = trusts(role, proc->proowner) || (allow_definer && proc->prosecdef) ||
		is_extension_member(ProcedureRelationId, function);
	ReleaseSysCache(tuple);
	return result;
}

/* For check_functions_in_node: is it one that a condition must not call? */
static bool
is_forbidden_function(Oid function, void *context)
{
	Condition  *condition = context;

	if (function == F_NOW || function == F_PG_TRIGGER_DEPTH ||
		(func_volatile(function) == PROVOLATILE_IMMUTABLE &&
		 trusts_function(condition->role, function, false)))
		return false;
	condition->function = function;
	return true;
}

/*
 * Does the expression hold more than is known to be harmless?  What is not in this
 * list may run code that it does not name: the checks of a domain, for one.
 */
static bool
is_forbidden(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_List:
		case T_Var:
		case T_Const:
		case T_BoolExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_RowCompareExpr:
		case T_FuncExpr:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_SQLValueFunction:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_FieldSelect:
		case T_RelabelType:
		case T_CollateExpr:
		case T_CoerceViaIO:
			break;
		default:
			return true;
	}
	return check_functions_in_node(node, is_forbidden_function, context) ||
		expression_tree_walker(node, is_forbidden, context);
}

static void
check_condition(const Form_pg_trigger trigger, const char *expression, Oid role)
{
	Condition	condition = {.role = role};

	if (is_forbidden(stringToNode(expression), &condition))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the condition of trigger \"%s\" of table %s could run anybody's code as role %s",
						NameStr(trigger->tgname), table_name(trigger->tgrelid), role_name(role)),
				 OidIsValid(condition.function) ?
				 errdetail("It calls function %s.", format_procedure_qualified(condition.function)) : 0,
				 errhint("Use only immutable functions of that role or a superuser, now() and pg_trigger_depth(); or put the condition into the trigger's function.")));
}

/* A trigger of a table that a target's rows reach. */
static void
check_trigger(const Form_pg_trigger trigger, const char *condition, Oid role)
{
	HeapTuple	tuple;
	Oid			author = InvalidOid;

	if (condition)
		check_condition(trigger, condition, role);
	if (trusts_function(role, trigger->tgfoid, true))
		return;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(trigger->tgfoid));
	if (HeapTupleIsValid(tuple))
	{
		author = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("trigger \"%s\" of table %s would run function %s of role %s with the rights of role %s",
					NameStr(trigger->tgname), table_name(trigger->tgrelid),
					format_procedure_qualified(trigger->tgfoid), role_name(author), role_name(role)),
			 errhint("Drop or disable the trigger; or let its function belong to that role or a superuser, or be SECURITY DEFINER.")));
}

/* A trigger of a table that only the extension's own triggers may be on. */
static void
check_own_trigger(const Form_pg_trigger trigger, const char *condition, Oid role)
{
	if (trigger->tgisinternal)
	{
		if (OidIsValid(trigger->tgconstrrelid) &&
			!is_extension_member(RelationRelationId, trigger->tgconstrrelid))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("table %s has a foreign key to %s, which is spine's own",
							table_name(trigger->tgconstrrelid), table_name(trigger->tgrelid)),
					 errhint("Drop the foreign key.")));
		return;
	}
	if (!is_extension_member(ProcedureRelationId, trigger->tgfoid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" of table %s runs function %s, which is not a part of spine",
						NameStr(trigger->tgname), table_name(trigger->tgrelid),
						format_procedure_qualified(trigger->tgfoid)),
				 errhint("Drop the trigger: this table may have none but spine's own.")));
}

/* The rows of an internal trigger's table may take those of another with them. */
static bool
changes_referencing_rows(Oid function)
{
	switch (function)
	{
		case F_RI_FKEY_CASCADE_DEL:
		case F_RI_FKEY_CASCADE_UPD:
		case F_RI_FKEY_SETNULL_DEL:
		case F_RI_FKEY_SETNULL_UPD:
		case F_RI_FKEY_SETDEFAULT_DEL:
		case F_RI_FKEY_SETDEFAULT_UPD:
			return true;
		default:
			return false;
	}
}

/*
 * Calls check for each trigger of the table that can fire, and adds the tables that
 * its foreign keys reach to *reached, if there is a list to add them to.  From the
 * system table: the relation cache would want a lock.
 */
static void
check_triggers(Oid table, Oid role, List **reached,
			   void (*check) (const Form_pg_trigger trigger, const char *condition, Oid role))
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
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		bool		isnull;
		Datum		condition;

		if (trigger->tgenabled == TRIGGER_DISABLED || trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA)
			continue;
		condition = heap_getattr(tuple, Anum_pg_trigger_tgqual, RelationGetDescr(rel), &isnull);
		check(trigger, isnull ? NULL : TextDatumGetCString(condition), role);
		if (reached && changes_referencing_rows(trigger->tgfoid))
			*reached = list_append_unique_oid(*reached, trigger->tgconstrrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Would the rows still be there after a crash? */
static void
check_persistence(Oid table, char persistence)
{
	if (persistence == RELPERSISTENCE_PERMANENT)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("table %s is %s and cannot be a target: it would lose rows that the pipeline does not read again",
					table_name(table), persistence == RELPERSISTENCE_UNLOGGED ? "unlogged" : "temporary"),
			 persistence == RELPERSISTENCE_UNLOGGED ?
			 errhint("Use ALTER TABLE %s SET LOGGED.", table_name(table)) :
			 errhint("Use a permanent table.")));
}

/* A partition's owner can hang code on it as the table's can. */
static void
check_partition_owner(Oid partition, Oid owner, const CheckedTarget *target, Oid table_owner)
{
	if (owner == table_owner || trusts(target->run_as, owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("partition %s of table %s belongs to role %s, whose code would run with the rights of role %s",
					table_name(partition), table_name(target->table), role_name(owner),
					role_name(target->run_as)),
			 errhint("Use ALTER TABLE %s OWNER TO %s.", table_name(partition), quote_identifier(role_name(table_owner)))));
}

/* The target, its partitions, and what its foreign keys reach; returns all of them. */
static List *
check_target(const CheckedTarget *target)
{
	List	   *tables = list_make1_oid(target->table);
	List	   *partitions = list_make1_oid(target->table);
	Oid			table_owner = InvalidOid;

	for (int i = 0; i < list_length(tables); i++)
	{
		Oid			table = list_nth_oid(tables, i);
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
		FormData_pg_class class;

		if (!HeapTupleIsValid(tuple))
			continue;			/* dropped since */
		memcpy(&class, GETSTRUCT(tuple), sizeof(class));
		ReleaseSysCache(tuple);

		if (table == target->table)
			table_owner = class.relowner;
		if (list_member_oid(partitions, table))
		{
			check_persistence(table, class.relpersistence);
			check_partition_owner(table, class.relowner, target, table_owner);
			if (class.relkind == RELKIND_PARTITIONED_TABLE)
			{
				List	   *children = find_inheritance_children(table, NoLock);

				partitions = list_concat(partitions, children);
				tables = list_concat_unique_oid(tables, children);
			}
		}
		if (class.relhastriggers)
			check_triggers(table, target->run_as, &tables, check_trigger);
	}
	return tables;
}

static void
check_everything(void)
{
	uint64		seen = nchanges;
	List	   *tables = NIL;
	MemoryContext old_context;

	watch_everything = true;
	for (int i = 0; i < (int) lengthof(bookkeeping); i++)
	{
		check_triggers(bookkeeping_oids[i], InvalidOid, NULL, check_own_trigger);
		tables = lappend_oid(tables, bookkeeping_oids[i]);
	}
	for (int i = 0; i < nchecked; i++)
		tables = list_concat_unique_oid(tables, check_target(&checked[i]));

	old_context = MemoryContextSwitchTo(checked_context);
	list_free(watched);
	watched = list_copy(tables);
	MemoryContextSwitchTo(old_context);
	watch_everything = false;
	nchanges_checked = seen;
}

static void
note_relation(Datum arg, Oid relid)
{
	if (watch_everything || relid == InvalidOid || list_member_oid(watched, relid))
		nchanges++;
}

/* A function or a role. */
static void
note_object(Datum arg, int cache_id, uint32 hash_value)
{
	nchanges++;
}

/*
 * Before a function runs as a target's role: has something changed since we looked?
 * The restriction is there while a target's statement runs, and at no other time.
 */
static void
look_again(void)
{
	if (nchanges_checked != nchanges && InSecurityRestrictedOperation())
		check_everything();
}

/* For the functions of expressions. */
static void
guard_execution(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (access == OAT_FUNCTION_EXECUTE)
		look_again();
}

/* For those of triggers ... */
static bool
guard_lookup(Oid function)
{
	look_again();
	return prev_needs_fmgr_hook && prev_needs_fmgr_hook(function);
}

/* ... with SET clauses or SECURITY DEFINER, which the server does not ask about before. */
static void
guard_call(FmgrHookEventType event, FmgrInfo *function, Datum *arg)
{
	if (event == FHET_START)
		look_again();
	if (prev_fmgr_hook)
		prev_fmgr_hook(event, function, arg);
}

/* Once in a worker; other processes have no use for it. */
static void
watch(void)
{
	checked_context = AllocSetContextCreate(TopMemoryContext, "spine trust", ALLOCSET_SMALL_SIZES);

	CacheRegisterRelcacheCallback(note_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, note_object, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, note_object, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, note_object, (Datum) 0);

	prev_object_access = object_access_hook;
	object_access_hook = guard_execution;
	prev_needs_fmgr_hook = needs_fmgr_hook;
	needs_fmgr_hook = guard_lookup;
	prev_fmgr_hook = fmgr_hook;
	fmgr_hook = guard_call;
}

/* Were these the targets that were checked last? */
static bool
is_same(const SpinePlan *plan)
{
	bool		same = nchecked == plan->ntargets;

	for (int i = 0; same && i < nchecked; i++)
		same = checked[i].table == plan->targets[i].sink->target &&
			checked[i].run_as == plan->targets[i].run_as;
	return same;
}

void
spine_check_trust(const SpinePlan *plan)
{
	if (checked_context == NULL)
		watch();

	/* before they are looked at, so that nobody adds a trigger afterwards */
	for (int i = 0; i < (int) lengthof(bookkeeping); i++)
	{
		if (nchanges_checked != nchanges)
			bookkeeping_oids[i] = spine_extension_table(bookkeeping[i]);
		LockRelationOid(bookkeeping_oids[i], RowExclusiveLock);
	}

	if (!is_same(plan))
	{
		if (checked)
			pfree(checked);
		nchecked = 0;
		checked = MemoryContextAlloc(checked_context, plan->ntargets * sizeof(CheckedTarget));
		for (int i = 0; i < plan->ntargets; i++)
		{
			checked[i].table = plan->targets[i].sink->target;
			checked[i].run_as = plan->targets[i].run_as;
		}
		nchecked = plan->ntargets;
		nchanges++;
	}
	if (nchanges_checked != nchanges)
		check_everything();
}

/* Is it a table on which only the extension's own triggers may be? */
static bool
is_own_table(Oid table)
{
	char	   *name;

	if (!is_extension_member(RelationRelationId, table))
		return false;
	name = get_rel_name(table);
	for (int i = 0; i < (int) lengthof(own_tables); i++)
	{
		if (strcmp(name, own_tables[i]) == 0)
			return true;
	}
	return false;
}

/* spine_check_triggers(regclass): before something of the extension's changes it. */
Datum
spine_check_triggers(PG_FUNCTION_ARGS)
{
	Oid			table = PG_GETARG_OID(0);

	if (!is_own_table(table))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table of spine's own", table_name(table))));
	LockRelationOid(table, RowExclusiveLock);
	check_triggers(table, InvalidOid, NULL, check_own_trigger);
	PG_RETURN_VOID();
}

/*
 * A trigger was made, or replaced: the privilege is enough for either, and the
 * extension's own ones are what keeps others' pipelines from harm.
 */
static void
guard_creation(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (prev_creation_hook)
		prev_creation_hook(access, class_id, object_id, sub_id, arg);
	if (access != OAT_POST_CREATE || class_id != TriggerRelationId)
		return;

	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object_id));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) && is_own_table(((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid))
		check_own_trigger((Form_pg_trigger) GETSTRUCT(tuple), NULL, InvalidOid);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

void
spine_trust_init(void)
{
	prev_creation_hook = object_access_hook;
	object_access_hook = guard_creation;
}

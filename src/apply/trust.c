/*
 * trust.c
 *		Looks at the code that is attached to a pipeline's tables.
 *
 * A statement on a sink's table runs as the sink's role, and so do the table's triggers,
 * which every role with the privilege TRIGGER can make.  A trigger has no owner.  Its
 * function has one, which must be a role that could do as much anyway.  Its WHEN condition
 * could call any function with any arguments, so it may use only what has no side effects.
 *
 * The code of a table below a view runs as the same role.
 *
 * A batch locks a table before it looks, so that nobody adds a trigger afterwards.  It
 * does not lock the partitions: work on an old partition would hold up the batch.  Instead,
 * if the caches have been told of a change, functions that are attached to partitions are
 * stopped at their first call, and everything is looked at again.  A partition is
 * locked before its triggers run, and that lock brings the news.
 */
#include "apply/trust.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "apply/view.h"
#include "catalog/extension.h"
#include "catalog/objectaccess.h"
#include "catalog/own_tables.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

struct SpineTrust
{
	MemoryContext context;
	int			ntables;
	const SpineTrustedTable *tables;
	List	   *bookkeeping;	/* the extension's own tables that batches write to */
	List	   *watched;		/* all tables that were looked at */
	bool		watch_everything;	/* while the tables are being looked at */

	/* changes that the caches have told of, and how many there were at the last check */
	uint64		nchanges;
	uint64		nchanges_checked;

	dlist_node	node;
};

/* All that this process has. */
static dlist_head trusts_in_use = DLIST_STATIC_INIT(trusts_in_use);

/* The one whose statement runs, if any. */
static SpineTrust *guarded = NULL;

static object_access_hook_type prev_object_access = NULL;
static needs_fmgr_hook_type prev_needs_fmgr_hook = NULL;
static fmgr_hook_type prev_fmgr_hook = NULL;

/* What a statement on a table reaches. */
typedef struct Reach
{
	Oid			role;			/* it runs as */
	List	   *tables;
} Reach;

/* A trigger's condition, while it is looked through. */
typedef struct Condition
{
	Oid			role;
	Oid			function;		/* the one that is not allowed */
} Condition;

static char *
role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name ? name : psprintf("with OID %u", role);
}

/* May code of this author run as the role?  Yes, if the author may do as much anyway. */
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
		spine_extension_has(ProcedureRelationId, function);
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
						NameStr(trigger->tgname), spine_table_name(trigger->tgrelid), role_name(role)),
				 OidIsValid(condition.function) ?
				 errdetail("It calls function %s.", format_procedure_qualified(condition.function)) : 0,
				 errhint("Use only immutable functions of that role or a superuser, now() and pg_trigger_depth(); or put the condition into the trigger's function.")));
}

/* Does this trigger of a foreign key change rows of the referencing table? */
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

/* A trigger of a table that is reached. */
static void
check_trigger(const Form_pg_trigger trigger, const char *condition, void *arg)
{
	Reach	   *reach = arg;
	Oid			role = reach->role;
	HeapTuple	tuple;
	Oid			author = InvalidOid;

	if (condition)
		check_condition(trigger, condition, role);
	if (changes_referencing_rows(trigger->tgfoid))
		reach->tables = list_append_unique_oid(reach->tables, trigger->tgconstrrelid);
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
					NameStr(trigger->tgname), spine_table_name(trigger->tgrelid),
					format_procedure_qualified(trigger->tgfoid), role_name(author), role_name(role)),
			 errhint("Drop or disable the trigger; or let its function belong to that role or a superuser, or be SECURITY DEFINER.")));
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
					spine_table_name(table), persistence == RELPERSISTENCE_UNLOGGED ? "unlogged" : "temporary"),
			 persistence == RELPERSISTENCE_UNLOGGED ?
			 errhint("Use ALTER TABLE %s SET LOGGED.", spine_table_name(table)) :
			 errhint("Use a permanent table.")));
}

/*
 * The owner of a partition, or of what is below a view, can attach code to it, as the
 * target's owner can.
 */
static void
check_part_owner(Oid part, Oid owner, const SpineTrustedTable *root, Oid root_owner)
{
	bool		is_below_view = get_rel_relkind(root->table) == RELKIND_VIEW;

	if (owner == root_owner || trusts(root->run_as, owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg(is_below_view ?
					"table %s below view %s belongs to role %s, whose code would run with the rights of role %s" :
					"partition %s of table %s belongs to role %s, whose code would run with the rights of role %s",
					spine_table_name(part), spine_table_name(root->table), role_name(owner),
					role_name(root->run_as)),
			 errhint("Use ALTER TABLE %s OWNER TO %s.", spine_table_name(part), quote_identifier(role_name(root_owner)))));
}

/* The partitions of a table, or what is below a view. */
static List *
parts_of(Oid relation, char relkind)
{
	if (relkind == RELKIND_PARTITIONED_TABLE)
		return find_inheritance_children(relation, NoLock);
	if (relkind == RELKIND_VIEW && OidIsValid(spine_view_below(relation)))
		return list_make1_oid(spine_view_below(relation));
	return NIL;
}

/* Checks a target, its parts, and what their foreign keys reach; returns all of them. */
static List *
check_table(const SpineTrustedTable *root)
{
	Reach		reach = {root->run_as, list_make1_oid(root->table)};
	List	   *parts = list_make1_oid(root->table);	/* including itself */
	Oid			root_owner = InvalidOid;

	for (int i = 0; i < list_length(reach.tables); i++)
	{
		Oid			table = list_nth_oid(reach.tables, i);
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
		FormData_pg_class class;
		List	   *found;

		if (!HeapTupleIsValid(tuple))
			continue;			/* dropped since */
		memcpy(&class, GETSTRUCT(tuple), CLASS_TUPLE_SIZE);
		ReleaseSysCache(tuple);

		if (table == root->table)
			root_owner = class.relowner;
		if (list_member_oid(parts, table))
		{
			check_persistence(table, class.relpersistence);
			check_part_owner(table, class.relowner, root, root_owner);
			found = parts_of(table, class.relkind);
			parts = list_concat(parts, found);
			reach.tables = list_concat_unique_oid(reach.tables, found);
		}
		if (class.relhastriggers)
			spine_triggers_check(table, check_trigger, &reach);
	}
	return reach.tables;
}

/* Replaces a list of the trust's by a copy of another. */
static void
keep_list(SpineTrust *trust, List **kept, const List *list)
{
	MemoryContext old_context = MemoryContextSwitchTo(trust->context);
	List	   *copy = list_copy(list);

	MemoryContextSwitchTo(old_context);
	list_free(*kept);
	*kept = copy;
}

static void
check_everything(SpineTrust *trust)
{
	uint64		seen = trust->nchanges;
	List	   *tables = list_copy(trust->bookkeeping);
	ListCell   *cell;

	trust->watch_everything = true;
	foreach(cell, trust->bookkeeping)
		spine_own_tables_check(lfirst_oid(cell));
	for (int i = 0; i < trust->ntables; i++)
		tables = list_concat_unique_oid(tables, check_table(&trust->tables[i]));

	keep_list(trust, &trust->watched, tables);
	trust->watch_everything = false;
	trust->nchanges_checked = seen;
}

static void
note_relation(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &trusts_in_use)
	{
		SpineTrust *trust = dlist_container(SpineTrust, node, iter.cur);

		if (trust->watch_everything || relid == InvalidOid || list_member_oid(trust->watched, relid))
			trust->nchanges++;
	}
}

/* A function or a role. */
static void
note_object(Datum arg, int cache_id, uint32 hash_value)
{
	dlist_iter	iter;

	dlist_foreach(iter, &trusts_in_use)
		dlist_container(SpineTrust, node, iter.cur)->nchanges++;
}

/* Before a function runs as a sink's role: has something changed since we looked? */
static void
look_again(void)
{
	if (guarded && guarded->nchanges_checked != guarded->nchanges && InSecurityRestrictedOperation())
		check_everything(guarded);
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

/* Once in a process that has a plan; others have no use for it. */
static void
watch(void)
{
	static bool is_watching = false;

	if (is_watching)
		return;
	is_watching = true;

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

/* Its memory is about to go. */
static void
release(void *arg)
{
	SpineTrust *trust = arg;

	dlist_delete(&trust->node);
	if (guarded == trust)
		guarded = NULL;
}

SpineTrust *
spine_trust_make(const SpineTrustedTable *tables, int n)
{
	SpineTrust *trust = palloc0(sizeof(SpineTrust));
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));

	watch();
	trust->context = CurrentMemoryContext;
	trust->ntables = n;
	trust->tables = tables;
	trust->nchanges = 1;

	*callback = (MemoryContextCallback) {.func = release, .arg = trust};
	MemoryContextRegisterResetCallback(trust->context, callback);
	dlist_push_tail(&trusts_in_use, &trust->node);
	return trust;
}

void
spine_trust_check(SpineTrust *trust)
{
	ListCell   *cell;

	Assert(IsTransactionState());
	if (trust->nchanges_checked != trust->nchanges)
		keep_list(trust, &trust->bookkeeping, spine_own_tables_written_by_batches());

	/* lock first, look then: nobody adds a trigger in between */
	foreach(cell, trust->bookkeeping)
		LockRelationOid(lfirst_oid(cell), RowExclusiveLock);
	if (trust->nchanges_checked != trust->nchanges)
		check_everything(trust);
}

/* The guard before this one, which is on again afterwards. */
typedef struct Guard
{
	MemoryContextCallback callback;
	SpineTrust *before;
} Guard;

static void
end_guard(void *arg)
{
	guarded = ((Guard *) arg)->before;
}

void
spine_trust_guard(SpineTrust *trust, MemoryContext context)
{
	Guard	   *guard = MemoryContextAlloc(context, sizeof(Guard));

	guard->before = guarded;
	guard->callback = (MemoryContextCallback) {.func = end_guard, .arg = guard};
	MemoryContextRegisterResetCallback(context, &guard->callback);
	guarded = trust;
}

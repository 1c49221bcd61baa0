/*
 * database_holds.c
 *		Ends spine's processes in a database before a statement that they would be in
 *		the way of, and keeps them out until the transaction is over.
 *
 * DROP DATABASE and its like fail while any process is connected, and DROP EXTENSION
 * and ALTER EXTENSION UPDATE could deadlock with a batch.  After the transaction the launcher looks at the database
 * again.  Also here, because it looks at the same statements: the extension's schema
 * cannot be renamed.
 */
#include "process/database_holds.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/extension.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "process/shared.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* Databases that this transaction holds. */
#define MAX_HELD 8
static Oid	held[MAX_HELD];
static int	nheld = 0;

static void
release_all(XactEvent event, void *arg)
{
	if (nheld > 0 && event == XACT_EVENT_PRE_PREPARE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has dropped spine")));
	if (nheld == 0 || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	while (nheld > 0)
	{
		SpineDatabase *db = spine_shared_find_database(held[--nheld]);

		if (db)
		{
			db->holds--;
			db->probe_wanted = true;
		}
	}
	spine_shared->databases_changed = true;
	spine_shared_wake_launcher();
	LWLockRelease(spine_shared->lock);
}

/* Tells our processes in the database to end.  True: there are none. */
static bool
signal_processes(Oid database)
{
	bool		none = true;
	SpineDatabase *db;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		const SpineWorkerSlot *slot = &spine_shared->workers[i];

		if (slot->database == database && slot->pid != 0)
		{
			kill(slot->pid, SIGTERM);
			none = false;
		}
	}
	db = spine_shared_find_database(database);
	if (db && db->probe_pid != 0)
	{
		kill(db->probe_pid, SIGTERM);
		none = false;
	}
	LWLockRelease(spine_shared->lock);
	return none;
}

/* Keeps our processes out of the database until the transaction ends. */
static void
hold_database(Oid database)
{
	static bool registered = false;
	SpineDatabase *db;

	for (int i = 0; i < nheld; i++)
	{
		if (held[i] == database)
			return;
	}
	if (nheld == MAX_HELD)
		return;
	if (!registered)
	{
		RegisterXactCallback(release_all, NULL);
		registered = true;
	}

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = spine_shared_add_database(database);
	if (db)
	{
		db->holds++;
		held[nheld++] = database;
	}
	LWLockRelease(spine_shared->lock);

	ConditionVariablePrepareToSleep(&spine_shared->progress);
	while (!signal_processes(database))
		(void) ConditionVariableTimedSleep(&spine_shared->progress, 1000, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

/*
 * The extension's functions name their schema.  The schema's owner could rename it, put
 * another in its place, and so have the functions run code of his own with the rights of
 * their owner.
 */
static void
refuse_rename(Node *statement)
{
	const RenameStmt *rename = (const RenameStmt *) statement;
	const char *schema;

	if (!IsA(statement, RenameStmt) || rename->renameType != OBJECT_SCHEMA)
		return;
	schema = spine_extension_schema();
	if (schema && strcmp(schema, quote_identifier(rename->subname)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot rename schema %s: the functions of the extension spine name it", schema)));
}

/* Only for the owner: others get their error and disturb nobody. */
static void
hold_named_database(const char *name)
{
	Oid			oid = name ? get_database_oid(name, true) : InvalidOid;

	if (OidIsValid(oid) && spine_owns_database(oid))
		hold_database(oid);
}

/* The option's value, or NULL. */
static const char *
string_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg)
			return defGetString(option);
	}
	return NULL;
}

/* The database to which a statement needs exclusive access, or NULL. */
static const char *
exclusive_database(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_CreatedbStmt:
			return string_option(((CreatedbStmt *) statement)->options, "template");
		case T_AlterDatabaseStmt:
			return string_option(((AlterDatabaseStmt *) statement)->options, "tablespace") ?
				((AlterDatabaseStmt *) statement)->dbname : NULL;
		case T_RenameStmt:
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) statement)->subname : NULL;
		default:
			return NULL;
	}
}

static bool
changes_extension(Node *statement)
{
	ListCell   *cell;

	if (IsA(statement, AlterExtensionStmt))
		return strcmp(((AlterExtensionStmt *) statement)->extname, "spine") == 0;
	if (!IsA(statement, DropStmt) || ((DropStmt *) statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, ((DropStmt *) statement)->objects)
	{
		if (strcmp(strVal(lfirst(cell)), "spine") == 0)
			return true;
	}
	return false;
}

static void
watch_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			  ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	Node	   *statement = pstmt->utilityStmt;

	refuse_rename(statement);
	hold_named_database(exclusive_database(statement));
	if (changes_extension(statement) && spine_owns_extension())
		hold_database(MyDatabaseId);

	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params,
							 environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								environment, dest, completion);
}

/* DROP SCHEMA ... CASCADE and DROP OWNED can take the extension with them. */
static void
watch_object(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);

	if (access == OAT_DROP && class_id == ExtensionRelationId)
	{
		char	   *name = get_extension_name(object_id);

		if (name && strcmp(name, "spine") == 0)
			hold_database(MyDatabaseId);
	}
}

void
spine_database_holds_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = watch_utility;
	prev_object_access = object_access_hook;
	object_access_hook = watch_object;
}

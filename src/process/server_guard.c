/*
 * server_guard.c
 *		Servers that pipelines name are neither dropped nor renamed, and a change of a server,
 *		of a user mapping, or of the right to use a server reaches the workers at commit.
 *
 * Pipelines hold the names of servers, so that a dump can be restored in any order.  So
 * PostgreSQL knows of no dependency.  Whether a server that has lost its name was in use is
 * decided at the end of the statement: DROP EXTENSION drops the servers too, and then the
 * pipelines.
 */
#include "process/server_guard.h"

#include "access/xact.h"
#include "catalog/extension.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_user_mapping.h"
#include "catalog/server.h"
#include "foreign/foreign.h"
#include "process/catalog_changes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

typedef struct ChangedServer
{
	Oid			oid;
	char	   *name;			/* before the change */
} ChangedServer;

/* Servers that this transaction has dropped or changed, since they were last checked. */
static List *changed = NIL;

static void
forget_changed(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		changed = NIL;
}

static void
note_changed(Oid oid)
{
	static bool registered = false;
	char	   *name = spine_server_name(oid);
	ChangedServer *server;
	MemoryContext old_context;

	if (name == NULL)
		return;
	if (!registered)
	{
		RegisterXactCallback(forget_changed, NULL);
		registered = true;
	}
	old_context = MemoryContextSwitchTo(TopTransactionContext);
	server = palloc(sizeof(ChangedServer));
	*server = (ChangedServer) {oid, pstrdup(name)};
	changed = lappend(changed, server);
	MemoryContextSwitchTo(old_context);
}

static void
refuse_if_used(const ChangedServer *server)
{
	char	   *pipelines = spine_server_pipelines(server->name);

	if (pipelines)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot %s server %s because pipelines of spine use it",
						GetForeignServerExtended(server->oid, FSV_MISSING_OK) ? "rename" : "drop",
						quote_identifier(server->name)),
				 errdetail("Pipelines: %s.", pipelines),
				 errhint("Drop the pipelines, or give them another server, first.")));
}

/* Names that are still there are those of other changes, or of a subtransaction that was rolled back. */
static void
check_changed(void)
{
	List	   *servers = changed;
	ListCell   *cell;

	changed = NIL;
	if (spine_extension_schema() == NULL)
		return;
	foreach(cell, servers)
	{
		const ChangedServer *server = lfirst(cell);

		if (GetForeignServerByName(server->name, true) == NULL)
			refuse_if_used(server);
	}
}

/* GRANT, REVOKE and DROP OWNED: of rights PostgreSQL tells no hook of the object. */
static bool
changes_rights(const Node *statement)
{
	return IsA(statement, DropOwnedStmt) ||
		(IsA(statement, GrantStmt) && ((const GrantStmt *) statement)->objtype == OBJECT_FOREIGN_SERVER);
}

static void
watch_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			  ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (changes_rights(pstmt->utilityStmt))
		spine_catalog_changes_note_server();

	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params,
							 environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								environment, dest, completion);

	if (changed != NIL)
		check_changed();
}

static void
watch_object(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);

	if (class_id != ForeignServerRelationId && class_id != UserMappingRelationId)
		return;
	if ((access == OAT_DROP || access == OAT_POST_ALTER) && class_id == ForeignServerRelationId)
		note_changed(object_id);	/* the new name is not to be seen yet */
	if (access == OAT_DROP || access == OAT_POST_CREATE || access == OAT_POST_ALTER)
		spine_catalog_changes_note_server();
}

void
spine_server_guard_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = watch_utility;
	prev_object_access = object_access_hook;
	object_access_hook = watch_object;
}

/*
 * catalog_changes.c
 *		Tells the launcher and the workers that the catalog has changed, once the
 *		change is committed.
 */
#include "process/catalog_changes.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "process/shared.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(spine_catalog_changed);

/*
 * Was the catalog changed in this transaction?  The other processes are told after the
 * commit, not before: they would still read the old rows.
 */
static bool catalog_changed = false;

/* A server or a user mapping was: these are PostgreSQL's own, and may be PREPAREd. */
static bool server_changed = false;

/*
 * Servers and user mappings are read through caches.  So the others are told when the
 * commit has also sent the messages that make the caches forget the old rows; the callbacks
 * of XACT_EVENT_COMMIT run before that.
 */
static void
tell_after_commit(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_commit || !is_top_level ||
		(!catalog_changed && !server_changed))
		return;
	catalog_changed = server_changed = false;
	spine_shared_request_probe(MyDatabaseId);
}

static void
watch_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (catalog_changed)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed the catalog of spine")));
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			catalog_changed = server_changed = false;
			break;
		default:
			break;
	}
}

static void
watch_transaction(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(watch_end, NULL);
		RegisterResourceReleaseCallback(tell_after_commit, NULL);
		registered = true;
	}
}

void
spine_catalog_changes_note_server(void)
{
	watch_transaction();
	server_changed = true;
}

Datum
spine_catalog_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("spine_catalog_changed: not called by trigger manager")));

	watch_transaction();
	catalog_changed = true;
	PG_RETURN_POINTER(NULL);
}

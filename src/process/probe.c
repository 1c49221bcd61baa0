/*
 * probe.c
 *		Looks whether a database has the extension and which workers should run
 *		there, and writes that to shared memory.
 *
 * A process can never leave the database that it is connected to, so the launcher is
 * connected to none.  It starts a probe when it finds a database, when the catalog or
 * the configuration has changed, and when it is asked to.
 */
#include "process/probe.h"

#include "access/xact.h"
#include "catalog/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "process/session_settings.h"
#include "process/settings.h"
#include "process/shared.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/* What a probe finds. */
typedef struct Findings
{
	bool		has_extension;
	NameData   *pipelines;		/* those that should run come first */
	uint64		npipelines;
	uint64		nrunning;		/* how many should run */
} Findings;

static bool
attach(Oid database)
{
	SpineDatabase *db;
	bool		may_run;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = spine_shared_find_database(database);
	may_run = db && db->holds == 0 && db->probe_pid == 0;
	if (may_run)
		db->probe_pid = MyProcPid;
	LWLockRelease(spine_shared->lock);
	return may_run;
}

static void
detach(int code, Datum database)
{
	SpineDatabase *db;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = spine_shared_find_database(DatumGetObjectId(database));
	if (db && db->probe_pid == MyProcPid)
		db->probe_pid = 0;
	spine_shared_wake_launcher();
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);
}

/*
 * The slot of this worker, a new one if need be; NULL: there are too many.  The caller
 * holds the lock.
 */
static SpineWorkerSlot *
find_slot(const NameData *pipeline, int index)
{
	SpineWorkerSlot *free_slot = NULL;

	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		SpineWorkerSlot *slot = &spine_shared->workers[i];

		if (slot->database == MyDatabaseId && slot->index == index &&
			slot->workers == spine_workers &&
			strcmp(NameStr(slot->pipeline), NameStr(*pipeline)) == 0)
			return slot;
		if (free_slot == NULL && !OidIsValid(slot->database))
			free_slot = slot;
	}
	if (free_slot)
	{
		memset(free_slot, 0, sizeof(*free_slot));
		free_slot->database = MyDatabaseId;
		free_slot->pipeline = *pipeline;
		free_slot->index = index;
		free_slot->workers = spine_workers;
	}
	return free_slot;
}

/* Says which workers are wanted.  Returns how many of them found no slot.  Takes the lock. */
static int
want_workers(const Findings *found)
{
	SpineDatabase *db;
	int			left_out = 0;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		if (spine_shared->workers[i].database == MyDatabaseId)
			spine_shared->workers[i].wanted = false;
	}
	for (uint64 i = 0; i < found->nrunning; i++)
	{
		for (int index = 0; index < spine_workers; index++)
		{
			SpineWorkerSlot *slot = find_slot(&found->pipelines[i], index);

			if (slot)
				slot->wanted = true;
			else
				left_out++;
		}
	}
	db = spine_shared_find_database(MyDatabaseId);
	if (db)
	{
		db->has_extension = found->has_extension;
		db->left_out = left_out;
		db->probe_done = true;
	}
	LWLockRelease(spine_shared->lock);
	return left_out;
}

/* In a transaction and connected to SPI, whose memory the pipelines are in. */
static Findings
look(void)
{
	char	   *schema = spine_extension_schema();
	Findings	found = {.has_extension = schema != NULL};

	Assert(IsTransactionState());
	if (schema == NULL)
		return found;

	SPI_execute(psprintf("SELECT name, enabled FROM %s.spine_pipelines ORDER BY enabled DESC, name", schema),
				true, 0);
	found.npipelines = SPI_processed;
	found.pipelines = palloc0((SPI_processed + 1) * sizeof(NameData));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;

		namestrcpy(&found.pipelines[i], SPI_getvalue(row, SPI_tuptable->tupdesc, 1));
		if (spine_enabled && DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull)))
			found.nrunning++;
	}
	return found;
}

static void
probe(void)
{
	Findings	found;
	int			left_out;

	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());

	found = look();
	if (found.has_extension)
		spine_shared_keep_pipelines(found.pipelines, found.npipelines);
	left_out = want_workers(&found);
	if (left_out > 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d workers of spine are not started: the server has room for %d",
						left_out, SPINE_MAX_WORKERS)));

	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (!found.has_extension)
		spine_shared_forget_database(MyDatabaseId);
}

void
spine_probe_main(Datum database)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!attach(DatumGetObjectId(database)))
		proc_exit(0);
	before_shmem_exit(detach, database);

	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	spine_session_settings_apply();
	probe();
}

/*
 * probe.c
 *		Looks whether a database has the extension and which workers should run
 *		there, and writes that to shared memory.
 *
 * The launcher itself is connected to no database, since a process can never
 * leave one.  It starts a probe when it finds a database, when the catalog or
 * the configuration changed, and when it was asked to.
 */
#include "process/probe.h"

#include "access/xact.h"
#include "catalog/extension.h"
#include "process/counters.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "process/session_settings.h"
#include "process/settings.h"
#include "process/shared.h"
#include "process/status.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

static bool
attach(Oid database)
{
	SpineDatabase *db;
	bool		may_run;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = spine_find_database(database);
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
	db = spine_find_database(DatumGetObjectId(database));
	if (db && db->probe_pid == MyProcPid)
		db->probe_pid = 0;
	spine_wake_launcher();
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);
}

/* The slot of such a worker, new if need be; NULL: there are too many. */
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

/* Says which workers are wanted; returns how many found no slot. */
static int
want_workers(bool has_extension, const NameData *pipelines, uint64 npipelines)
{
	SpineDatabase *db;
	int			left_out = 0;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		if (spine_shared->workers[i].database == MyDatabaseId)
			spine_shared->workers[i].wanted = false;
	}
	for (uint64 i = 0; i < npipelines; i++)
	{
		for (int index = 0; index < spine_workers; index++)
		{
			SpineWorkerSlot *slot = find_slot(&pipelines[i], index);

			if (slot)
				slot->wanted = true;
			else
				left_out++;
		}
	}
	db = spine_find_database(MyDatabaseId);
	if (db)
	{
		db->has_extension = has_extension;
		db->left_out = left_out;
		db->probe_done = true;
	}
	LWLockRelease(spine_shared->lock);
	return left_out;
}

void
spine_probe_main(Datum database)
{
	NameData   *pipelines = NULL;
	uint64		npipelines = 0;
	char	   *schema;
	int			left_out;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!attach(DatumGetObjectId(database)))
		proc_exit(0);
	before_shmem_exit(detach, database);

	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	spine_session_settings_apply();

	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());

	schema = spine_extension_schema();
	if (schema)
	{
		/* those that are enabled first */
		SPI_execute(psprintf("SELECT name, enabled FROM %s.spine_pipelines ORDER BY enabled DESC, name", schema),
					true, 0);
		pipelines = palloc0((SPI_processed + 1) * sizeof(NameData));
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		isnull;

			namestrcpy(&pipelines[i], SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
			if (spine_enabled && DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i],
															SPI_tuptable->tupdesc, 2, &isnull)))
				npipelines++;
		}
		spine_keep_progress_of(pipelines, SPI_processed);
		spine_keep_counters_of(pipelines, SPI_processed);
	}
	left_out = want_workers(schema != NULL, pipelines, npipelines);
	if (left_out > 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d workers of spine are not started: the server has room for %d",
						left_out, SPINE_MAX_WORKERS)));

	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();

	if (schema == NULL)
	{
		spine_forget_progress(MyDatabaseId);
		spine_forget_counters(MyDatabaseId);
	}
}

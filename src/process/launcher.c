/*
 * launcher.c
 *		Finds the databases, has them probed, and keeps what should run running:
 *		the workers, the embedded broker, the producer.
 *
 * Static, started when the server takes writes: on a standby that is at its
 * promotion.  It is connected to no database and holds no lock while it waits,
 * so that nothing it waits for can wait for it.
 */
#include "process/launcher.h"

#include <signal.h>

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "process/embedded_broker.h"
#include "catalog/pg_database.h"
#include "process/counters.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "process/settings.h"
#include "process/shared.h"
#include "process/status.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DATABASE_SCAN_MS	60000	/* for what nobody told us of */
#define RESTART_MS			1000	/* after a child has ended by itself; for a ... */
#define LAST_RESTART_MS		60000	/* ... probe that fails, doubled up to this */
#define NO_SLOT_RETRY_MS	5000
#define PROBES_AT_A_TIME	2	/* each takes one of max_worker_processes */

/* A child process as only the launcher sees it. */
typedef struct Child
{
	BackgroundWorkerHandle *handle; /* NULL: not started, or ended */
	TimestampTz start_after;	/* 0: at once */
	int			failures;		/* of a probe, in a row */
	int			signalled_pid;	/* told to end */
} Child;

static Child probes[SPINE_MAX_DATABASES];	/* by database slot */
static Child workers[SPINE_MAX_WORKERS];	/* by worker slot */
static Child broker;
static Child producer;

static TimestampTz wake_at;		/* the next time something is due */

static void
wake_no_later_than(TimestampTz when)
{
	if (when < wake_at)
		wake_at = when;
}

static TimestampTz
from_now(int ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

/* Is the child gone, or was never there?  Notices that it has ended. */
static bool
is_stopped(Child *child)
{
	pid_t		pid;

	if (child->handle && GetBackgroundWorkerPid(child->handle, &pid) == BGWH_STOPPED)
	{
		pfree(child->handle);
		child->handle = NULL;
		child->start_after = child->signalled_pid ? 0 :
			from_now(Min(RESTART_MS << Min(child->failures, 10), LAST_RESTART_MS));
		child->signalled_pid = 0;
	}
	return child->handle == NULL;
}

static bool
may_start(Child *child)
{
	if (!is_stopped(child))
		return false;
	if (child->start_after > GetCurrentTimestamp())
	{
		wake_no_later_than(child->start_after);
		return false;
	}
	return true;
}

static void
start(Child *child, const char *function, const char *type, const char *name,
	  Datum argument)
{
	static bool complained = false;
	BackgroundWorker process = {0};

	process.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process.bgw_start_time = BgWorkerStart_RecoveryFinished;
	process.bgw_restart_time = BGW_NEVER_RESTART;	/* that is our job */
	process.bgw_main_arg = argument;
	process.bgw_notify_pid = MyProcPid;
	strlcpy(process.bgw_library_name, "spine", sizeof(process.bgw_library_name));
	strlcpy(process.bgw_function_name, function, sizeof(process.bgw_function_name));
	strlcpy(process.bgw_type, type, sizeof(process.bgw_type));
	strlcpy(process.bgw_name, name, sizeof(process.bgw_name));

	if (RegisterDynamicBackgroundWorker(&process, &child->handle))
	{
		complained = false;
		return;
	}
	child->handle = NULL;
	child->start_after = from_now(NO_SLOT_RETRY_MS);
	wake_no_later_than(child->start_after);
	if (!complained)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start %s: no background worker slots left", name),
				 errhint("Increase \"max_worker_processes\".")));
	complained = true;
}

/* Asks a process to end, once. */
static void
stop(Child *child, int pid)
{
	if (pid != 0 && child->signalled_pid != pid)
	{
		kill(pid, SIGTERM);
		child->signalled_pid = pid;
	}
}

/* The OIDs of all databases that could have the extension. */
static List *
list_databases(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *oids = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && !database->datistemplate &&
			database->datconnlimit != SPINE_DATCONNLIMIT_INVALID_DB)
		{
			MemoryContext old_context = MemoryContextSwitchTo(context);

			oids = lappend_oid(oids, database->oid);
			MemoryContextSwitchTo(old_context);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return oids;
}

/* Takes in new databases and lets go of those that are no more. */
static void
refresh_databases(void)
{
	List	   *oids = list_databases();
	List	   *gone = NIL;
	ListCell   *cell;
	int			left_out = 0;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	foreach(cell, oids)
	{
		SpineDatabase *known = spine_find_database(lfirst_oid(cell));
		SpineDatabase *db = spine_add_database(lfirst_oid(cell));

		if (db && known == NULL)
			db->probe_wanted = true;
		left_out += db == NULL;
	}
	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
	{
		SpineDatabase *db = &spine_shared->databases[i];

		if (!OidIsValid(db->oid) || db->holds > 0 || list_member_oid(oids, db->oid))
			continue;
		for (int w = 0; w < SPINE_MAX_WORKERS; w++)
		{
			if (spine_shared->workers[w].database == db->oid)
				spine_shared->workers[w].wanted = false;
		}
		gone = lappend_oid(gone, db->oid);
		db->oid = InvalidOid;
	}
	LWLockRelease(spine_shared->lock);

	if (left_out > 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("spine does not look into %d databases: it has room for %d",
						left_out, SPINE_MAX_DATABASES)));
	foreach(cell, gone)
	{
		spine_forget_progress(lfirst_oid(cell));
		spine_forget_counters(lfirst_oid(cell));
	}
	list_free(gone);
	list_free(oids);
}

static void
start_probes(void)
{
	int			running = 0;

	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
		running += !is_stopped(&probes[i]);

	for (int i = 0; i < SPINE_MAX_DATABASES && running < PROBES_AT_A_TIME; i++)
	{
		SpineDatabase *db = &spine_shared->databases[i];
		Oid			oid = InvalidOid;

		if (!is_stopped(&probes[i]))
			continue;

		LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
		if (OidIsValid(db->oid) && db->holds == 0 && db->probe_pid == 0)
		{
			if (db->probe_wanted)
			{
				db->probe_wanted = false;
				db->probe_done = false;
				probes[i].failures = 0;
				oid = db->oid;
			}
			else if (!db->probe_done && may_start(&probes[i]))
			{
				/* the last one did not come to its end */
				probes[i].failures++;
				oid = db->oid;
			}
		}
		LWLockRelease(spine_shared->lock);

		if (OidIsValid(oid))
		{
			start(&probes[i], "spine_probe_main", "spine probe", "spine probe",
				  ObjectIdGetDatum(oid));
			running++;
		}
	}
}

/* A slot is free again: there may be workers that found none.  The lock is held. */
static void
probe_those_left_out(void)
{
	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
	{
		if (spine_shared->databases[i].left_out > 0)
		{
			spine_shared->databases[i].probe_wanted = true;
			wake_no_later_than(GetCurrentTimestamp());
		}
	}
}

/* Starts, stops and frees worker slots. */
static void
tend_workers(void)
{
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		SpineWorkerSlot *slot = &spine_shared->workers[i];
		bool		stopped = is_stopped(&workers[i]);
		bool		wanted = false;
		int			pid;
		char		name[BGW_MAXLEN];

		LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
		pid = slot->pid;
		if (OidIsValid(slot->database))
		{
			SpineDatabase *db = spine_find_database(slot->database);

			wanted = slot->wanted && db && db->holds == 0;
			snprintf(name, sizeof(name), "spine worker %d of pipeline %s",
					 slot->index, NameStr(slot->pipeline));
			if (!slot->wanted && pid == 0 && stopped)
			{
				memset(slot, 0, sizeof(*slot));
				workers[i].start_after = 0;
				probe_those_left_out();
			}
		}
		LWLockRelease(spine_shared->lock);

		if (wanted && pid == 0 && may_start(&workers[i]))
			start(&workers[i], "spine_worker_main", "spine worker", name,
				  Int32GetDatum(i));
		else if (!wanted)
			stop(&workers[i], pid);
	}
}

/* Does any database have the extension?  is_certain: all have been looked into. */
static bool
extension_exists(bool *is_certain)
{
	bool		exists = false;

	*is_certain = true;
	LWLockAcquire(spine_shared->lock, LW_SHARED);
	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
	{
		SpineDatabase *db = &spine_shared->databases[i];

		if (!OidIsValid(db->oid))
			continue;
		exists |= db->has_extension;
		*is_certain &= db->probe_done && !db->probe_wanted;
	}
	LWLockRelease(spine_shared->lock);
	return exists;
}

/*
 * One process for the whole server, or none.  It goes by the claimed pid, so
 * that a new launcher finds what its predecessor has started.
 */
static void
tend(Child *child, const int *claimed_pid, bool wanted, const char *function, const char *name)
{
	int			pid;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	pid = *claimed_pid;
	LWLockRelease(spine_shared->lock);

	if (wanted && pid == 0 && may_start(child))
		start(child, function, name, name, (Datum) 0);
	else if (!wanted)
		stop(child, pid);
}

/*
 * A broker that is not wanted may have outlived its process, which then has to be
 * started to stop it.  After a crash restart we know only when all databases have
 * been looked into that none has the extension.
 */
static void
tend_broker(bool exists, bool is_certain)
{
	bool		wanted = exists && spine_brokers_setting[0] == '\0';
	bool		is_orphan;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->broker.wanted = wanted;
	is_orphan = !wanted && spine_shared->broker.pid == 0 &&
		(is_certain || spine_brokers_setting[0] != '\0');
	LWLockRelease(spine_shared->lock);
	tend(&broker, &spine_shared->broker.pid, wanted || (is_orphan && spine_broker_is_left()),
		 "spine_broker_main", "spine embedded broker");
}

static void
forget_launcher(int code, Datum arg)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->launcher_latch = NULL;
	LWLockRelease(spine_shared->lock);
}

static void
probe_all_again(void)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
		spine_shared->databases[i].probe_wanted = OidIsValid(spine_shared->databases[i].oid);
	LWLockRelease(spine_shared->lock);
}

void
spine_launcher_main(Datum arg)
{
	TimestampTz databases_read = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(forget_launcher, 0);
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->launcher_latch = MyLatch;
	LWLockRelease(spine_shared->lock);

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	probe_all_again();			/* what a former launcher may have left undone */

	/* handles outlive the loop; nothing else is allocated but the list */
	MemoryContextSwitchTo(TopMemoryContext);
	for (;;)
	{
		bool		changed;
		bool		exists;
		bool		is_certain;

		CHECK_FOR_INTERRUPTS();
		wake_at = from_now(DATABASE_SCAN_MS);

		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			probe_all_again();
		}

		LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
		changed = spine_shared->databases_changed;
		spine_shared->databases_changed = false;
		LWLockRelease(spine_shared->lock);
		if (changed || TimestampDifferenceExceeds(databases_read, GetCurrentTimestamp(),
												  DATABASE_SCAN_MS))
		{
			refresh_databases();
			databases_read = GetCurrentTimestamp();
		}

		start_probes();
		exists = extension_exists(&is_certain);
		tend_broker(exists, is_certain);
		tend(&producer, &spine_shared->producer_pid,
			 exists && spine_producer_rate > 0,
			 "spine_producer_main", "spine producer");
		tend_workers();

		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

void
spine_launcher_init(void)
{
	BackgroundWorker process = {0};

	process.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process.bgw_start_time = BgWorkerStart_RecoveryFinished;
	process.bgw_restart_time = 1;
	strlcpy(process.bgw_library_name, "spine", sizeof(process.bgw_library_name));
	strlcpy(process.bgw_function_name, "spine_launcher_main", sizeof(process.bgw_function_name));
	strlcpy(process.bgw_type, "spine launcher", sizeof(process.bgw_type));
	strlcpy(process.bgw_name, "spine launcher", sizeof(process.bgw_name));
	RegisterBackgroundWorker(&process);
}

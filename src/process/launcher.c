/*
 * launcher.c
 *		Finds the databases, has them probed, and keeps what should run running:
 *		the workers, the embedded broker, and what was added.
 *
 * The launcher is static, and started when the server accepts writes: on a standby,
 * with its promotion.  It is connected to no database and holds no lock while it waits,
 * so that nothing it waits for can wait for it.
 */
#include "process/launcher.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "process/child.h"
#include "process/default_cluster.h"
#include "process/embedded_broker.h"
#include "process/shared.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DATABASE_SCAN_MS	60000	/* for changes that nobody has told us of */
#define PROBES_AT_A_TIME	2	/* each takes one of max_worker_processes */

static SpineChild probes[SPINE_MAX_DATABASES];	/* by database slot */
static SpineChild workers[SPINE_MAX_WORKERS];	/* by worker slot */
static SpineChild broker;

/* A process that was added; the number of its entry is that in extra_pids. */
typedef struct Extra
{
	const char *function;
	const char *name;
	bool		(*is_wanted)(void);
	SpineChild	child;
} Extra;

static Extra extras[SPINE_MAX_EXTRAS];
static int	nextras = 0;

static TimestampTz wake_at;		/* the next time something is due */

static void
wake_no_later_than(TimestampTz when)
{
	if (when < wake_at)
		wake_at = when;
}

/* If the child has to pause, the launcher looks again when the pause is over. */
static bool
may_start(SpineChild *child)
{
	if (!spine_child_is_stopped(child))
		return false;
	if (child->start_after <= GetCurrentTimestamp())
		return true;
	wake_no_later_than(child->start_after);
	return false;
}

static void
start(SpineChild *child, const char *function, const char *type, const char *name, Datum argument)
{
	if (!spine_child_start(child, function, type, name, argument))
		wake_no_later_than(child->start_after);
}

/*
 * Starts or stops a child.  What counts is the pid that a process has claimed the
 * child's place with, or 0: so a new launcher finds what its predecessor has started.
 */
static void
tend(SpineChild *child, int pid, bool wanted, const char *function, const char *type,
	 const char *name, Datum argument)
{
	if (wanted && pid == 0 && may_start(child))
		start(child, function, type, name, argument);
	else if (!wanted)
		spine_child_stop(child, pid);
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

/* Returns how many of the databases found no slot.  The caller holds the lock. */
static int
add_databases(List *oids)
{
	ListCell   *cell;
	int			left_out = 0;

	foreach(cell, oids)
	{
		bool		is_new = spine_shared_find_database(lfirst_oid(cell)) == NULL;
		SpineDatabase *db = spine_shared_add_database(lfirst_oid(cell));

		if (db == NULL)
			left_out++;
		else if (is_new)
			db->probe_wanted = true;
	}
	return left_out;
}

/*
 * Frees the slots of all databases that are not in the list and not held by a backend.
 * Returns their OIDs.  The caller holds the lock.
 */
static List *
remove_databases(List *oids)
{
	List	   *gone = NIL;

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
	return gone;
}

static void
refresh_databases(void)
{
	List	   *oids = list_databases();
	List	   *gone;
	ListCell   *cell;
	int			left_out;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	left_out = add_databases(oids);
	gone = remove_databases(oids);
	LWLockRelease(spine_shared->lock);

	if (left_out > 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("spine does not look into %d databases: it has room for %d",
						left_out, SPINE_MAX_DATABASES)));
	foreach(cell, gone)
		spine_shared_forget_database(lfirst_oid(cell));
	list_free(gone);
	list_free(oids);
}

/*
 * Is it time for a probe of the database in this slot?  Returns its OID then, and
 * InvalidOid otherwise.
 */
static Oid
database_to_probe(int slot)
{
	SpineDatabase *db = &spine_shared->databases[slot];
	SpineChild *probe = &probes[slot];
	Oid			oid = InvalidOid;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	if (OidIsValid(db->oid) && db->holds == 0 && db->probe_pid == 0)
	{
		if (db->probe_wanted)
		{
			db->probe_wanted = false;
			db->probe_done = false;
			probe->failures = 0;
			oid = db->oid;
		}
		else if (!db->probe_done && may_start(probe))
		{
			/* the last one did not come to its end */
			probe->failures++;
			oid = db->oid;
		}
	}
	LWLockRelease(spine_shared->lock);
	return oid;
}

static void
start_probes(void)
{
	int			running = 0;

	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
		running += !spine_child_is_stopped(&probes[i]);

	for (int i = 0; i < SPINE_MAX_DATABASES && running < PROBES_AT_A_TIME; i++)
	{
		Oid			oid = spine_child_is_stopped(&probes[i]) ? database_to_probe(i) : InvalidOid;

		if (OidIsValid(oid))
		{
			start(&probes[i], "spine_probe_main", "spine probe", "spine probe",
				  ObjectIdGetDatum(oid));
			running++;
		}
	}
}

/*
 * A slot is free again, and there may be workers that found none.  The caller holds the
 * lock.
 */
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

/* Starts or stops the worker of a slot, or frees the slot. */
static void
tend_worker(int number)
{
	SpineWorkerSlot *slot = &spine_shared->workers[number];
	SpineChild *worker = &workers[number];
	bool		stopped = spine_child_is_stopped(worker);
	bool		wanted = false;
	int			pid;
	char		name[BGW_MAXLEN];

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	pid = slot->pid;
	if (OidIsValid(slot->database))
	{
		SpineDatabase *db = spine_shared_find_database(slot->database);

		wanted = slot->wanted && db && db->holds == 0;
		snprintf(name, sizeof(name), "spine worker %d of pipeline %s",
				 slot->index, NameStr(slot->pipeline));
		if (!slot->wanted && pid == 0 && stopped)
		{
			memset(slot, 0, sizeof(*slot));
			worker->start_after = 0;
			probe_those_left_out();
		}
	}
	LWLockRelease(spine_shared->lock);

	tend(worker, pid, wanted, "spine_worker_main", "spine worker", name, Int32GetDatum(number));
}

/* Does any database have the extension?  is_certain: all databases were probed. */
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
 * A broker that is not wanted may have outlived the process that tends it.  Then this
 * process has to be started to stop the broker.  After a crash restart, only when all
 * databases were probed do we know that none has the extension.
 */
static void
tend_broker(bool exists, bool is_certain)
{
	bool		wanted = exists && spine_default_cluster_is_embedded();
	bool		is_orphan;
	int			pid;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->broker.wanted = wanted;
	pid = spine_shared->broker.pid;
	is_orphan = !wanted && pid == 0 &&
		(is_certain || !spine_default_cluster_is_embedded());
	LWLockRelease(spine_shared->lock);
	tend(&broker, pid, wanted || (is_orphan && spine_embedded_broker_is_left()),
		 "spine_embedded_broker_main", "spine embedded broker", "spine embedded broker", (Datum) 0);
}

static void
tend_extra(int number, bool exists)
{
	Extra	   *extra = &extras[number];
	int			pid;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	pid = spine_shared->extra_pids[number];
	LWLockRelease(spine_shared->lock);
	tend(&extra->child, pid, exists && extra->is_wanted(), extra->function, extra->name,
		 extra->name, Int32GetDatum(number));
}

static void
tend_all(void)
{
	bool		is_certain;
	bool		exists = extension_exists(&is_certain);

	tend_broker(exists, is_certain);
	for (int i = 0; i < nextras; i++)
		tend_extra(i, exists);
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
		tend_worker(i);
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

/* Did anybody say that there are other databases now? */
static bool
databases_have_changed(void)
{
	bool		changed;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	changed = spine_shared->databases_changed;
	spine_shared->databases_changed = false;
	LWLockRelease(spine_shared->lock);
	return changed;
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

	/* handles outlive the loop; nothing else is allocated except the list of databases */
	MemoryContextSwitchTo(TopMemoryContext);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		wake_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DATABASE_SCAN_MS);

		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			probe_all_again();
		}
		if (databases_have_changed() ||
			TimestampDifferenceExceeds(databases_read, GetCurrentTimestamp(), DATABASE_SCAN_MS))
		{
			refresh_databases();
			databases_read = GetCurrentTimestamp();
		}
		start_probes();
		tend_all();

		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

void
spine_launcher_add(const char *function, const char *name, bool (*is_wanted)(void))
{
	Assert(process_shared_preload_libraries_in_progress);
	if (nextras == SPINE_MAX_EXTRAS)
		elog(ERROR, "too many processes for the launcher");
	extras[nextras++] = (Extra) {.function = function, .name = name, .is_wanted = is_wanted};
}

bool
spine_launcher_claim(Datum arg)
{
	return spine_shared_claim(&spine_shared->extra_pids[DatumGetInt32(arg)]);
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

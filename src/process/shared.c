/*
 * shared.c
 *		Reserves and sets up the shared memory that shared.h describes.
 */
#include "process/shared.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

/* Of a fixed size, or a table that is full would go on in what the server keeps for locks. */
#define TABLE_FLAGS		(HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE)

SpineShared *spine_shared = NULL;
HTAB	   *spine_progress = NULL;
HTAB	   *spine_pipeline_counts = NULL;
HTAB	   *spine_tenant_counts = NULL;
HTAB	   *spine_log_ends = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shared_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(MAXALIGN(sizeof(SpineShared)));
	RequestAddinShmemSpace(hash_estimate_size(SPINE_MAX_PARTITIONS,
											  sizeof(SpineProgress)));
	RequestAddinShmemSpace(hash_estimate_size(SPINE_MAX_PARTITIONS,
											  sizeof(SpineLogEnd)));
	RequestAddinShmemSpace(hash_estimate_size(SPINE_MAX_PIPELINES,
											  sizeof(SpinePipelineCounters)));
	RequestAddinShmemSpace(hash_estimate_size(SPINE_MAX_PRODUCED,
											  sizeof(SpineProduced)));
	RequestNamedLWLockTranche("spine", 1);
}

static void
create_shared_memory(void)
{
	HASHCTL		info = {0};
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);

	spine_shared = ShmemInitStruct("spine", sizeof(SpineShared), &found);
	if (!found)
	{
		memset(spine_shared, 0, sizeof(SpineShared));
		spine_shared->lock = &GetNamedLWLockTranche("spine")->lock;
		ConditionVariableInit(&spine_shared->progress);
	}

	info.keysize = sizeof(SpineProgressKey);
	info.entrysize = sizeof(SpineProgress);
	spine_progress = ShmemInitHash("spine progress",
								   SPINE_MAX_PARTITIONS, SPINE_MAX_PARTITIONS,
								   &info, TABLE_FLAGS);

	info.keysize = sizeof(SpinePipelineKey);
	info.entrysize = sizeof(SpinePipelineCounters);
	spine_pipeline_counts = ShmemInitHash("spine pipeline counters",
										  SPINE_MAX_PIPELINES, SPINE_MAX_PIPELINES,
										  &info, TABLE_FLAGS);

	info.keysize = sizeof(SpineProducedKey);
	info.entrysize = sizeof(SpineProduced);
	spine_tenant_counts = ShmemInitHash("spine produced",
										SPINE_MAX_PRODUCED, SPINE_MAX_PRODUCED,
										&info, TABLE_FLAGS);

	info.keysize = sizeof(SpineLogEndKey);
	info.entrysize = sizeof(SpineLogEnd);
	spine_log_ends = ShmemInitHash("spine log ends",
								   SPINE_MAX_PARTITIONS, SPINE_MAX_PARTITIONS,
								   &info, TABLE_FLAGS);

	LWLockRelease(AddinShmemInitLock);
}

void
spine_shared_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = create_shared_memory;
}

SpineDatabase *
spine_find_database(Oid oid)
{
	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
	{
		if (spine_shared->databases[i].oid == oid)
			return &spine_shared->databases[i];
	}
	return NULL;
}

SpineDatabase *
spine_add_database(Oid oid)
{
	SpineDatabase *db = spine_find_database(oid);

	if (db == NULL && (db = spine_find_database(InvalidOid)) != NULL)
	{
		memset(db, 0, sizeof(*db));
		db->oid = oid;
	}
	return db;
}

static void
unclaim(int code, Datum pid)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	*(int *) DatumGetPointer(pid) = 0;
	spine_wake_launcher();
	LWLockRelease(spine_shared->lock);
}

bool
spine_claim(int *pid)
{
	bool		claimed;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	claimed = *pid == 0;
	if (claimed)
		*pid = MyProcPid;
	LWLockRelease(spine_shared->lock);
	if (claimed)
		before_shmem_exit(unclaim, PointerGetDatum(pid));
	return claimed;
}

void
spine_wake_launcher(void)
{
	if (spine_shared->launcher_latch)
		SetLatch(spine_shared->launcher_latch);
}

void
spine_wake_workers(Oid database)
{
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		SpineWorkerSlot *slot = &spine_shared->workers[i];

		if (slot->pid != 0 && (slot->database == database || !OidIsValid(database)))
			SetLatch(slot->latch);
	}
}

void
spine_request_probe(Oid database)
{
	SpineDatabase *db;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = spine_find_database(database);
	if (db)
	{
		db->probe_wanted = true;
		db->catalog_generation++;
	}
	else
		spine_shared->databases_changed = true;

	spine_wake_workers(database);
	spine_wake_launcher();
	LWLockRelease(spine_shared->lock);
}

/*
 * shared.c
 *		Reserves and sets up spine's shared memory, and what all of its tables have in
 *		common.
 */
#include "process/shared.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

/* Of a fixed size: a full table would otherwise grow into the memory for the server's locks. */
#define TABLE_FLAGS		(HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE)

#define MAX_AREAS		8

/* A piece of shared memory: a struct, or a table. */
typedef struct Area
{
	const char *name;
	Size		size;			/* of the struct, or of an entry */
	void	  **where;			/* NULL: it is a table */
	HTAB	  **table;
	long		max_entries;
	Size		key_size;
	SpineTableKey key;
} Area;

static Area areas[MAX_AREAS];
static int	nareas = 0;

SpineShared *spine_shared = NULL;
HTAB	   *spine_progress = NULL;
HTAB	   *spine_pipeline_counts = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

StaticAssertDecl(offsetof(SpineProgressKey, database) == offsetof(SpinePipelineKey, database) &&
					 offsetof(SpineProgressKey, pipeline) == offsetof(SpinePipelineKey, name),
				 "SpineProgressKey begins as SpinePipelineKey does");

static void
request_shared_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (int i = 0; i < nareas; i++)
		RequestAddinShmemSpace(areas[i].where ? MAXALIGN(areas[i].size) :
							   hash_estimate_size(areas[i].max_entries, areas[i].size));
	RequestNamedLWLockTranche("spine", 1);
}

static void
create_area(const Area *area)
{
	HASHCTL		info = {.keysize = area->key_size, .entrysize = area->size};
	bool		found;

	if (area->where)
	{
		*area->where = ShmemInitStruct(area->name, area->size, &found);
		if (!found)
			memset(*area->where, 0, area->size);
	}
	else
		*area->table = ShmemInitHash(area->name, area->max_entries, area->max_entries,
									 &info, TABLE_FLAGS);
}

static void
create_shared_memory(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < nareas; i++)
		create_area(&areas[i]);
	if (spine_shared->lock == NULL)
	{
		ConditionVariableInit(&spine_shared->progress);
		spine_shared->lock = &GetNamedLWLockTranche("spine")->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

static void
add_area(const Area *area)
{
	Assert(process_shared_preload_libraries_in_progress);
	if (nareas == MAX_AREAS)
		elog(ERROR, "too many areas of shared memory");
	areas[nareas++] = *area;
}

void
spine_shared_add_struct(void **where, const char *name, Size size)
{
	add_area(&(Area) {.name = name, .size = size, .where = where});
}

void
spine_shared_add_table(HTAB **where, const char *name, long max_entries,
					   Size key_size, Size entry_size, SpineTableKey key)
{
	add_area(&(Area) {.name = name, .size = entry_size, .table = where,
			.max_entries = max_entries, .key_size = key_size, .key = key});
}

void
spine_shared_init(void)
{
	spine_shared_add_struct((void **) &spine_shared, "spine", sizeof(SpineShared));
	spine_shared_add_table(&spine_progress, "spine progress", SPINE_MAX_PARTITIONS,
						   sizeof(SpineProgressKey), sizeof(SpineProgress), SPINE_KEY_PIPELINE);
	spine_shared_add_table(&spine_pipeline_counts, "spine pipeline counters", SPINE_MAX_PIPELINES,
						   sizeof(SpinePipelineKey), sizeof(SpinePipelineCounters), SPINE_KEY_PIPELINE);

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = create_shared_memory;
}

void
spine_shared_remove(HTAB *table, bool (*is_gone)(const void *entry, const void *arg),
					const void *arg)
{
	HASH_SEQ_STATUS scan;
	void	   *entry;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		/* the key is what an entry begins with */
		if (is_gone(entry, arg))
			hash_search(table, entry, HASH_REMOVE, NULL);
	}
	LWLockRelease(spine_shared->lock);
}

static bool
is_of_database(const void *entry, const void *database)
{
	return *(const Oid *) entry == *(const Oid *) database;
}

void
spine_shared_forget_database(Oid database)
{
	for (int i = 0; i < nareas; i++)
	{
		if (areas[i].key != SPINE_KEY_OTHER)
			spine_shared_remove(*areas[i].table, is_of_database, &database);
	}
}

typedef struct PipelineList
{
	const NameData *names;
	uint64		n;
} PipelineList;

static bool
is_not_listed(const void *entry, const void *arg)
{
	const SpinePipelineKey *key = entry;
	const PipelineList *list = arg;

	if (key->database != MyDatabaseId)
		return false;
	for (uint64 i = 0; i < list->n; i++)
	{
		if (strcmp(NameStr(key->name), NameStr(list->names[i])) == 0)
			return false;
	}
	return true;
}

void
spine_shared_keep_pipelines(const NameData *pipelines, uint64 n)
{
	PipelineList list = {pipelines, n};

	for (int i = 0; i < nareas; i++)
	{
		if (areas[i].key == SPINE_KEY_PIPELINE)
			spine_shared_remove(*areas[i].table, is_not_listed, &list);
	}
}

void *
spine_shared_copy_table(HTAB *table, Size entry_size, long *n)
{
	HASH_SEQ_STATUS scan;
	void	   *entry;
	char	   *copies;
	long		capacity;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	capacity = hash_get_num_entries(table);
	LWLockRelease(spine_shared->lock);

	copies = palloc_extended((capacity + 1) * entry_size, MCXT_ALLOC_HUGE);
	*n = 0;
	LWLockAcquire(spine_shared->lock, LW_SHARED);
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		/* an entry that came in between is left out */
		if (*n == capacity)
		{
			hash_seq_term(&scan);
			break;
		}
		memcpy(copies + (*n)++ * entry_size, entry, entry_size);
	}
	LWLockRelease(spine_shared->lock);
	return copies;
}

SpineDatabase *
spine_shared_find_database(Oid oid)
{
	Assert(LWLockHeldByMe(spine_shared->lock));
	for (int i = 0; i < SPINE_MAX_DATABASES; i++)
	{
		if (spine_shared->databases[i].oid == oid)
			return &spine_shared->databases[i];
	}
	return NULL;
}

SpineDatabase *
spine_shared_add_database(Oid oid)
{
	SpineDatabase *db = spine_shared_find_database(oid);

	if (db == NULL && (db = spine_shared_find_database(InvalidOid)) != NULL)
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
	spine_shared_wake_launcher();
	LWLockRelease(spine_shared->lock);
}

bool
spine_shared_claim(int *pid)
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
spine_shared_wake_launcher(void)
{
	Assert(LWLockHeldByMe(spine_shared->lock));
	if (spine_shared->launcher_latch)
		SetLatch(spine_shared->launcher_latch);
}

void
spine_shared_wake_workers(Oid database)
{
	Assert(LWLockHeldByMe(spine_shared->lock));
	for (int i = 0; i < SPINE_MAX_WORKERS; i++)
	{
		SpineWorkerSlot *slot = &spine_shared->workers[i];

		if (slot->pid != 0 && (slot->database == database || !OidIsValid(database)))
			SetLatch(slot->latch);
	}
}

void
spine_shared_request_probe(Oid database)
{
	SpineDatabase *db;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	db = spine_shared_find_database(database);
	if (db)
	{
		db->probe_wanted = true;
		db->catalog_generation++;
	}
	else
		spine_shared->databases_changed = true;

	spine_shared_wake_workers(database);
	spine_shared_wake_launcher();
	LWLockRelease(spine_shared->lock);
}

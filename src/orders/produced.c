/*
 * produced.c
 *		Counts the order events that producers have sent, in shared memory, so that
 *		the counts outlive the processes; and shows them as rows.
 */
#include "orders/produced.h"

#include "catalog/namespace.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "orders/tenant.h"
#include "process/shared.h"
#include "utils/builtins.h"

#define MAX_TENANTS		64		/* that one database's events are counted by */
#define MAX_COUNTS		1024	/* the same, over all databases */

PG_FUNCTION_INFO_V1(spine_produced);

typedef struct CountKey
{
	Oid			database;		/* InvalidOid: the producer worker's */
	char		tenant[SPINE_MAX_TENANT_BYTES + 1]; /* "": all tenants without an
													 * entry of their own */
} CountKey;

/* Written by the process that sends the events. */
typedef struct Count
{
	CountKey	key;
	int64		events;
} Count;

static HTAB *counts = NULL;

void
spine_produced_init(void)
{
	spine_shared_add_table(&counts, "spine produced", MAX_COUNTS,
						   sizeof(CountKey), sizeof(Count), SPINE_KEY_DATABASE);
}

/* How many tenants this database's events are counted by.  The caller holds the lock. */
static int
count_tenants(void)
{
	HASH_SEQ_STATUS scan;
	Count	   *count;
	int			n = 0;

	hash_seq_init(&scan, counts);
	while ((count = hash_seq_search(&scan)) != NULL)
		n += count->key.database == MyDatabaseId;
	return n;
}

void
spine_produced_add(const char *tenant, size_t len, int64 n)
{
	CountKey	others;
	CountKey	key;
	Count	   *count;
	bool		found = true;

	memset(&others, 0, sizeof(others));
	others.database = MyDatabaseId;
	key = others;
	memcpy(key.tenant, tenant, Min(len, SPINE_MAX_TENANT_BYTES));

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	count = hash_search(counts, &key, HASH_FIND, NULL);
	if (count == NULL)			/* once some tenants are counted together, all new ones are */
		count = hash_search(counts, &others, HASH_FIND, NULL);
	if (count == NULL)
		count = hash_search(counts, count_tenants() < MAX_TENANTS ? &key : &others,
							HASH_ENTER_NULL, &found);
	if (count)
		count->events = (found ? count->events : 0) + n;
	LWLockRelease(spine_shared->lock);
}

/*
 * NULL when the encoding of this database does not have the name: the producer
 * worker, which is in no database, makes events for any tenant.
 */
static text *
tenant_text(const char *utf8_name)
{
	int			len = strlen(utf8_name);
	int			encoding = GetDatabaseEncoding();
	int			size = len * MAX_CONVERSION_GROWTH + 1;
	char	   *converted;
	Oid			proc;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return cstring_to_text(utf8_name);

	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc))
		return NULL;
	converted = palloc(size);
	if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
									  (unsigned char *) utf8_name, len,
									  (unsigned char *) converted, size, true) < len)
		return NULL;
	return cstring_to_text(converted);
}

Datum
spine_produced(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Count	   *produced;
	long		n;

	InitMaterializedSRF(fcinfo, 0);
	produced = spine_shared_copy_table(counts, sizeof(Count), &n);
	for (long i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false};
		text	   *tenant;

		if (OidIsValid(produced[i].key.database) && produced[i].key.database != MyDatabaseId)
			continue;
		tenant = produced[i].key.tenant[0] ? tenant_text(produced[i].key.tenant) : NULL;
		nulls[0] = tenant == NULL;
		values[0] = PointerGetDatum(tenant);
		values[1] = Int64GetDatum(produced[i].events);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

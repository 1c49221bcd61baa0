/*
 * sums.c
 *		Adds up orders, and adds the sums to those in the tables.
 *
 * Its SQL does not depend on the search_path: every name is qualified, operators too.
 */
#include "orders/sums.h"

#include "apply/statement.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "event/key_hash.h"
#include "orders/session.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

/*
 * Sums, by what they are of: tenant, currency and status.  What a table does not tell apart
 * is NULL.
 */
#define NPARTS		3

typedef struct SumKey
{
	const text *parts[NPARTS];
} SumKey;

typedef struct Sum
{
	SumKey		key;
	uint32		hash;
	char		status;			/* the hash table's */
	int64		orders;
	int128		amount;
	TimestampTz newest_new;		/* of the new rows */
	TimestampTz newest_old;		/* of the old rows */
} Sum;

/* Of this process: everyone who may write orders chooses keys. */
static SpineKeySecret secret;
static bool has_secret = false;

static uint32
hash_of(const SumKey *key)
{
	uint32		hash = 0;

	for (int i = 0; i < NPARTS; i++)
	{
		const text *part = key->parts[i];

		if (part)
			hash = hash_combine(hash, (uint32) spine_key_hash(&secret, VARDATA_ANY(part),
															  VARSIZE_ANY_EXHDR(part)));
	}
	return hash;
}

/* In the order of the tables' keys, which are COLLATE "C". */
static int
compare_keys(const SumKey *a, const SumKey *b)
{
	for (int i = 0; i < NPARTS; i++)
	{
		const text *x = a->parts[i];
		const text *y = b->parts[i];
		size_t		x_len,
					y_len;
		int			order;

		if (x == NULL)
			continue;
		x_len = VARSIZE_ANY_EXHDR(x);
		y_len = VARSIZE_ANY_EXHDR(y);
		order = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(x_len, y_len));
		if (order != 0)
			return order;
		if (x_len != y_len)
			return x_len < y_len ? -1 : 1;
	}
	return 0;
}

#define SH_PREFIX			sums
#define SH_ELEMENT_TYPE		Sum
#define SH_KEY_TYPE			SumKey
#define SH_KEY				key
#define SH_HASH_KEY(tb, k)	hash_of(&(k))
#define SH_EQUAL(tb, a, b)	(compare_keys(&(a), &(b)) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)	(a)->hash
#define SH_SCOPE			static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static int
compare_sums(const void *a, const void *b)
{
	return compare_keys(&(*(Sum *const *) a)->key, &(*(Sum *const *) b)->key);
}

static bool
changes_nothing(const Sum *sum)
{
	/* if the old rows were as new, what they were counted in says so */
	return sum->orders == 0 && sum->amount == 0 && sum->newest_new <= sum->newest_old;
}

/* Its parts are not copied. */
static Sum *
find_sum(sums_hash *sums, const text *tenant, const text *currency, const text *status, bool *found)
{
	SumKey		key = {{tenant, currency, status}};
	Sum		   *sum = sums_insert(sums, key, found);

	if (!*found)
	{
		sum->orders = 0;
		sum->amount = 0;
		sum->newest_new = DT_NOBEGIN;
		sum->newest_old = DT_NOBEGIN;
	}
	return sum;
}

struct SpineSums
{
	sums_hash  *totals;			/* per tenant, currency and status */
};

SpineSums *
spine_sums_make(void)
{
	SpineSums  *sums = palloc(sizeof(SpineSums));

	if (!has_secret)
	{
		secret = spine_key_secret();
		has_secret = true;
	}
	sums->totals = sums_create(CurrentMemoryContext, 8, NULL);
	return sums;
}

static const text *
copy_text(const text *value)
{
	return (const text *) DatumGetPointer(datumCopy(PointerGetDatum(value), false, -1));
}

void
spine_sums_add(SpineSums *all, const SpineOrder *order, bool is_new)
{
	bool		found;
	Sum		   *sum = find_sum(all->totals, order->tenant, order->currency, order->status, &found);

	if (!found)
		for (int i = 0; i < NPARTS; i++)
			sum->key.parts[i] = copy_text(sum->key.parts[i]);
	if (is_new)
	{
		sum->orders++;
		sum->amount += order->amount_cents;
		sum->newest_new = Max(sum->newest_new, order->updated_at);
	}
	else
	{
		sum->orders--;
		sum->amount -= order->amount_cents;
		sum->newest_old = Max(sum->newest_old, order->updated_at);
	}
}

static Datum
numeric_of(int128 value)
{
	const int64 base = INT64CONST(1000000000000000000);
	char		text[64];

	if (value == (int64) value)
		return NumericGetDatum(int64_to_numeric((int64) value));

	/* the quotient fits: there are fewer than 10^18 orders */
	snprintf(text, sizeof(text), INT64_FORMAT "%018lld", (int64) (value / base),
			 llabs((long long) (value % base)));
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

/* The statements that add sums to a table: of all of them, with the same arguments. */
#define NARGS		7
#define SLICE		10000		/* sums in one statement */

static void
write_slice(SpineStatement *kept, const char *query, Sum **sums, int n)
{
	Oid			types[NARGS] = {INT4OID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID,
	NUMERICARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		args[NARGS];
	char		nulls[NARGS];
	Datum	   *values = palloc(n * sizeof(Datum));
	int			rc;

	memset(nulls, ' ', sizeof(nulls));
	args[0] = Int32GetDatum(spine_session());
	for (int part = 0; part < NPARTS; part++)
	{
		if (sums[0]->key.parts[part] == NULL)
		{
			args[1 + part] = (Datum) 0;
			nulls[1 + part] = 'n';
			continue;
		}
		for (int i = 0; i < n; i++)
			values[i] = PointerGetDatum(sums[i]->key.parts[part]);
		args[1 + part] = PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
	}
	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(sums[i]->orders);
	args[4] = PointerGetDatum(construct_array(values, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	for (int i = 0; i < n; i++)
		values[i] = numeric_of(sums[i]->amount);
	args[5] = PointerGetDatum(construct_array(values, n, NUMERICOID, -1, false, TYPALIGN_INT));
	for (int i = 0; i < n; i++)
		values[i] = TimestampTzGetDatum(Max(sums[i]->newest_new, sums[i]->newest_old));
	args[6] = PointerGetDatum(construct_array(values, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));

	rc = SPI_execute_plan(spine_statement_prepare(kept, query, NARGS, types), args, nulls, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
}

/* Writes the sums, or those that change something; returns how many. */
static int
write_sums(SpineStatement *kept, const char *query, sums_hash *sums, bool all)
{
	Sum		  **sorted = palloc_extended(Max(sums->members, 1) * sizeof(Sum *), MCXT_ALLOC_HUGE);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine totals", ALLOCSET_DEFAULT_SIZES);
	sums_iterator iterator;
	Sum		   *sum;
	int			n = 0;

	sums_start_iterate(sums, &iterator);
	while ((sum = sums_iterate(sums, &iterator)) != NULL)
		if (all || !changes_nothing(sum))
			sorted[n++] = sum;
	qsort(sorted, n, sizeof(Sum *), compare_sums);

	for (int i = 0; i < n; i += SLICE)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);

		write_slice(kept, query, sorted + i, Min(SLICE, n - i));
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	return n;
}

void
spine_sums_write(const SpineSums *all, const char *schema)
{
	static SpineStatement totals_statement;
	static SpineStatement sums_statement;
	static SpineStatement counts_statement;
	sums_hash  *sums = sums_create(CurrentMemoryContext, 8, NULL);
	sums_hash  *counts = sums_create(CurrentMemoryContext, all->totals->members, NULL);
	sums_iterator iterator;
	Sum		   *total;
	bool		has_counts;

	sums_start_iterate(all->totals, &iterator);
	while ((total = sums_iterate(all->totals, &iterator)) != NULL)
	{
		bool		found;
		Sum		   *sum = find_sum(sums, NULL, total->key.parts[1], total->key.parts[2], &found);

		sum->orders += total->orders;
		sum->amount += total->amount;
		find_sum(counts, total->key.parts[0], NULL, NULL, &found)->orders += total->orders;
	}

	write_sums(&totals_statement,
			   psprintf("INSERT INTO %s.spine_order_totals AS t"
						" SELECT pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), $1,"
						" pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7)"
						" ON CONFLICT (tenant, currency, status, session) DO UPDATE"
						" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
						" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents,"
						" newest = greatest(t.newest, EXCLUDED.newest)", schema),
			   all->totals, false);
	has_counts = write_sums(&counts_statement,
							psprintf("INSERT INTO %s.spine_order_counts AS t"
									 " SELECT pg_catalog.unnest($2), $1, pg_catalog.unnest($5)"
									 " ON CONFLICT (tenant, session) DO UPDATE"
									 " SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders", schema),
							counts, false) > 0;

	/* every session that has counts has sums: that is how its counts are found */
	write_sums(&sums_statement,
			   psprintf("INSERT INTO %s.spine_order_sums AS t"
						" SELECT pg_catalog.unnest($3), pg_catalog.unnest($4), $1,"
						" pg_catalog.unnest($5), pg_catalog.unnest($6)"
						" ON CONFLICT (currency, status, session) DO UPDATE"
						" SET orders = t.orders OPERATOR(pg_catalog.+) EXCLUDED.orders,"
						" amount_cents = t.amount_cents OPERATOR(pg_catalog.+) EXCLUDED.amount_cents", schema),
			   sums, has_counts);
}

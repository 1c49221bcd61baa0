/*
 * sums.c
 *		Adds up orders, and adds the sums to those in the tables.
 */
#include "orders/sums.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "event/key_hash.h"
#include "orders/session.h"
#include "orders/total_table.h"
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

/* The tables.  Their values stand in this order behind their keys. */
enum
{
	ORDERS,
	AMOUNT_CENTS,
	NEWEST,
	NVALUES
};

static const SpineTotalColumn totals_columns[] = {
	{.name = "tenant", .type = TEXTOID},
	{.name = "currency", .type = TEXTOID},
	{.name = "status", .type = TEXTOID},
	{.name = "session", .type = INT4OID},
	{.name = "orders", .type = INT8OID},
	{.name = "amount_cents", .type = NUMERICOID},
	{.name = "newest", .type = TIMESTAMPTZOID},
};

static const SpineTotalColumn sums_columns[] = {
	{.name = "currency", .type = TEXTOID},
	{.name = "status", .type = TEXTOID},
	{.name = "session", .type = INT4OID},
	{.name = "orders", .type = INT8OID},
	{.name = "amount_cents", .type = NUMERICOID},
};

static const SpineTotalColumn counts_columns[] = {
	{.name = "tenant", .type = TEXTOID},
	{.name = "session", .type = INT4OID},
	{.name = "orders", .type = INT8OID},
};

static const SpineTotalShape totals_shape = {4, lengthof(totals_columns), totals_columns};
static const SpineTotalShape sums_shape = {3, lengthof(sums_columns), sums_columns};
static const SpineTotalShape counts_shape = {2, lengthof(counts_columns), counts_columns};

#define MAX_COLUMNS	(NPARTS + 1 + NVALUES)

static void
make_key(Datum *key, const Sum *sum)
{
	for (int part = 0; part < NPARTS; part++)
	{
		if (sum->key.parts[part])
			*key++ = PointerGetDatum(sum->key.parts[part]);
	}
	*key = Int32GetDatum(spine_session());
}

static void
make_values(Datum *values, const Sum *sum, int nvalues)
{
	values[ORDERS] = Int64GetDatum(sum->orders);
	if (nvalues > AMOUNT_CENTS)
		values[AMOUNT_CENTS] = numeric_of(sum->amount);
	if (nvalues > NEWEST)
		values[NEWEST] = TimestampTzGetDatum(Max(sum->newest_new, sum->newest_old));
}

static void
add_values(Datum *values, const Datum *old, int nvalues)
{
	values[ORDERS] = DirectFunctionCall2(int8pl, values[ORDERS], old[ORDERS]);
	if (nvalues > AMOUNT_CENTS)
		values[AMOUNT_CENTS] = DirectFunctionCall2(numeric_add, values[AMOUNT_CENTS], old[AMOUNT_CENTS]);
	if (nvalues > NEWEST)
		values[NEWEST] = DirectFunctionCall2(timestamp_larger, values[NEWEST], old[NEWEST]);
}

static void
write_sum(SpineTotalTable *table, const SpineTotalShape *shape, const Sum *sum)
{
	int			nvalues = shape->ncolumns - shape->nkeys;
	Datum		row[MAX_COLUMNS];
	const Datum *old;

	make_key(row, sum);
	make_values(row + shape->nkeys, sum, nvalues);
	old = spine_total_table_find(table, row);
	if (old == NULL)
		(void) spine_total_table_insert(table, row, NULL);
	else
	{
		add_values(row + shape->nkeys, old + shape->nkeys, nvalues);
		spine_total_table_update(table, row);
	}
}

/*
 * Writes the sums, or those that change something; returns how many.  They are sorted: two
 * transactions that write the same rows must not wait for each other.
 */
static int
write_sums(Relation relation, const SpineTotalShape *shape, sums_hash *sums, bool all)
{
	Sum		  **sorted = palloc_extended(Max(sums->members, 1) * sizeof(Sum *), MCXT_ALLOC_HUGE);
	MemoryContext context;
	SpineTotalTable *table;
	sums_iterator iterator;
	Sum		   *sum;
	int			n = 0;

	sums_start_iterate(sums, &iterator);
	while ((sum = sums_iterate(sums, &iterator)) != NULL)
		if (all || !changes_nothing(sum))
			sorted[n++] = sum;
	if (n == 0)
		return 0;
	qsort(sorted, n, sizeof(Sum *), compare_sums);

	table = spine_total_table_open(relation, shape);
	context = AllocSetContextCreate(CurrentMemoryContext, "spine totals", ALLOCSET_SMALL_SIZES);
	for (int i = 0; i < n; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		write_sum(table, shape, sorted[i]);
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	spine_total_table_close(table);
	return n;
}

void
spine_sums_write(const SpineSums *all, Relation totals, Relation sums, Relation counts)
{
	sums_hash  *of_all = sums_create(CurrentMemoryContext, 8, NULL);
	sums_hash  *of_tenants = sums_create(CurrentMemoryContext, all->totals->members, NULL);
	sums_iterator iterator;
	Sum		   *total;
	bool		has_counts;

	sums_start_iterate(all->totals, &iterator);
	while ((total = sums_iterate(all->totals, &iterator)) != NULL)
	{
		bool		found;
		Sum		   *sum = find_sum(of_all, NULL, total->key.parts[1], total->key.parts[2], &found);

		sum->orders += total->orders;
		sum->amount += total->amount;
		find_sum(of_tenants, total->key.parts[0], NULL, NULL, &found)->orders += total->orders;
	}

	write_sums(totals, &totals_shape, all->totals, false);
	has_counts = write_sums(counts, &counts_shape, of_tenants, false) > 0;

	/* every session that has counts has sums: that is how its counts are found */
	write_sums(sums, &sums_shape, of_all, has_counts);
}

/*
 * newest.c
 *		Finds the newest event of each key in a batch.
 *
 * Keys are compared by their bytes, and versions as integers.  Values of types for which
 * that is not right (numeric, text that ignores case, ...) are sorted by the type's own
 * comparison function first, and represented by their ranks.
 */
#include "apply/newest.h"

#include "apply/bind.h"
#include "apply/compare.h"
#include "apply/key_bytes.h"
#include "apply/record_field.h"
#include "event/reduce.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"

/* The events of a batch, while they are compared. */
typedef struct Events
{
	const SpineReduceKey *keys;
	const Datum *versions;		/* NULL: log order decides */
	const SpineColumn *version; /* it compares as an integer; NULL: versions are ranks */
} Events;

/* --------------------------------------------------------------------------
 * Ranks
 * -------------------------------------------------------------------------- */

typedef struct Sorting
{
	FmgrInfo   *compare;
	Oid			collation;
	const Datum *values;
} Sorting;

static int
compare_values(const void *a, const void *b, void *arg)
{
	const Sorting *sorting = arg;

	return DatumGetInt32(FunctionCall2Coll(sorting->compare, sorting->collation,
										   sorting->values[*(const uint32 *) a],
										   sorting->values[*(const uint32 *) b]));
}

/* Equal values get equal ranks, and a greater value a greater one. */
static Datum *
rank(const SpineColumn *column, const Datum *values, size_t n)
{
	Sorting		sorting = {spine_compare_function(column), column->collation, values};
	Datum	   *ranks = palloc(n * sizeof(Datum));
	uint32	   *order = palloc(n * sizeof(uint32));
	int64		last = 0;

	for (size_t i = 0; i < n; i++)
		order[i] = (uint32) i;
	qsort_arg(order, n, sizeof(uint32), compare_values, &sorting);
	for (size_t i = 0; i < n; i++)
	{
		if (i > 0 && compare_values(&order[i - 1], &order[i], &sorting) != 0)
			last++;
		ranks[order[i]] = Int64GetDatum(last);
	}
	pfree(order);
	return ranks;
}

/* --------------------------------------------------------------------------
 * The newest events
 * -------------------------------------------------------------------------- */

static inline int64
version_of(const Events *events, size_t event)
{
	Datum		version = events->versions[event];

	return events->version ? spine_version_integer(events->version, version) : DatumGetInt64(version);
}

static bool
is_newer(size_t candidate, size_t incumbent, void *arg)
{
	const Events *events = arg;

	return events->versions == NULL || version_of(events, candidate) >= version_of(events, incumbent);
}

/* The keys of all events as bytes. */
static SpineReduceKey *
make_keys(const SpineSink *sink, const SpineRows *rows)
{
	size_t		n = rows->nevents;
	SpineReduceKey *keys = palloc(n * sizeof(SpineReduceKey));
	size_t	   *starts = palloc((n + 1) * sizeof(size_t));
	const Datum **values = palloc(sink->nkeys * sizeof(Datum *));
	StringInfoData bytes;

	for (int k = 0; k < sink->nkeys; k++)
	{
		const SpineColumn *column = &sink->columns[sink->keys[k]];

		values[k] = rows->bound[sink->keys[k]];
		if (!column->equal_if_same_bytes)
			values[k] = rank(column, values[k], n);
	}

	initStringInfo(&bytes);
	for (size_t i = 0; i < n; i++)
	{
		starts[i] = bytes.len;
		for (int k = 0; k < sink->nkeys; k++)
		{
			const SpineColumn *column = &sink->columns[sink->keys[k]];

			if (column->equal_if_same_bytes)
				spine_key_append(&bytes, column, values[k][i]);
			else
				spine_key_append_int64(&bytes, DatumGetInt64(values[k][i]));
		}
	}
	starts[n] = bytes.len;

	/* only now, since the buffer moved as it grew */
	for (size_t i = 0; i < n; i++)
	{
		keys[i].key = bytes.data + starts[i];
		keys[i].len = starts[i + 1] - starts[i];
	}
	return keys;
}

static int
compare_bytes(const SpineReduceKey *a, const SpineReduceKey *b)
{
	int			order = memcmp(a->key, b->key, Min(a->len, b->len));

	return order ? order : (a->len > b->len) - (a->len < b->len);
}

/* Sorts events by the bytes of their keys. */
static int
compare_keys(const void *a, const void *b, void *arg)
{
	const SpineReduceKey *keys = arg;

	return compare_bytes(&keys[*(const uint32 *) a], &keys[*(const uint32 *) b]);
}

/* --------------------------------------------------------------------------
 * Partial events
 * -------------------------------------------------------------------------- */

/* Sorts events by key, and those of one key from the newest to the oldest. */
static int
compare_age(const void *a, const void *b, void *arg)
{
	Events	   *events = arg;
	uint32		i = *(const uint32 *) a;
	uint32		j = *(const uint32 *) b;
	int			order = compare_bytes(&events->keys[i], &events->keys[j]);

	if (order != 0 || i == j)
		return order;

	/* is_newer takes the later one first */
	return (i > j) == is_newer(Max(i, j), Min(i, j), events) ? -1 : 1;
}

bool
spine_newest_must_look(const SpineColumn *column)
{
	return (column->source == SPINE_FROM_JSONPATH || column->source == SPINE_FROM_HEADER) &&
		!column->has_given_default && column->needed_as == NULL;
}

static void
look_for_columns(const SpineSink *sink, SpineRows *rows)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine row", ALLOCSET_DEFAULT_SIZES);

	rows->missing = palloc0(sink->ncolumns * sizeof(bool *));
	for (int c = 0; c < sink->ncolumns; c++)
	{
		const SpineColumn *column = &sink->columns[c];
		MemoryContext old_context;

		if (!spine_newest_must_look(column))
			continue;
		rows->missing[c] = palloc(rows->nevents * sizeof(bool));
		rows->current = column;
		old_context = MemoryContextSwitchTo(context);
		for (size_t event = 0; event < rows->nevents; event++)
		{
			rows->missing[c][event] =
				spine_record_field(column, &rows->events[event]).kind == SPINE_FIELD_ABSENT;
			MemoryContextReset(context);
		}
		MemoryContextSwitchTo(old_context);
	}
	rows->current = NULL;
	MemoryContextDelete(context);
}

static inline bool
is_missing(const SpineSink *sink, const SpineRows *rows, size_t event, int column)
{
	if (sink->columns[column].source == SPINE_FROM_FIELD)
		return spine_bind_is_missing(&sink->columns[column], &rows->events[event]);
	return rows->missing[column] && rows->missing[column][event];
}

/* Columns that no event of the batch has, and that the statement need not name. */
static void
find_left_out(const SpineSink *sink, SpineRows *rows)
{
	for (int c = 0; c < sink->ncolumns; c++)
	{
		size_t		event = 0;

		if (!sink->columns[c].can_be_left_out)
			continue;
		while (event < rows->nevents && is_missing(sink, rows, event, c))
			event++;
		if (event < rows->nevents)
			continue;
		if (rows->left_out == NULL)
			rows->left_out = palloc0(sink->ncolumns * sizeof(bool));
		rows->left_out[c] = true;
	}
}

/* Does the event lack the column, and might another have it? */
static inline bool
lacks(const SpineSink *sink, const SpineRows *rows, size_t event, int column)
{
	return is_missing(sink, rows, event, column) &&
		!(rows->left_out && rows->left_out[column]);
}

static bool
is_partial(const SpineSink *sink, const SpineRows *rows, size_t event)
{
	for (int c = 0; c < sink->ncolumns; c++)
	{
		if (lacks(sink, rows, event, c))
			return true;
	}
	return false;
}

/*
 * events[0..n-1] have the same key; the first, which is partial, is the newest.  An event
 * that has all columns ends the search, since it has each that is still looked for.
 */
static SpinePartialRow *
merge(const SpineSink *sink, const SpineRows *rows, const uint32 *events, size_t n)
{
	SpinePartialRow *row;
	int			nlacking = 0;

	for (int c = 0; c < sink->ncolumns; c++)
		nlacking += lacks(sink, rows, events[0], c);
	row = palloc(offsetof(SpinePartialRow, given) + nlacking * sizeof(SpineGiven));
	row->ngiven = 0;
	for (int c = 0; c < sink->ncolumns && nlacking > 0; c++)
	{
		size_t		i = 1;

		if (!lacks(sink, rows, events[0], c))
			continue;
		nlacking--;
		while (i < n && lacks(sink, rows, events[i], c))
			i++;
		if (i < n)
			row->given[row->ngiven++] = (SpineGiven) {c, events[i]};
	}
	return row;
}

/* Finds what the partial ones among the kept events lack.  It sorts all events for that. */
static void
merge_all(const SpineSink *sink, SpineRows *rows, Events *events)
{
	size_t		n = rows->nevents;
	uint32	   *order = palloc(n * sizeof(uint32));
	size_t		start = 0;

	for (size_t i = 0; i < n; i++)
		order[i] = (uint32) i;
	qsort_arg(order, n, sizeof(uint32), compare_age, events);

	rows->partial = palloc0(rows->nkept * sizeof(SpinePartialRow *));
	for (size_t row = 0; row < rows->nkept; row++)
	{
		size_t		end = start + 1;

		Assert(order[start] == rows->kept[row]);
		while (end < n && compare_bytes(&events->keys[order[end]], &events->keys[order[start]]) == 0)
			end++;
		if (is_partial(sink, rows, order[start]))
			rows->partial[row] = merge(sink, rows, order + start, end - start);
		start = end;
	}
	Assert(start == n);
}

void
spine_newest_find(const SpineSink *sink, SpineRows *rows)
{
	int		   *needed = palloc((sink->nkeys + 1) * sizeof(int));
	Events		events = {0};
	uint32	   *table;

	memcpy(needed, sink->keys, sink->nkeys * sizeof(int));
	needed[sink->nkeys] = sink->version;
	spine_rows_bind(sink, rows, needed, sink->nkeys + (sink->version >= 0));

	events.keys = make_keys(sink, rows);
	if (sink->version >= 0)
	{
		const SpineColumn *version = &sink->columns[sink->version];

		events.version = spine_version_is_integer(version) ? version : NULL;
		events.versions = events.version ? rows->bound[sink->version] :
			rank(version, rows->bound[sink->version], rows->nevents);
	}

	table = MemoryContextAllocHuge(CurrentMemoryContext,
								   spine_reduce_table_size(rows->nevents) * sizeof(uint32));
	rows->kept = palloc(rows->nevents * sizeof(uint32));
	rows->nkept = spine_reduce(events.keys, rows->nevents, is_newer, &events, table, rows->kept);
	qsort_arg(rows->kept, rows->nkept, sizeof(uint32), compare_keys, (void *) events.keys);

	look_for_columns(sink, rows);
	find_left_out(sink, rows);
	for (size_t row = 0; row < rows->nkept; row++)
	{
		if (is_partial(sink, rows, rows->kept[row]))
		{
			merge_all(sink, rows, &events);
			break;
		}
	}
}

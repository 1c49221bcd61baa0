/*
 * kept_rows.c
 *		Keeps the newest row of each key while the pieces of a transaction come, in a hash
 *		table of keys.
 *
 * A row is the tuple that the sink's statement reads.  A newer row takes the place of the
 * older one, so that memory grows with the number of keys, and not with that of events.
 *
 * The keys of many events are scattered over the memory.  So events go through in blocks:
 * the rows of a block are made, and what their keys will be compared with is asked of the
 * processor's caches, before the first key is looked up.
 */
#include "apply/kept_rows.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "apply/bind.h"
#include "apply/key_bytes.h"
#include "apply/newest.h"
#include "apply/table_upsert.h"
#include "apply/write.h"
#include "event/key_hash.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define BLOCK_ROWS		32
#define FIRST_SLOTS		1024

/* How far before a row is written the caches are asked for it. */
#define PREFETCH_ROWS	4

/* The bytes that one statement writes: its rows, and those of its triggers, stay in memory. */
#define MAX_STATEMENT_BYTES	((size_t) 8 * 1024 * 1024)

typedef struct KeptRow
{
	int64		version;
	uint32		key_len;
	uint32		room;			/* for the tuple */
	char		key[FLEXIBLE_ARRAY_MEMBER]; /* the tuple is behind it, aligned */
} KeptRow;

/* Of the hash table. */
typedef struct Slot
{
	uint64		hash;
	KeptRow    *row;			/* NULL: empty */
} Slot;

/* A row that is made, but not yet kept. */
typedef struct Candidate
{
	uint64		hash;
	int			key_start;		/* in the keys of its block */
	int			key_len;
	Datum	   *values;
	bool	   *nulls;
} Candidate;

struct SpineKeptRows
{
	SpineSink  *sink;
	MemoryContext context;		/* of the rows and the table */
	SpineKeySecret secret;
	size_t		nrows;
	size_t		nslots;			/* a power of two; 0: there is no table yet */
	Slot	   *slots;			/* at most half full, so that a search is short */
	Datum	   *missing;		/* m<i> (rows.h) of all rows that are kept */
	Datum	   *can_be_missing; /* m<i> at most */

	/* the block */
	MemoryContext block_context;
	bool	   *lacking;		/* by column; not used */
	StringInfoData keys;
	int			ncandidates;
	Candidate	candidates[BLOCK_ROWS];
};

bool
spine_kept_rows_suit(const SpineSink *sink)
{
	for (int i = 0; i < sink->nkeys; i++)
	{
		if (!sink->columns[sink->keys[i]].equal_if_same_bytes)
			return false;
	}
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (spine_newest_must_look(&sink->columns[i]))
			return false;
	}
	return sink->version < 0 || spine_version_is_integer(&sink->columns[sink->version]);
}

SpineKeptRows *
spine_kept_rows_make(SpineSink *sink)
{
	SpineKeptRows *kept = palloc0(sizeof(SpineKeptRows));
	int			natts = sink->row_type->natts;

	kept->sink = sink;
	kept->context = AllocSetContextCreate(CurrentMemoryContext, "spine kept rows", ALLOCSET_DEFAULT_SIZES);
	kept->block_context = AllocSetContextCreate(CurrentMemoryContext, "spine rows", ALLOCSET_DEFAULT_SIZES);
	kept->secret = spine_key_secret();
	kept->missing = palloc0(sink->nwords * sizeof(Datum));
	kept->can_be_missing = palloc0(sink->nwords * sizeof(Datum));
	for (int c = 0; c < sink->ncolumns; c++)
	{
		if (sink->columns[c].can_be_left_out)
			spine_rows_set_missing(kept->can_be_missing, c);
	}
	initStringInfo(&kept->keys);
	kept->lacking = palloc(sink->ncolumns * sizeof(bool));
	for (int i = 0; i < BLOCK_ROWS; i++)
	{
		kept->candidates[i].values = palloc(natts * sizeof(Datum));
		kept->candidates[i].nulls = palloc0(natts * sizeof(bool));

		/* each value is of the row's own event */
		if (sink->version >= 0)
			kept->candidates[i].nulls[natts - 1] = true;
	}
	return kept;
}

size_t
spine_kept_rows_size(const SpineKeptRows *kept)
{
	return MemoryContextMemAllocated(kept->context, true);
}

/* --------------------------------------------------------------------------
 * The table
 * -------------------------------------------------------------------------- */

static inline const char *
key_of(const SpineKeptRows *kept, const Candidate *candidate)
{
	return kept->keys.data + candidate->key_start;
}

static inline MinimalTuple
tuple_of(KeptRow *row)
{
	return (MinimalTuple) ((char *) row + MAXALIGN(offsetof(KeptRow, key) + row->key_len));
}

/* The slot of this key, or the empty slot where the key belongs. */
static Slot *
find_slot(const SpineKeptRows *kept, const Candidate *candidate)
{
	size_t		mask = kept->nslots - 1;
	size_t		i = candidate->hash & mask;

	for (;; i = (i + 1) & mask)
	{
		Slot	   *slot = &kept->slots[i];

		if (slot->row == NULL)
			return slot;
		if (slot->hash == candidate->hash && slot->row->key_len == (uint32) candidate->key_len &&
			memcmp(slot->row->key, key_of(kept, candidate), candidate->key_len) == 0)
			return slot;
	}
}

/* Makes room for as many rows as a block may add. */
static void
enlarge_table(SpineKeptRows *kept)
{
	Slot	   *old = kept->slots;
	size_t		nold = kept->nslots;
	size_t		mask;

	if ((kept->nrows + BLOCK_ROWS) * 2 <= nold)
		return;
	kept->nslots = nold ? nold * 2 : FIRST_SLOTS;
	kept->slots = MemoryContextAllocExtended(kept->context, kept->nslots * sizeof(Slot),
											 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	mask = kept->nslots - 1;
	for (size_t i = 0; i < nold; i++)
	{
		size_t		j = old[i].hash & mask;

		if (old[i].row == NULL)
			continue;
		while (kept->slots[j].row)
			j = (j + 1) & mask;
		kept->slots[j] = old[i];
	}
	if (old)
		pfree(old);
}

/* Room for a row, of a size that leaves none of its chunk unused. */
static KeptRow *
make_row(const SpineKeptRows *kept, const Candidate *candidate, Size tuple_len)
{
	Size		start = MAXALIGN(offsetof(KeptRow, key) + candidate->key_len);
	Size		size = start + tuple_len;
	KeptRow    *row;

	if (size < 8192)
		size = pg_nextpower2_32(size);
	row = MemoryContextAlloc(kept->context, size);
	row->key_len = candidate->key_len;
	row->room = size - start;
	memcpy(row->key, key_of(kept, candidate), candidate->key_len);
	return row;
}

/* Keeps the row, unless one that is newer is kept already. */
static void
place(SpineKeptRows *kept, const Candidate *candidate)
{
	const SpineSink *sink = kept->sink;
	int64		version = sink->version < 0 ? 0 :
		spine_version_integer(&sink->columns[sink->version], candidate->values[sink->version]);
	Slot	   *slot = find_slot(kept, candidate);
	KeptRow    *row = slot->row;
	MinimalTuple tuple;

	if (row && version < row->version)
		return;
	tuple = spine_form_minimal_tuple(sink->row_type, candidate->values, candidate->nulls);
	if (row == NULL || row->room < tuple->t_len)
	{
		slot->row = make_row(kept, candidate, tuple->t_len);
		if (row)
			pfree(row);
		else
			kept->nrows++;
		row = slot->row;
		slot->hash = candidate->hash;
	}
	row->version = version;
	memcpy(tuple_of(row), tuple, tuple->t_len);
}

/* --------------------------------------------------------------------------
 * Blocks of events
 * -------------------------------------------------------------------------- */

/* Do all events lack what the rows lack that are kept, if any are?  Sets what that is. */
static bool
are_uniform(SpineKeptRows *kept, const SpineRows *rows)
{
	const SpineSink *sink = kept->sink;
	Datum	   *words = palloc(sink->nwords * sizeof(Datum));

	for (size_t event = 0; event < rows->nevents; event++)
	{
		memset(words, 0, sink->nwords * sizeof(Datum));
		for (int c = 0; c < sink->ncolumns; c++)
		{
			if (sink->columns[c].source == SPINE_FROM_FIELD &&
				spine_bind_is_missing(&sink->columns[c], &rows->events[event]))
				spine_rows_set_missing(words, c);
		}
		if (event == 0 && kept->nrows == 0)
		{
			for (int i = 0; i < sink->nwords; i++)
			{
				if ((words[i] & ~kept->can_be_missing[i]) != 0)
					return false;
			}
			memcpy(kept->missing, words, sink->nwords * sizeof(Datum));
		}
		else if (memcmp(kept->missing, words, sink->nwords * sizeof(Datum)) != 0)
			return false;
	}
	return true;
}

static void
make_key(SpineKeptRows *kept, Candidate *candidate)
{
	const SpineSink *sink = kept->sink;

	candidate->key_start = kept->keys.len;
	for (int k = 0; k < sink->nkeys; k++)
		spine_key_append(&kept->keys, &sink->columns[sink->keys[k]], candidate->values[sink->keys[k]]);
	candidate->key_len = kept->keys.len - candidate->key_start;
	candidate->hash = spine_key_hash(&kept->secret, key_of(kept, candidate), candidate->key_len);
}

/* Makes the rows of a block. */
static void
make_block(SpineKeptRows *kept, SpineRows *rows, size_t first, size_t n)
{
	const SpineSink *sink = kept->sink;

	kept->ncandidates = 0;
	resetStringInfo(&kept->keys);
	for (size_t i = 0; i < n; i++)
	{
		Candidate  *candidate = &kept->candidates[kept->ncandidates++];

		spine_rows_make_row(sink, rows, first + i, candidate->values, candidate->nulls, kept->lacking);
		memcpy(candidate->values + sink->ncolumns, kept->missing, sink->nwords * sizeof(Datum));
		make_key(kept, candidate);
		__builtin_prefetch(&kept->slots[candidate->hash & (kept->nslots - 1)]);
	}
}

static void
place_block(SpineKeptRows *kept)
{
	for (int i = 0; i < kept->ncandidates; i++)
	{
		const Slot *slot = &kept->slots[kept->candidates[i].hash & (kept->nslots - 1)];

		if (slot->row)
		{
			__builtin_prefetch(slot->row, 1);
			__builtin_prefetch((char *) slot->row + 64, 1);
		}
	}
	for (int i = 0; i < kept->ncandidates; i++)
		place(kept, &kept->candidates[i]);
}

bool
spine_kept_rows_add(SpineKeptRows *kept, SpineRows *rows)
{
	MemoryContext old_context;

	Assert(IsTransactionState());
	if (!are_uniform(kept, rows))
		return false;
	old_context = MemoryContextSwitchTo(kept->block_context);
	for (size_t first = 0; first < rows->nevents; first += BLOCK_ROWS)
	{
		CHECK_FOR_INTERRUPTS();
		enlarge_table(kept);
		make_block(kept, rows, first, Min(rows->nevents - first, BLOCK_ROWS));
		place_block(kept);
		MemoryContextReset(kept->block_context);
	}
	MemoryContextSwitchTo(old_context);
	return true;
}

/* --------------------------------------------------------------------------
 * Writing
 * -------------------------------------------------------------------------- */

static int
compare_keys(const void *a, const void *b)
{
	const KeptRow *row_a = *(KeptRow *const *) a;
	const KeptRow *row_b = *(KeptRow *const *) b;
	int			order = memcmp(row_a->key, row_b->key, Min(row_a->key_len, row_b->key_len));

	return order ? order : (row_a->key_len > row_b->key_len) - (row_a->key_len < row_b->key_len);
}

static KeptRow **
sort_rows(const SpineKeptRows *kept)
{
	KeptRow   **rows = MemoryContextAllocHuge(CurrentMemoryContext, kept->nrows * sizeof(KeptRow *));
	size_t		n = 0;

	for (size_t i = 0; i < kept->nslots; i++)
	{
		if (kept->slots[i].row)
			rows[n++] = kept->slots[i].row;
	}
	Assert(n == kept->nrows);
	qsort(rows, n, sizeof(KeptRow *), compare_keys);
	return rows;
}

/* By column, or NULL. */
static bool *
find_left_out(const SpineKeptRows *kept)
{
	bool	   *left_out = NULL;

	for (int c = 0; c < kept->sink->ncolumns; c++)
	{
		if (!spine_rows_is_missing(kept->missing, c))
			continue;
		if (left_out == NULL)
			left_out = palloc0(kept->sink->ncolumns * sizeof(bool));
		left_out[c] = true;
	}
	return left_out;
}

/* In the order of their keys, the rows are scattered over the memory. */
static inline void
prefetch_row(const SpineKeptRows *kept, KeptRow **rows, size_t i)
{
	if (i + PREFETCH_ROWS < kept->nrows)
	{
		__builtin_prefetch(rows[i + PREFETCH_ROWS]);
		__builtin_prefetch((char *) rows[i + PREFETCH_ROWS] + 64);
	}
}

/* Writes rows[i..n-1], up to as many bytes as a statement may; returns the next i. */
static size_t
write_by_statement(const SpineKeptRows *kept, KeptRow **rows, size_t i, const bool *left_out,
				   SpineApplyCounts *counts)
{
	SpineStoredRows stored = {.left_out = left_out, .whole = spine_rows_begin_store()};
	TupleTableSlot *slot = MakeSingleTupleTableSlot(kept->sink->row_type, &TTSOpsMinimalTuple);
	size_t		nbytes = 0;

	for (; i < kept->nrows && nbytes < MAX_STATEMENT_BYTES; i++)
	{
		MinimalTuple tuple = tuple_of(rows[i]);

		prefetch_row(kept, rows, i);
		ExecStoreMinimalTuple(tuple, slot, false);
		tuplestore_puttupleslot(stored.whole, slot);
		nbytes += tuple->t_len;
	}
	ExecDropSingleTupleTableSlot(slot);
	spine_write_rows(kept->sink, SPINE_SINK_PLAIN, &stored, counts);
	tuplestore_end(stored.whole);
	return i;
}

/* The same, without the statement. */
static size_t
write_directly(const SpineKeptRows *kept, KeptRow **rows, size_t i, const bool *left_out,
			   SpineApplyCounts *counts)
{
	SpineTableUpsert *upsert = spine_table_upsert_begin(kept->sink->upsert_target, left_out);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(kept->sink->row_type, &TTSOpsMinimalTuple);
	size_t		first = i;
	size_t		nbytes = 0;
	uint64		nwritten;

	for (; i < kept->nrows && nbytes < MAX_STATEMENT_BYTES; i++)
	{
		MinimalTuple tuple = tuple_of(rows[i]);

		prefetch_row(kept, rows, i);
		ExecStoreMinimalTuple(tuple, slot, false);
		slot_getallattrs(slot);
		spine_table_upsert_add(upsert, slot->tts_values, slot->tts_isnull);
		nbytes += tuple->t_len;
	}
	ExecDropSingleTupleTableSlot(slot);
	nwritten = spine_table_upsert_end(upsert);
	counts->nupserts += nwritten;
	counts->nunchanged += i - first - nwritten;
	return i;
}

void
spine_kept_rows_write(SpineKeptRows *kept, bool directly, SpineApplyCounts *counts)
{
	KeptRow   **rows;
	bool	   *left_out;
	size_t		i = 0;

	Assert(IsTransactionState());
	if (kept->nrows == 0)
		return;
	rows = sort_rows(kept);
	left_out = find_left_out(kept);
	while (i < kept->nrows)
		i = directly ? write_directly(kept, rows, i, left_out, counts) :
			write_by_statement(kept, rows, i, left_out, counts);
	pfree(rows);
	MemoryContextReset(kept->context);
	kept->slots = NULL;
	kept->nrows = kept->nslots = 0;
}

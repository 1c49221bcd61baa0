/*
 * positions.c
 *		Reads, locks, checks and moves the rows of spine_offsets.
 *
 * The row lock is the fence between two workers that both believe a partition is theirs
 * (spine.workers was changed, a crashed worker's transaction is still going away).  The
 * second worker waits, then sees that the position has moved, and drops its batch.
 *
 * While somebody holds an old snapshot, no version of a row can be removed, and a search
 * for the row by its key walks through all versions: after an hour with a hundred batches
 * a second, 360,000.  So the worker remembers where it has put the newest version of each
 * row, and finds the row there.  It looks for a row by its key only when the row is
 * elsewhere: it was changed by hand, the table was rewritten, or the transaction was
 * rolled back.
 */
#include "process/positions.h"

#include "apply/statement.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define NARGS	9

/* The statements that every batch runs. */
static SpineStatement lock_statement;
static SpineStatement lock_by_key_statement;
static SpineStatement move_statement;

/* By partition: where the newest version of its row is, as far as known. */
static ItemPointerData *places;
static int	nplaces;

static void
remember_place(int32 partition, ItemPointer place)
{
	if (partition >= nplaces)
	{
		int			n = Max(partition + 1, 2 * nplaces);

		places = places ? repalloc_huge(places, n * sizeof(ItemPointerData)) :
			MemoryContextAllocHuge(TopMemoryContext, n * sizeof(ItemPointerData));
		for (int i = nplaces; i < n; i++)
			ItemPointerSetInvalid(&places[i]);
		nplaces = n;
	}
	places[partition] = *place;
}

static bool
has_place(int32 partition)
{
	return partition < nplaces && ItemPointerIsValid(&places[partition]);
}

/*
 * Runs a statement with $1 pipeline, $2 topic, $3 cluster; of the moves $4 partition,
 * $5 from, $6 to, $7 mark_offset, $8 mark_crc; and $9 the places of their rows, as far as
 * they are known.  kept: NULL for a statement that runs now and then.
 */
static void
run(SpineStatement *kept, const char *query, const SpineLog *log,
	const SpineMove *moves, int n, int expected)
{
	Oid			types[NARGS] = {NAMEOID, TEXTOID, TEXTOID, INT4ARRAYOID,
	INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIDARRAYOID};
	Datum		args[NARGS];
	Datum	   *values[5];
	Datum	   *known = palloc(Max(n, 1) * sizeof(Datum));
	int			nknown = 0;
	int			result;

	for (int i = 0; i < (int) lengthof(values); i++)
		values[i] = palloc(Max(n, 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		values[0][i] = Int32GetDatum(moves[i].partition);
		values[1][i] = Int64GetDatum(moves[i].from);
		values[2][i] = Int64GetDatum(moves[i].to);
		values[3][i] = Int64GetDatum(moves[i].mark_offset);
		values[4][i] = Int64GetDatum(moves[i].mark_crc);
		if (has_place(moves[i].partition))
			known[nknown++] = PointerGetDatum(&places[moves[i].partition]);
	}

	args[0] = NameGetDatum(&log->pipeline);
	args[1] = CStringGetTextDatum(log->topic);
	args[2] = CStringGetTextDatum(log->cluster_id);
	args[3] = PointerGetDatum(construct_array(values[0], n, INT4OID, 4, true, TYPALIGN_INT));
	for (int i = 1; i < (int) lengthof(values); i++)
		args[3 + i] = PointerGetDatum(construct_array(values[i], n, INT8OID, 8,
													  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[8] = PointerGetDatum(construct_array(known, nknown, TIDOID, sizeof(ItemPointerData),
											  false, TYPALIGN_SHORT));

	if (kept)
	{
		/*
		 * The table is small when the plan is made, and it is kept when the table
		 * is full of old versions.
		 */
		int			nest_level = NewGUCNestLevel();

		(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		result = SPI_execute_plan(spine_statement_prepare(kept, query, NARGS, types),
								  args, NULL, false, 0);
		AtEOXact_GUC(true, nest_level);
	}
	else
		result = SPI_execute_with_args(query, NARGS, types, args, NULL, false, 0);
	if (result != expected)
		elog(ERROR, "could not access spine_offsets: %s", SPI_result_code_string(result));
}

static int64
int64_value(uint64 row, int column, int64 if_null)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									  column, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

static int32
int32_value(uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									   column, &isnull));
}

void
spine_positions_load(const SpineLog *log, SpinePosition *positions, int n, bool *known_topic,
					 bool *lost_log)
{
	run(NULL,
		psprintf("DELETE FROM %s.spine_offsets WHERE pipeline = $1 AND topic = $2"
				 " AND cluster_id <> $3 AND cluster_id LIKE '" SPINE_EMBEDDED_PREFIX "%%'", log->schema),
		log, NULL, 0, SPI_OK_DELETE);
	if (SPI_processed > 0)
		*lost_log = true;

	run(NULL,
		psprintf("SELECT cluster_id FROM %s.spine_offsets WHERE pipeline = $1 AND topic = $2"
				 " AND cluster_id <> $3 LIMIT 1", log->schema),
		log, NULL, 0, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the broker's cluster is \"%s\", but the position in topic \"%s\" belongs to cluster \"%s\"",
						log->cluster_id, log->topic,
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errhint("Point \"spine.brokers\", or the pipeline's server, at the right cluster; or, to read this one from its start: SELECT spine_seek(%s, NULL, 'earliest')",
						 quote_literal_cstr(NameStr(log->pipeline)))));

	run(NULL,
		psprintf("SELECT partition, next_offset,"
				 " CASE WHEN worker_next_offset = next_offset THEN mark_offset END, mark_crc"
				 " FROM %s.spine_offsets"
				 " WHERE pipeline = $1 AND topic = $2 AND cluster_id = $3", log->schema),
		log, NULL, 0, SPI_OK_SELECT);
	*known_topic = SPI_processed > 0;

	for (int i = 0; i < n; i++)
	{
		positions[i].next_offset = -1;
		positions[i].mark_offset = -1;
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			if (int32_value(row, 1) != positions[i].partition)
				continue;
			positions[i].next_offset = int64_value(row, 2, -1);
			positions[i].mark_offset = int64_value(row, 3, -1);
			positions[i].mark_crc = int64_value(row, 4, 0);

			/* the library would take it for "the end", "where the group stands", ... */
			if (positions[i].next_offset < 0)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("the position of partition %d of topic \"%s\" is negative: " INT64_FORMAT,
								positions[i].partition, log->topic, positions[i].next_offset),
						 errhint("Set a position that exists: SELECT spine_seek(%s, %d, 'earliest')",
								 quote_literal_cstr(NameStr(log->pipeline)), positions[i].partition)));
		}
	}
}

void
spine_positions_insert(const SpineLog *log, const SpinePosition *positions, int n)
{
	SpineMove  *moves = palloc0(Max(n, 1) * sizeof(SpineMove));

	for (int i = 0; i < n; i++)
	{
		moves[i].partition = positions[i].partition;
		moves[i].from = positions[i].next_offset;
	}
	run(NULL,
		psprintf("INSERT INTO %s.spine_offsets (pipeline, topic, cluster_id, partition, next_offset)"
				 " SELECT $1, $2, $3, u.partition, u.next_offset"
				 " FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5)) AS u(partition, next_offset)"
				 " WHERE u.next_offset >= 0"
				 " ON CONFLICT (pipeline, topic, partition) DO NOTHING", log->schema),
		log, moves, n, SPI_OK_INSERT);
}

/* Do the rows that were read say what the worker believes?  Remembers where they are. */
static bool
check_and_remember(const SpineMove *moves, int n)
{
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		isnull;

		remember_place(int32_value(row, 1),
					   (ItemPointer) DatumGetPointer(SPI_getbinval(SPI_tuptable->vals[row],
																   SPI_tuptable->tupdesc, 3, &isnull)));
	}
	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		for (uint64 row = 0; row < SPI_processed && !found; row++)
			found = int32_value(row, 1) == moves[i].partition &&
				int64_value(row, 2, -1) == moves[i].from;
		if (!found)
			return false;
	}
	return true;
}

/*
 * The rows at their places, if all are there.  The conditions are on expressions that no
 * index has (a name as a text, a sum), so the rows are found by their places.
 */
#define AT_PLACES(alias) \
	alias ".ctid = ANY ($9) AND " alias ".pipeline::text = $1::text" \
	" AND " alias ".topic || '' = $2 AND " alias ".cluster_id = $3"

bool
spine_positions_lock(const SpineLog *log, const SpineMove *moves, int n)
{
	/* in one order, so that two workers cannot deadlock; none, or all */
	run(&lock_statement,
		psprintf("SELECT o.partition, o.next_offset, o.ctid FROM %s.spine_offsets o"
				 " WHERE " AT_PLACES("o") " AND o.partition + 0 = ANY ($4)"
				 " AND (SELECT pg_catalog.count(*) FROM %s.spine_offsets a"
				 " WHERE " AT_PLACES("a") " AND a.partition + 0 = ANY ($4))"
				 " = pg_catalog.cardinality($4)"
				 " ORDER BY o.partition FOR UPDATE OF o", log->schema, log->schema),
		log, moves, n, SPI_OK_SELECT);
	if (SPI_processed == (uint64) n)
		return check_and_remember(moves, n);

	run(&lock_by_key_statement,
		psprintf("SELECT o.partition, o.next_offset, o.ctid FROM %s.spine_offsets o"
				 " WHERE o.pipeline = $1 AND o.topic = $2 AND o.cluster_id = $3"
				 " AND o.partition = ANY ($4)"
				 " ORDER BY o.partition FOR UPDATE", log->schema),
		log, moves, n, SPI_OK_SELECT);
	return check_and_remember(moves, n);
}

void
spine_positions_move(const SpineLog *log, const SpineMove *moves, int n)
{
	run(&move_statement,
		psprintf("UPDATE %s.spine_offsets o SET next_offset = u.read_to, worker_next_offset = u.read_to,"
				 " mark_offset = nullif(u.mark_offset, -1), mark_crc = u.mark_crc,"
				 " updated_at = pg_catalog.now()"
				 " FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($6),"
				 " pg_catalog.unnest($7), pg_catalog.unnest($8))"
				 " AS u(partition, read_to, mark_offset, mark_crc)"
				 " WHERE " AT_PLACES("o") " AND o.partition + 0 = u.partition"
				 " RETURNING o.partition, o.next_offset, o.ctid", log->schema),
		log, moves, n, SPI_OK_UPDATE_RETURNING);
	if (SPI_processed != (uint64) n)
		elog(ERROR, "moved %llu of %d positions", (unsigned long long) SPI_processed, n);
	(void) check_and_remember(moves, 0);
}

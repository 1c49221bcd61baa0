/*
 * positions.c
 *		Reads and moves the rows of spine_offsets.
 *
 * A move is the fence between two workers that both believe a partition is theirs
 * (spine.workers was changed, a crashed worker's transaction is still going away): it
 * moves only a row that stands where the worker believes.  The second worker waits for
 * the first one's transaction, then sees that the position has moved, and drops its batch.
 * Several rows are locked in one order first, so that two such workers do not deadlock.
 *
 * While somebody holds an old snapshot, no version of a row can be removed, and a search
 * for the row by its key walks through all versions: after an hour with a hundred batches
 * a second, 360,000.  So the worker remembers where it has put the newest version of each
 * row, and moves the row there, without a statement.  It looks for a row by its key only when
 * the row is elsewhere: it was changed by hand, or the table was rewritten.
 */
#include "process/positions.h"

#include "access/xact.h"
#include "apply/lookup.h"
#include "apply/statement.h"
#include "catalog/pg_type.h"
#include "catalog/topics.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "process/position_row.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define NARGS	8

static SpineStatement move_statements[2];	/* of one row, and of several */

/*
 * Where the newest version of a row is, as far as known.  Found by a hash of its topic and
 * partition: if two rows ever share one, each is looked for by its key again.
 */
typedef struct Place
{
	uint64		hash;
	ItemPointerData place;
	ItemPointerData before;		/* where it is if the transaction that moved it is rolled
								 * back; invalid: not known */
	uint64		moved_in;		/* that transaction, as `transaction` counts */
} Place;

static HTAB *places = NULL;
static uint64 transaction = 0;

static uint64
hash_of(const SpineMove *move)
{
	return DatumGetUInt64(hash_any_extended((const unsigned char *) move->topic, strlen(move->topic),
											move->partition));
}

/* The rows that a transaction has moved are where they were, if it was rolled back. */
static void
end_transaction(XactEvent event, void *arg)
{
	HASH_SEQ_STATUS scan;
	Place	   *place;

	if (event == XACT_EVENT_ABORT)
	{
		hash_seq_init(&scan, places);
		while ((place = hash_seq_search(&scan)) != NULL)
			if (place->moved_in == transaction)
				place->place = place->before;
	}
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT)
		transaction++;
}

static void
remember_place(const SpineMove *move, ItemPointer at)
{
	uint64		hash = hash_of(move);
	HASHCTL		info = {.keysize = sizeof(uint64), .entrysize = sizeof(Place)};
	Place	   *place;
	bool		found;

	if (places == NULL)
	{
		places = hash_create("spine places", 64, &info, HASH_ELEM | HASH_BLOBS);
		RegisterXactCallback(end_transaction, NULL);
	}
	place = hash_search(places, &hash, HASH_ENTER, &found);
	if (!found)
		ItemPointerSetInvalid(&place->place);
	if (!found || place->moved_in != transaction)
		place->before = place->place;
	place->moved_in = transaction;
	place->place = *at;
}

/* NULL: it is not known. */
static ItemPointer
known_place(const SpineMove *move)
{
	uint64		hash = hash_of(move);
	Place	   *found = places ? hash_search(places, &hash, HASH_FIND, NULL) : NULL;

	return found && ItemPointerIsValid(&found->place) ? &found->place : NULL;
}

/* The arguments: see run. */
static void
make_arguments(const SpineLog *log, const SpineMove *moves, int n, Datum *args)
{
	Datum	   *topics = palloc_extended(Max(n, 1) * sizeof(Datum), MCXT_ALLOC_HUGE);
	Datum	   *values[5];

	for (int i = 0; i < (int) lengthof(values); i++)
		values[i] = palloc_extended(Max(n, 1) * sizeof(Datum), MCXT_ALLOC_HUGE);
	for (int i = 0; i < n; i++)
	{
		/* moves of one topic follow each other, and share its name */
		topics[i] = i > 0 && moves[i].topic == moves[i - 1].topic ? topics[i - 1] :
			CStringGetTextDatum(moves[i].topic);
		values[0][i] = Int32GetDatum(moves[i].partition);
		values[1][i] = Int64GetDatum(moves[i].from);
		values[2][i] = Int64GetDatum(moves[i].to);
		values[3][i] = Int64GetDatum(moves[i].mark_offset);
		values[4][i] = Int64GetDatum(moves[i].mark_crc);
	}

	args[0] = NameGetDatum(&log->pipeline);
	args[1] = PointerGetDatum(construct_array(topics, n, TEXTOID, -1, false, TYPALIGN_INT));
	args[2] = CStringGetTextDatum(log->cluster_id);
	args[3] = PointerGetDatum(construct_array(values[0], n, INT4OID, 4, true, TYPALIGN_INT));
	for (int i = 1; i < (int) lengthof(values); i++)
		args[3 + i] = PointerGetDatum(construct_array(values[i], n, INT8OID, 8,
													  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * Runs a statement with $1 pipeline, $3 cluster; and of the moves $2 topic, $4 partition,
 * $5 from, $6 to, $7 mark_offset, $8 mark_crc.  kept: NULL for a statement that runs now and
 * then.
 */
static void
run(SpineStatement *kept, const char *query, const SpineLog *log,
	const SpineMove *moves, int n, int expected)
{
	Oid			types[NARGS] = {NAMEOID, TEXTARRAYOID, TEXTOID, INT4ARRAYOID,
	INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum		args[NARGS];
	int			result;

	make_arguments(log, moves, n, args);
	if (kept)
	{
		SPIPlanPtr	plan = spine_statement_prepare(kept, query, NARGS, types);

		/* or a plan that was made for a few rows would read thousands of old versions */
		spine_lookup_plan(plan);
		result = SPI_execute_plan(plan, args, NULL, false, 0);
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

/*
 * Those of the pipeline's topics that have positions, as moves, of which there are *n.
 * Works with the SQL of earlier versions, too.
 */
static SpineMove *
find_known_topics(const SpineLog *log, int *n)
{
	SpineMove  *topics;

	run(NULL, psprintf("SELECT DISTINCT topic FROM %s.spine_offsets WHERE pipeline = $1", log->schema),
		log, NULL, 0, SPI_OK_SELECT);
	topics = palloc_extended(Max(SPI_processed, 1) * sizeof(SpineMove), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	*n = 0;
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		char	   *topic = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1);

		if (spine_topics_match(log->topics, topic))
			topics[(*n)++].topic = topic;
	}
	return topics;
}

/*
 * Deletes the positions that these topics have in the log of an earlier embedded broker.
 * Raises an error when they have positions in another cluster.
 */
static void
check_cluster(const SpineLog *log, const SpineMove *topics, int n, bool *lost_log)
{
	run(NULL,
		psprintf("DELETE FROM %s.spine_offsets WHERE pipeline = $1 AND topic = ANY ($2)"
				 " AND cluster_id <> $3 AND cluster_id LIKE '" SPINE_EMBEDDED_PREFIX "%%'", log->schema),
		log, topics, n, SPI_OK_DELETE);
	if (SPI_processed > 0)
		*lost_log = true;

	run(NULL,
		psprintf("SELECT cluster_id, topic FROM %s.spine_offsets WHERE pipeline = $1 AND topic = ANY ($2)"
				 " AND cluster_id <> $3 LIMIT 1", log->schema),
		log, topics, n, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the broker's cluster is \"%s\", but the position in topic \"%s\" belongs to cluster \"%s\"",
						log->cluster_id, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2),
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errhint("Point \"spine.brokers\", or the pipeline's server, at the right cluster; or, to read this one from its start: SELECT spine_seek(%s, NULL, 'earliest')",
						 quote_literal_cstr(NameStr(log->pipeline)))));
}

/* Fills positions from rows of (ordinal, next_offset, mark_offset, mark_crc). */
static void
fill_positions(const SpineLog *log, SpinePosition *positions)
{
	bool		is_one = spine_topics_is_one(log->topics);

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		SpinePosition *position = &positions[int64_value(row, 1, 0) - 1];

		position->next_offset = int64_value(row, 2, -1);
		position->mark_offset = int64_value(row, 3, -1);
		position->mark_crc = int64_value(row, 4, 0);

		/* the library would take it for "the end", "where the group stands", ... */
		if (position->next_offset < 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the position of partition %d of topic \"%s\" is negative: " INT64_FORMAT,
							position->partition, position->topic, position->next_offset),
					 errhint("Set a position that exists: SELECT spine_seek(%s, %d, 'earliest'%s%s)",
							 quote_literal_cstr(NameStr(log->pipeline)), position->partition,
							 is_one ? "" : ", ", is_one ? "" : quote_literal_cstr(position->topic))));
	}
}

void
spine_positions_load(const SpineLog *log, SpinePosition *positions, int n, bool *known_topics,
					 bool *lost_log)
{
	SpineMove  *wanted = palloc_extended(Max(n, 1) * sizeof(SpineMove), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	int			ntopics;
	SpineMove  *topics = find_known_topics(log, &ntopics);

	check_cluster(log, topics, ntopics, lost_log);
	run(NULL,
		psprintf("SELECT FROM %s.spine_offsets WHERE pipeline = $1 AND topic = ANY ($2) LIMIT 1", log->schema),
		log, topics, ntopics, SPI_OK_SELECT);
	*known_topics = SPI_processed > 0;

	for (int i = 0; i < n; i++)
	{
		positions[i].next_offset = positions[i].mark_offset = -1;
		wanted[i].topic = positions[i].topic;
		wanted[i].partition = positions[i].partition;
	}
	run(NULL,
		psprintf("SELECT m.ordinal, o.next_offset,"
				 " CASE WHEN o.worker_next_offset = o.next_offset THEN o.mark_offset END, o.mark_crc"
				 " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($4))"
				 " WITH ORDINALITY AS m(topic, partition, ordinal)"
				 " JOIN %s.spine_offsets o USING (topic, partition)"
				 " WHERE o.pipeline = $1 AND o.cluster_id = $3", log->schema),
		log, wanted, n, SPI_OK_SELECT);
	fill_positions(log, positions);
}

void
spine_positions_insert(const SpineLog *log, const SpinePosition *positions, int n)
{
	SpineMove  *moves = palloc_extended(Max(n, 1) * sizeof(SpineMove), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	for (int i = 0; i < n; i++)
	{
		moves[i].topic = positions[i].topic;
		moves[i].partition = positions[i].partition;
		moves[i].from = positions[i].next_offset;
	}
	run(NULL,
		psprintf("INSERT INTO %s.spine_offsets (pipeline, topic, cluster_id, partition, next_offset)"
				 " SELECT $1, u.topic, $3, u.partition, u.next_offset"
				 " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($4), pg_catalog.unnest($5))"
				 " AS u(topic, partition, next_offset)"
				 " WHERE u.next_offset >= 0"
				 " ON CONFLICT (pipeline, topic, partition) DO NOTHING", log->schema),
		log, moves, n, SPI_OK_INSERT);
}

/*
 * Finds the rows that stand at `from` by their keys, and moves them; returns how many.  A row
 * that somebody else is moving is waited for, and then looked at again.
 *
 * Several rows are locked first, in the order of the moves, which is that of spine_seek: an
 * UPDATE takes them in any order, and so the two would wait for each other.
 */
static int
move_by_key(const SpineLog *log, const SpineMove *moves, int n)
{
	const char *condition = "o.pipeline = $1 AND o.topic = m.topic AND o.partition = m.partition"
		" AND o.cluster_id = $3";
	const char *lock = n <= 1 ? "" :
		psprintf("WITH locked AS MATERIALIZED (SELECT FROM %s.spine_offsets o,"
				 " ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($4)) WITH ORDINALITY"
				 " AS m(topic, partition, ordinal) WHERE %s ORDER BY m.ordinal FOR UPDATE OF o) ",
											  log->schema, condition);

	run(&move_statements[n > 1],
		psprintf("%sUPDATE %s.spine_offsets o SET next_offset = m.read_to, worker_next_offset = m.read_to,"
				 " mark_offset = nullif(m.mark_offset, -1), mark_crc = m.mark_crc,"
				 " updated_at = pg_catalog.now()"
				 " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($4), pg_catalog.unnest($5),"
				 " pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8)) WITH ORDINALITY"
				 " AS m(topic, partition, read_from, read_to, mark_offset, mark_crc, ordinal)"
				 " WHERE %s AND o.next_offset = m.read_from%s"
				 " RETURNING m.ordinal, o.ctid", lock, log->schema, condition,
				 n <= 1 ? "" : " AND (SELECT pg_catalog.count(*) FROM locked) >= 0"),
		log, moves, n, SPI_OK_UPDATE_RETURNING);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		isnull;
		Datum		place = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 2, &isnull);

		remember_place(&moves[int64_value(row, 1, 0) - 1], (ItemPointer) DatumGetPointer(place));
	}
	return (int) SPI_processed;
}

/* Moves rows where they are known to be, in the order of the moves; returns how many. */
static int
move_in_place(const SpineLog *log, const SpineMove *moves, int n)
{
	SpinePositionTable *table = spine_position_table_open(log);
	int			nmoved = 0;

	if (table == NULL)
		return 0;
	for (; nmoved < n; nmoved++)
	{
		ItemPointer known = known_place(&moves[nmoved]);
		ItemPointerData place;

		if (known == NULL)
			break;
		place = *known;
		if (!spine_position_row_move(table, log, &moves[nmoved], &place))
			break;
		remember_place(&moves[nmoved], &place);
	}
	spine_position_table_close(table);
	return nmoved;
}

bool
spine_positions_move(const SpineLog *log, const SpineMove *moves, int n)
{
	int			nmoved = move_in_place(log, moves, n);

	if (nmoved < n)
		nmoved += move_by_key(log, moves + nmoved, n - nmoved);
	return nmoved == n;
}

/*
 * offsets.c
 *		Reads, locks, checks and moves the rows of spine_offsets.
 *
 * The row lock is the fence between two workers that both believe a partition
 * is theirs (spine.workers was changed, a crashed worker's transaction is
 * still going away): the second waits, then sees that the offset has moved,
 * and drops its batch.
 */
#include "offsets.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define NARGS	8

/* One that every batch runs: its plan is kept. */
typedef struct KeptStatement
{
	char	   *query;			/* NULL: not prepared yet */
	SPIPlanPtr	plan;
} KeptStatement;

static KeptStatement lock_statement;
static KeptStatement move_statement;

/* Prepares it anew when its text is another: the extension's schema was changed. */
static SPIPlanPtr
get_plan(KeptStatement *kept, const char *query, Oid *types)
{
	SPIPlanPtr	plan;
	char	   *text;

	if (kept->query && strcmp(kept->query, query) == 0)
		return kept->plan;

	plan = SPI_prepare(query, NARGS, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	text = MemoryContextStrdup(TopMemoryContext, query);
	SPI_keepplan(plan);
	if (kept->query)
	{
		SPI_freeplan(kept->plan);
		pfree(kept->query);
	}
	kept->query = text;
	kept->plan = plan;
	return plan;
}

/*
 * $1 pipeline, $2 topic, $3 cluster; and of the positions: $4 partition,
 * $5 next_offset, $6 read_to, $7 mark_offset, $8 mark_crc.  kept: NULL for a
 * statement that runs now and then.
 */
static void
run(KeptStatement *kept, const char *query, const SpineLog *log,
	const SpinePosition *positions, int n, int expected)
{
	Oid			types[NARGS] = {NAMEOID, TEXTOID, TEXTOID, INT4ARRAYOID,
	INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum		args[NARGS];
	Datum	   *values[5];
	int			result;

	for (int i = 0; i < (int) lengthof(values); i++)
		values[i] = palloc(Max(n, 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		values[0][i] = Int32GetDatum(positions[i].partition);
		values[1][i] = Int64GetDatum(positions[i].next_offset);
		values[2][i] = Int64GetDatum(positions[i].read_to);
		values[3][i] = Int64GetDatum(positions[i].mark_offset);
		values[4][i] = Int64GetDatum(positions[i].mark_crc);
	}

	args[0] = NameGetDatum(&log->pipeline);
	args[1] = CStringGetTextDatum(log->topic);
	args[2] = CStringGetTextDatum(log->cluster_id);
	args[3] = PointerGetDatum(construct_array(values[0], n, INT4OID, 4, true, TYPALIGN_INT));
	for (int i = 1; i < (int) lengthof(values); i++)
		args[3 + i] = PointerGetDatum(construct_array(values[i], n, INT8OID, 8,
													  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));

	if (kept)
		result = SPI_execute_plan(get_plan(kept, query, types), args, NULL, false, 0);
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
spine_offsets_load(const SpineLog *log, SpinePosition *positions, int n, bool *known_topic,
				   bool *lost_log)
{
	run(NULL,
		psprintf("DELETE FROM %s.spine_offsets WHERE pipeline = $1 AND topic = $2"
				 " AND cluster_id <> $3 AND cluster_id LIKE '" SPINE_EMBEDDED_PREFIX "%%'", log->schema),
		log, positions, 0, SPI_OK_DELETE);
	if (SPI_processed > 0)
		*lost_log = true;

	run(NULL,
		psprintf("SELECT cluster_id FROM %s.spine_offsets WHERE pipeline = $1 AND topic = $2"
				 " AND cluster_id <> $3 LIMIT 1", log->schema),
		log, positions, 0, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the broker's cluster is \"%s\", but the position in topic \"%s\" belongs to cluster \"%s\"",
						log->cluster_id, log->topic,
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errhint("Point \"spine.brokers\" at the right cluster; or, to read this one from its start: SELECT spine_seek(%s, NULL, 'earliest')",
						 quote_literal_cstr(NameStr(log->pipeline)))));

	run(NULL,
		psprintf("SELECT partition, next_offset,"
				 " CASE WHEN worker_next_offset = next_offset THEN mark_offset END, mark_crc"
				 " FROM %s.spine_offsets"
				 " WHERE pipeline = $1 AND topic = $2 AND cluster_id = $3", log->schema),
		log, positions, 0, SPI_OK_SELECT);
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
		}
		positions[i].read_to = positions[i].next_offset;
	}
}

void
spine_offsets_insert(const SpineLog *log, const SpinePosition *positions, int n)
{
	run(NULL,
		psprintf("INSERT INTO %s.spine_offsets (pipeline, topic, cluster_id, partition, next_offset)"
				 " SELECT $1, $2, $3, u.partition, u.next_offset"
				 " FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5)) AS u(partition, next_offset)"
				 " WHERE u.next_offset >= 0"
				 " ON CONFLICT (pipeline, topic, partition) DO NOTHING", log->schema),
		log, positions, n, SPI_OK_INSERT);
}

bool
spine_offsets_lock(const SpineLog *log, const SpinePosition *positions, int n)
{
	/* in one order, so that two workers cannot lock each other out */
	run(&lock_statement,
		psprintf("SELECT o.partition, o.next_offset FROM %s.spine_offsets o"
				 " WHERE o.pipeline = $1 AND o.topic = $2 AND o.cluster_id = $3"
				 " AND o.partition = ANY ($4)"
				 " ORDER BY o.partition FOR UPDATE", log->schema),
		log, positions, n, SPI_OK_SELECT);

	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		for (uint64 row = 0; row < SPI_processed && !found; row++)
			found = int32_value(row, 1) == positions[i].partition &&
				int64_value(row, 2, -1) == positions[i].next_offset;
		if (!found)
			return false;
	}
	return true;
}

void
spine_offsets_move(const SpineLog *log, const SpinePosition *positions, int n)
{
	run(&move_statement,
		psprintf("UPDATE %s.spine_offsets o SET next_offset = u.read_to, worker_next_offset = u.read_to,"
				 " mark_offset = nullif(u.mark_offset, -1), mark_crc = u.mark_crc,"
				 " updated_at = pg_catalog.now()"
				 " FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($6),"
				 " pg_catalog.unnest($7), pg_catalog.unnest($8))"
				 " AS u(partition, read_to, mark_offset, mark_crc)"
				 " WHERE o.pipeline = $1 AND o.topic = $2 AND o.cluster_id = $3"
				 " AND o.partition = u.partition", log->schema),
		log, positions, n, SPI_OK_UPDATE);
	if (SPI_processed != (uint64) n)
		elog(ERROR, "moved %llu of %d offsets", (unsigned long long) SPI_processed, n);
}

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

static Datum
int4_array(const SpinePosition *positions, int n)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		values[i] = Int32GetDatum(positions[i].partition);
	return PointerGetDatum(construct_array(values, n, INT4OID, 4, true, TYPALIGN_INT));
}

static Datum
int8_array(const SpinePosition *positions, int n, bool read_to)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(read_to ? positions[i].read_to : positions[i].next_offset);
	return PointerGetDatum(construct_array(values, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* $1 pipeline, $2 topic, $3 cluster, $4 partitions, $5 offsets */
static void
run(const char *query, const SpineLog *log, const SpinePosition *positions, int n,
	bool read_to, int expected)
{
	Oid			types[5] = {NAMEOID, TEXTOID, TEXTOID, INT4ARRAYOID, INT8ARRAYOID};
	Datum		args[5] = {
		NameGetDatum(&log->pipeline),
		CStringGetTextDatum(log->topic),
		CStringGetTextDatum(log->cluster_id),
		int4_array(positions, n),
		int8_array(positions, n, read_to)
	};
	int			result = SPI_execute_with_args(query, 5, types, args, NULL, false, 0);

	if (result != expected)
		elog(ERROR, "could not access spine_offsets: %s", SPI_result_code_string(result));
}

static int64
int64_value(uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									   column, &isnull));
}

static int32
int32_value(uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									   column, &isnull));
}

void
spine_offsets_load(const SpineLog *log, SpinePosition *positions, int n, bool *known_topic)
{
	run(psprintf("DELETE FROM %s.spine_offsets WHERE pipeline = $1 AND topic = $2"
				 " AND cluster_id <> $3 AND cluster_id LIKE '" SPINE_EMBEDDED_PREFIX "%%'"
				 " AND $4 IS NOT NULL AND $5 IS NOT NULL", log->schema),
		log, positions, 0, false, SPI_OK_DELETE);

	run(psprintf("SELECT cluster_id FROM %s.spine_offsets WHERE pipeline = $1 AND topic = $2"
				 " AND cluster_id <> $3 AND $4 IS NOT NULL AND $5 IS NOT NULL LIMIT 1", log->schema),
		log, positions, 0, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the broker's cluster is \"%s\", but the position in topic \"%s\" belongs to cluster \"%s\"",
						log->cluster_id, log->topic,
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errhint("Point \"spine.brokers\" at the right cluster, or delete the pipeline's rows of spine_offsets to read the new one from its start.")));

	run(psprintf("SELECT partition, next_offset FROM %s.spine_offsets"
				 " WHERE pipeline = $1 AND topic = $2 AND cluster_id = $3"
				 " AND $4 IS NOT NULL AND $5 IS NOT NULL", log->schema),
		log, positions, 0, false, SPI_OK_SELECT);
	*known_topic = SPI_processed > 0;

	for (int i = 0; i < n; i++)
	{
		positions[i].next_offset = -1;
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			if (int32_value(row, 1) == positions[i].partition)
				positions[i].next_offset = int64_value(row, 2);
		}
		positions[i].read_to = positions[i].next_offset;
	}
}

void
spine_offsets_insert(const SpineLog *log, const SpinePosition *positions, int n)
{
	run(psprintf("INSERT INTO %s.spine_offsets (pipeline, topic, cluster_id, partition, next_offset)"
				 " SELECT $1, $2, $3, u.partition, u.next_offset"
				 " FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5)) AS u(partition, next_offset)"
				 " WHERE u.next_offset >= 0"
				 " ON CONFLICT (pipeline, topic, partition) DO NOTHING", log->schema),
		log, positions, n, false, SPI_OK_INSERT);
}

bool
spine_offsets_lock(const SpineLog *log, const SpinePosition *positions, int n)
{
	/* in one order, so that two workers cannot lock each other out */
	run(psprintf("SELECT o.partition, o.next_offset FROM %s.spine_offsets o"
				 " WHERE o.pipeline = $1 AND o.topic = $2 AND o.cluster_id = $3"
				 " AND o.partition = ANY ($4) AND $5 IS NOT NULL"
				 " ORDER BY o.partition FOR UPDATE", log->schema),
		log, positions, n, false, SPI_OK_SELECT);

	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		for (uint64 row = 0; row < SPI_processed && !found; row++)
			found = int32_value(row, 1) == positions[i].partition &&
				int64_value(row, 2) == positions[i].next_offset;
		if (!found)
			return false;
	}
	return true;
}

void
spine_offsets_move(const SpineLog *log, const SpinePosition *positions, int n)
{
	run(psprintf("UPDATE %s.spine_offsets o SET next_offset = u.next_offset, updated_at = pg_catalog.now()"
				 " FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5)) AS u(partition, next_offset)"
				 " WHERE o.pipeline = $1 AND o.topic = $2 AND o.cluster_id = $3"
				 " AND o.partition = u.partition", log->schema),
		log, positions, n, true, SPI_OK_UPDATE);
	if (SPI_processed != (uint64) n)
		elog(ERROR, "moved %llu of %d offsets", (unsigned long long) SPI_processed, n);
}

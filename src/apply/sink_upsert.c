/*
 * sink_upsert.c
 *		Sinks of mode "upsert": one row per key, of the newest version.
 *
 * The events of a batch are reduced to the newest per key first.  Then the statement
 * updates a row unless the row is newer.  Keys and versions of types whose equality is
 * not that of their bytes are reduced by the statement instead.
 */
#include "apply/sink.h"

#include "apply/rows.h"
#include "catalog/pg_type.h"
#include "event/reduce.h"
#include "utils/builtins.h"

/* What the version comparison of a batch needs. */
typedef struct VersionValues
{
	Oid			type;
	const Datum *values;
} VersionValues;

static bool
is_key(const SpineSink *sink, int column)
{
	for (int i = 0; i < sink->nkeys; i++)
	{
		if (sink->keys[i] == column)
			return true;
	}
	return false;
}

/* Versions that is_newer compares. */
static bool
is_comparable_version(Oid type)
{
	return type == INT8OID || type == INT4OID || type == TIMESTAMPTZOID;
}

static void
describe(SpineSink *sink, const SpineSinkDefinition *definition)
{
	SpineColumn *version;

	sink->version = spine_sink_find_column(sink, definition->version);
	version = &sink->columns[sink->version];
	if (is_key(sink, sink->version))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("version column \"%s\" of table %s is part of the key",
						version->name, sink->table_name),
				 errhint("Change \"key\" or \"version\" in spine_sinks.")));

	version->needed_as = "version";
	sink->reduce_in_sql = !is_comparable_version(version->base_type);
	for (int i = 0; i < sink->nkeys; i++)
	{
		SpineColumn *key = &sink->columns[sink->keys[i]];

		key->needed_as = "key";
		if (!key->equal_if_same_bytes)
			sink->reduce_in_sql = true;
	}
}

static void
write_statement(StringInfo sql, const SpineSink *sink, SpineSinkStatement which)
{
	const char *version = quote_identifier(sink->columns[sink->version].name);
	const char *separator = "";

	spine_sink_append_insert(sql, sink);
	appendStringInfoString(sql, " ON CONFLICT (");
	spine_sink_append_keys(sql, sink);
	appendStringInfoString(sql, ") DO UPDATE SET ");
	for (int i = 0; i < sink->ncolumns; i++)
	{
		const char *name = quote_identifier(sink->columns[i].name);

		if (is_key(sink, i) || sink->columns[i].is_identity)
			continue;
		appendStringInfo(sql, "%s%s = EXCLUDED.%s", separator, name, name);
		separator = ", ";
	}

	/* an equal version comes from later in the log, and wins */
	appendStringInfo(sql, " WHERE t.%s IS NULL OR EXCLUDED.%s >= t.%s",
					 version, version, version);
}

static bool
is_newer(size_t candidate, size_t incumbent, void *arg)
{
	const VersionValues *version = arg;
	Datum		a = version->values[candidate];
	Datum		b = version->values[incumbent];

	if (version->type == INT4OID)
		return DatumGetInt32(a) >= DatumGetInt32(b);
	return DatumGetInt64(a) >= DatumGetInt64(b);
}

/* Appends the bytes of a key's value, so that no two keys share theirs. */
static void
append_key_bytes(StringInfo buf, const SpineColumn *column, Datum value)
{
	if (column->len > 0 && column->byval)
		appendBinaryStringInfo(buf, (char *) &value, sizeof(Datum));
	else if (column->len > 0)
		appendBinaryStringInfo(buf, DatumGetPointer(value), column->len);
	else
	{
		const struct varlena *text = (const struct varlena *) DatumGetPointer(value);
		uint32		len = VARSIZE_ANY_EXHDR(text);

		appendBinaryStringInfo(buf, (char *) &len, sizeof(len));
		appendBinaryStringInfo(buf, VARDATA_ANY(text), len);
	}
}

/* The keys of all events as bytes. */
static SpineReduceKey *
make_keys(const SpineSink *sink, const SpineRows *rows)
{
	size_t		n = rows->nevents;
	SpineReduceKey *keys = palloc(n * sizeof(SpineReduceKey));
	size_t	   *starts = palloc((n + 1) * sizeof(size_t));
	StringInfoData bytes;

	initStringInfo(&bytes);
	for (size_t i = 0; i < n; i++)
	{
		starts[i] = bytes.len;
		for (int k = 0; k < sink->nkeys; k++)
		{
			int			column = sink->keys[k];

			append_key_bytes(&bytes, &sink->columns[column], rows->bound[column][i]);
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

/* Sorts events by the bytes of their keys. */
static int
compare_keys(const void *a, const void *b, void *arg)
{
	const SpineReduceKey *key_a = (const SpineReduceKey *) arg + *(const uint32 *) a;
	const SpineReduceKey *key_b = (const SpineReduceKey *) arg + *(const uint32 *) b;
	int			order = memcmp(key_a->key, key_b->key, Min(key_a->len, key_b->len));

	return order ? order : (key_a->len > key_b->len) - (key_a->len < key_b->len);
}

/* Keeps the newest event per key, in the order of the keys. */
static void
reduce(const SpineSink *sink, SpineRows *rows)
{
	int		   *needed = palloc((sink->nkeys + 1) * sizeof(int));
	VersionValues version;
	SpineReduceKey *keys;
	uint32	   *table;

	memcpy(needed, sink->keys, sink->nkeys * sizeof(int));
	needed[sink->nkeys] = sink->version;
	spine_rows_bind(sink, rows, needed, sink->nkeys + 1);

	keys = make_keys(sink, rows);
	version = (VersionValues) {sink->columns[sink->version].base_type, rows->bound[sink->version]};
	table = MemoryContextAllocHuge(CurrentMemoryContext,
								   spine_reduce_table_size(rows->nevents) * sizeof(uint32));
	rows->kept = palloc(rows->nevents * sizeof(uint32));
	rows->nkept = spine_reduce(keys, rows->nevents, is_newer, &version, table, rows->kept);
	qsort_arg(rows->kept, rows->nkept, sizeof(uint32), compare_keys, keys);
}

const SpineSinkKind spine_sink_upsert = {
	.mode = "upsert",
	.lock = RowExclusiveLock,
	.counts_upserts = true,
	.describe = describe,
	.write_statement = write_statement,
	.reduce = reduce
};

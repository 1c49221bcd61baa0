/*
 * look.c
 *		From where to where a look at a topic reads its partitions.
 */
#include "process/look.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* How often a look at the last records reaches further back, to find enough of them. */
#define WIDER	8

/* --------------------------------------------------------------------------
 * The argument
 * -------------------------------------------------------------------------- */

static Jsonb *
parse_offsets(const char *at)
{
	Jsonb	   *offsets = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(at)));

	if (!JB_ROOT_IS_OBJECT(offsets) || JB_ROOT_COUNT(offsets) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("offsets must be a JSON object such as {\"0\": 41000}")));
	return offsets;
}

SpineLook
spine_look_parse(const char *at)
{
	SpineLook	look = {.kind = SPINE_LOOK_TIME};

	if (strcmp(at, "earliest") == 0)
		look.kind = SPINE_LOOK_EARLIEST;
	else if (strcmp(at, "latest") == 0)
		look.kind = SPINE_LOOK_LATEST;
	else if (strcmp(at, "current") == 0)
		look.kind = SPINE_LOOK_CURRENT;
	else if (at[0] == '{')
	{
		look.kind = SPINE_LOOK_OFFSETS;
		look.offsets = parse_offsets(at);
	}
	else if (at[0] != '\0' && at[strspn(at, "0123456789")] == '\0')
	{
		look.kind = SPINE_LOOK_OFFSET;
		look.offset = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(at)));
	}
	else
		look.time = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(at),
															ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	return look;
}

void
spine_look_check_count(int n)
{
	if (n < 1 || n > SPINE_LOOK_MAX_RECORDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of records must be between 1 and %d", SPINE_LOOK_MAX_RECORDS)));
}

void
spine_look_check_time(const SpineCluster *cluster)
{
	if (cluster->embedded)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the embedded broker cannot find records by their time")));
}

int64
spine_look_time_ms(TimestampTz time)
{
	const int64 epoch_ms = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (USECS_PER_DAY / 1000);
	int64		ms = time / 1000 + (time % 1000 > 0);

	if (TIMESTAMP_IS_NOBEGIN(time) || ms < -epoch_ms)
		return SPINE_LOG_START;
	if (TIMESTAMP_IS_NOEND(time))
		return SPINE_LOG_END;
	return ms + epoch_ms;
}

/* --------------------------------------------------------------------------
 * Ranges
 * -------------------------------------------------------------------------- */

/* What the log has of each partition. */
static SpineRange *
find_log(SpineReader *reader)
{
	int			n = spine_reader_count_partitions(reader);
	SpineRange *log = palloc(n * sizeof(SpineRange));
	int64	   *starts = spine_reader_find_offsets(reader, SPINE_LOG_START);
	int64	   *ends = spine_reader_find_offsets(reader, SPINE_LOG_END);

	for (int i = 0; i < n; i++)
		log[i] = (SpineRange) {starts[i], ends[i]};
	return log;
}

/* The offset that `offsets` has for a partition; -1: none. */
static int64
offset_of(Jsonb *offsets, int partition)
{
	char		key[16];
	JsonbValue	value;

	snprintf(key, sizeof(key), "%d", partition);
	if (getKeyJsonValueFromContainer(&offsets->root, key, strlen(key), &value) == NULL)
		return -1;
	if (value.type != jbvNumeric)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the offset of partition %d is not a number", partition)));
	return Max(DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(value.val.numeric))), 0);
}

/* A partition that `offsets` does not name is not read. */
static void
set_given_offsets(Jsonb *offsets, int n, int64 *from)
{
	uint32		nfound = 0;

	for (int i = 0; i < n; i++)
	{
		from[i] = offset_of(offsets, i);
		nfound += from[i] >= 0;
		if (from[i] < 0)
			from[i] = PG_INT64_MAX;
	}
	if (nfound < JB_ROOT_COUNT(offsets))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the offsets name a partition that the topic does not have"),
				 errdetail("The topic has %d partitions, from 0 on.", n)));
}

static void
set_positions(const SpineLook *look, int n, int64 *from)
{
	for (int i = 0; i < n; i++)
	{
		if (i < look->npositions && look->positions[i] >= 0)
			from[i] = look->positions[i];
		else
			from[i] = look->starts_at_latest ? PG_INT64_MAX : 0;
	}
}

/* The first offset of each partition that is looked at; it need not be in the log. */
static int64 *
find_from(const SpineLook *look, SpineReader *reader)
{
	int			n = spine_reader_count_partitions(reader);
	int64	   *from = palloc(n * sizeof(int64));

	switch (look->kind)
	{
		case SPINE_LOOK_EARLIEST:
		case SPINE_LOOK_LATEST:
			memset(from, 0, n * sizeof(int64));
			break;
		case SPINE_LOOK_TIME:
			from = spine_reader_find_offsets(reader, spine_look_time_ms(look->time));
			for (int i = 0; i < n; i++)
				from[i] = from[i] < 0 ? PG_INT64_MAX : from[i];
			break;
		case SPINE_LOOK_OFFSET:
			for (int i = 0; i < n; i++)
				from[i] = look->offset;
			break;
		case SPINE_LOOK_OFFSETS:
			set_given_offsets(look->offsets, n, from);
			break;
		case SPINE_LOOK_CURRENT:
			set_positions(look, n, from);
			break;
	}
	return from;
}

/*
 * The last records.  Where the log has fewer records than offsets, the look reaches back
 * until it has enough.
 */
static SpineRecord *
read_latest(SpineReader *reader, const SpineRange *log, size_t max, size_t *n)
{
	int			npartitions = spine_reader_count_partitions(reader);
	SpineRange *ranges = palloc(npartitions * sizeof(SpineRange));

	for (int64 span = max;; span *= WIDER)
	{
		SpineRecord *records;
		bool		is_all = true;

		for (int i = 0; i < npartitions; i++)
		{
			ranges[i] = (SpineRange) {Max(log[i].to - span, log[i].from), log[i].to};
			is_all = is_all && ranges[i].from == log[i].from;
		}
		records = spine_reader_read(reader, ranges, max, SPINE_READER_NEWEST, n);
		if (is_all || *n == max)
			return records;
		for (size_t i = 0; i < *n; i++)
			records[i].source->release(&records[i]);
		pfree(records);
	}
}

SpineRecord *
spine_look_read(const SpineLook *look, SpineReader *reader, size_t max, size_t *n)
{
	int64	   *from = find_from(look, reader);
	SpineRange *log = find_log(reader);

	if (look->kind == SPINE_LOOK_LATEST)
		return read_latest(reader, log, max, n);
	for (int i = 0; i < spine_reader_count_partitions(reader); i++)
		log[i].from = Min(Max(log[i].from, from[i]), log[i].to);
	return spine_reader_read(reader, log, max, SPINE_READER_OLDEST, n);
}

/*
 * peek.c
 *		spine_peek: some records of a topic, as jsonb.
 */
#include "compat.h"

#include "apply/record_json.h"
#include "apply/record_time.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "process/look.h"
#include "process/server_cluster.h"
#include "process/settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(spine_peek);

/* The row of one record: partition, offset, timestamp, key, value, headers, error. */
static void
put_record(ReturnSetInfo *result, const SpineRecord *record)
{
	Datum		values[7];
	bool		nulls[7] = {false};
	TimestampTz time = 0;
	SpineRecordJson json;

	spine_record_json_make(record, (size_t) spine_max_record_memory_kb * 1024, &json);
	values[0] = Int32GetDatum(record->partition);
	values[1] = Int64GetDatum(record->offset);
	nulls[2] = !spine_record_time(record, &time);
	values[2] = TimestampTzGetDatum(time);
	for (int part = 0; part < SPINE_RECORD_PARTS; part++)
	{
		nulls[3 + part] = json.nulls[part];
		values[3 + part] = json.values[part];
	}
	nulls[6] = json.error == NULL;
	values[6] = json.error ? CStringGetTextDatum(json.error) : (Datum) 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_records(ReturnSetInfo *result, SpineRecord *records, size_t n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine record",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);

	for (size_t i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		put_record(result, &records[i]);
		MemoryContextReset(context);
		records[i].source->release(&records[i]);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

/* (topic text, n integer, at text, server name) */
Datum
spine_peek(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpineCluster cluster;
	SpineReader *reader;
	SpineRecord *records;
	SpineLook	look;
	size_t		n;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < 3; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("topic, n and at must not be null")));
	}
	spine_look_check_count(PG_GETARG_INT32(1));
	look = spine_look_parse(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	if (look.kind == SPINE_LOOK_CURRENT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only a pipeline has a current position")));

	cluster = spine_server_cluster_argument(fcinfo, 3);
	if (look.kind == SPINE_LOOK_TIME)
		spine_look_check_time(&cluster);
	reader = spine_reader_open(&cluster, text_to_cstring(PG_GETARG_TEXT_PP(0)),
							   psprintf("spine-%s-peek", get_database_name(MyDatabaseId)));
	records = spine_look_read(&look, reader, PG_GETARG_INT32(1), &n);
	spine_reader_close(reader);
	put_records(result, records, n);
	return (Datum) 0;
}

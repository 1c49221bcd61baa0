/*
 * preview.c
 *		spine_preview: what a pipeline would do to the records that it reads next.
 *
 * Records are applied as a worker applies them, but one at a time, and in a subtransaction
 * that is rolled back.  So the mapping is the one that the current transaction sees.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "apply/preview.h"
#include "apply/records.h"
#include "apply/role.h"
#include "apply/transaction.h"
#include "catalog/extension.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "catalog/topics.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "kafka/client_cache.h"
#include "miscadmin.h"
#include "process/find_topics.h"
#include "process/look.h"
#include "process/own_pipeline.h"
#include "process/server_cluster.h"
#include "process/settings.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(spine_preview);

/* How long a preview waits for a lock at most. */
#define LOCK_TIMEOUT_MS		1000

#define BROKER_TIMEOUT_MS	10000

typedef struct Rehearsal
{
	SpinePlan  *plan;
	const SpineDecoded *decoded;
	ReturnSetInfo *result;
	MemoryContext context;		/* of one record */

	/* the event that is being applied */
	const SpineEvent *event;
	int			sink;			/* the current one */
	SpinePreview *previews;		/* by sink */
} Rehearsal;

/* --------------------------------------------------------------------------
 * Rows of the result
 * -------------------------------------------------------------------------- */

static const char *const action_names[] = {
	[SPINE_PREVIEW_INSERT] = "insert",
	[SPINE_PREVIEW_UPDATE] = "update",
	[SPINE_PREVIEW_UNCHANGED] = "unchanged",
	[SPINE_PREVIEW_STALE] = "stale",
	[SPINE_PREVIEW_FILTERED] = "filtered",
};

/* topic, partition, offset, sink, action, new_row, old_row, sqlstate, reason */
static void
put_row(const Rehearsal *rehearsal, const SpineRecord *record, Oid sink, const char *action,
		const SpinePreview *preview, const char *sqlstate, const char *reason)
{
	Datum		values[9] = {0};
	bool		nulls[9] = {false};

	values[0] = CStringGetTextDatum(record->topic);
	values[1] = Int32GetDatum(record->partition);
	values[2] = Int64GetDatum(record->offset);
	values[3] = ObjectIdGetDatum(sink);
	nulls[3] = !OidIsValid(sink);
	values[4] = CStringGetTextDatum(action);
	nulls[5] = preview == NULL || !preview->has_new;
	nulls[6] = preview == NULL || !preview->has_old;
	if (preview)
	{
		values[5] = preview->new_row;
		values[6] = preview->old_row;
	}
	nulls[7] = nulls[8] = sqlstate == NULL;
	if (sqlstate)
	{
		values[7] = CStringGetTextDatum(sqlstate);
		values[8] = CStringGetTextDatum(reason);
	}
	tuplestore_putvalues(rehearsal->result->setResult, rehearsal->result->setDesc, values, nulls);
}

/* --------------------------------------------------------------------------
 * Applying
 * -------------------------------------------------------------------------- */

/* Step: one event to all sinks. */
static bool
apply_event(void *arg)
{
	Rehearsal  *rehearsal = arg;
	SpinePlan  *plan = rehearsal->plan;

	for (rehearsal->sink = 0; rehearsal->sink < plan->nsinks; rehearsal->sink++)
		spine_preview_apply(plan, &plan->sinks[rehearsal->sink], rehearsal->event, rehearsal->context,
							&rehearsal->previews[rehearsal->sink]);
	return true;
}

/*
 * What becomes of an event.  An error of the schema is a dead letter only if other records
 * pass; otherwise it lets the pipeline fail.
 */
static void
rehearse_event(Rehearsal *rehearsal, const SpineEvent *event)
{
	const SpinePlan *plan = rehearsal->plan;
	SpineError	error;

	rehearsal->event = event;
	memset(rehearsal->previews, 0, plan->nsinks * sizeof(SpinePreview));
	if (!spine_subtransaction_run(apply_event, rehearsal, &error))
	{
		put_row(rehearsal, event->record, plan->sinks[rehearsal->sink].table,
				error.class == SPINE_STRUCTURAL ? "failed" : "dead letter", NULL,
				error.sqlstate, spine_error_text(&error, true));
		return;
	}
	for (int i = 0; i < plan->nsinks; i++)
	{
		const SpinePreview *preview = &rehearsal->previews[i];

		put_row(rehearsal, event->record, plan->sinks[i].table, action_names[preview->action],
				preview, NULL, NULL);
	}
}

/* Events and records that cannot be decoded, in the order of the records. */
static void
rehearse_records(Rehearsal *rehearsal)
{
	const SpineDecoded *decoded = rehearsal->decoded;
	MemoryContext old_context = MemoryContextSwitchTo(rehearsal->context);
	size_t		event = 0;
	size_t		letter = 0;

	while (event < decoded->nevents || letter < decoded->nletters)
	{
		CHECK_FOR_INTERRUPTS();
		if (letter == decoded->nletters ||
			(event < decoded->nevents && decoded->events[event].record < decoded->letters[letter].record))
			rehearse_event(rehearsal, &decoded->events[event++]);
		else
		{
			const SpineDeadLetter *dead = &decoded->letters[letter++];

			put_row(rehearsal, dead->record, InvalidOid, "dead letter", NULL, dead->sqlstate, dead->reason);
		}
		MemoryContextReset(rehearsal->context);
	}
	MemoryContextSwitchTo(old_context);
}

/* Step, rolled back: everything that writes. */
static bool
rehearse(void *arg)
{
	Rehearsal  *rehearsal = arg;

	if (LockTimeout == 0 || LockTimeout > LOCK_TIMEOUT_MS)
	{
		(void) NewGUCNestLevel();	/* the end of the subtransaction restores it */
		(void) set_config_option("lock_timeout", psprintf("%d", LOCK_TIMEOUT_MS), PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	if (!spine_apply_begin(rehearsal->plan))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a table of pipeline \"%s\" was changed meanwhile", NameStr(rehearsal->plan->pipeline))));
	rehearse_records(rehearsal);
	spine_trust_check(rehearsal->plan->trust);
	return true;
}

/* --------------------------------------------------------------------------
 * The pipeline
 * -------------------------------------------------------------------------- */

/* Where the records come from. */
typedef struct Source
{
	const char *schema;			/* of the extension */
	const SpinePipeline *pipeline;
	SpineCluster cluster;
	SpineLook	look;
	SpineRecord *records;
	size_t		n;
} Source;

static Oid
owner_of(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * The positions in a topic, by partition; -1: none.  A member of the pipeline's owner may
 * know them, so they are read as the table's owner.
 */
static int64 *
load_positions(const Source *source, const char *topic, SpineReader *reader, int n)
{
	Oid			types[] = {NAMEOID, TEXTOID, TEXTOID};
	Datum		args[] = {NameGetDatum(&source->pipeline->name), CStringGetTextDatum(topic),
	CStringGetTextDatum(spine_reader_cluster_id(reader))};
	int64	   *positions = palloc(n * sizeof(int64));
	SpineRole	saved;

	for (int i = 0; i < n; i++)
		positions[i] = -1;
	spine_role_assume(&saved, owner_of(spine_extension_table("spine_offsets")));
	SPI_execute_with_args(psprintf("SELECT partition, next_offset FROM %s.spine_offsets"
								   " WHERE pipeline = $1 AND topic = $2 AND cluster_id = $3", source->schema),
						  3, types, args, NULL, true, 0);
	spine_role_resume(&saved);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		int32		partition = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

		if (partition >= 0 && partition < n)
			positions[partition] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
	}
	return positions;
}

/* Adds records of a topic, at most max in all. */
static void
read_topic(Source *source, const char *topic, size_t max)
{
	const SpinePipeline *pipeline = source->pipeline;
	SpineReader *reader = spine_reader_open(&source->cluster, topic,
											psprintf("spine-%s-%s", get_database_name(MyDatabaseId),
													 NameStr(pipeline->name)));
	SpineLook	look = source->look;
	SpineRecord *records;
	size_t		n;

	if (look.kind == SPINE_LOOK_CURRENT)
	{
		look.npositions = spine_reader_count_partitions(reader);
		look.positions = load_positions(source, topic, reader, look.npositions);
		look.starts_at_latest = pipeline->starts_at_latest;
	}
	records = spine_look_read(&look, reader, max - source->n, &n);
	spine_reader_close(reader);
	memcpy(&source->records[source->n], records, n * sizeof(SpineRecord));
	source->n += n;
}

/* Topics that do not exist have nothing to read; but a pipeline's only one has to exist. */
static void
read_records(Source *source, size_t max)
{
	const char *name = source->pipeline->topic;
	SpineClient *client;
	SpineTopic *topics;
	int			ntopics;

	source->cluster = spine_server_cluster_await(source->pipeline->server, source->pipeline->owner);
	if (source->look.kind == SPINE_LOOK_TIME)
		spine_look_check_time(&source->cluster);
	source->records = palloc(max * sizeof(SpineRecord));
	if (spine_topics_is_one(name))
	{
		read_topic(source, name, max);
		return;
	}

	client = spine_client_cache_get(&source->cluster);
	topics = spine_topics_find(client, name, &ntopics, BROKER_TIMEOUT_MS);
	if (topics == NULL)
		spine_client_raise_error(client);
	spine_client_cache_rest(client);
	for (int i = 0; i < ntopics && source->n < max; i++)
	{
		if (topics[i].npartitions > 0)
			read_topic(source, topics[i].name, max);
	}
}

/* --------------------------------------------------------------------------
 * The function
 * -------------------------------------------------------------------------- */

static void
preview(const NameData *name, int max, const SpineLook *look, ReturnSetInfo *result)
{
	char	   *schema = spine_extension_schema();
	SpinePipeline *pipeline = spine_own_pipeline_load(schema, name, "preview");
	SpinePlan  *plan = spine_plan_make(pipeline, (size_t) spine_max_record_memory_kb * 1024);
	SpineDecoded decoded;
	Source		source = {.schema = schema, .pipeline = pipeline, .look = *look};
	Rehearsal	rehearsal = {.plan = plan, .decoded = &decoded, .result = result};

	MemoryContextSetParent(plan->context, CurrentMemoryContext);
	for (int i = 0; i < plan->nsinks; i++)
		spine_preview_check_right(&plan->sinks[i]);
	read_records(&source, max);
	if (source.n == 0)
	{
		ereport(NOTICE,
				(errmsg("there is nothing to read for pipeline \"%s\"", NameStr(*name))));
		return;
	}
	spine_records_decode(plan, source.records, source.n, &decoded);
	rehearsal.previews = palloc(plan->nsinks * sizeof(SpinePreview));
	rehearsal.context = AllocSetContextCreate(CurrentMemoryContext, "spine record", ALLOCSET_DEFAULT_SIZES);
	spine_subtransaction_rehearse(rehearse, &rehearsal);
}

/* (pipeline name, n integer, at text) */
Datum
spine_preview(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SpineLook	look;

	PreventCommandIfReadOnly("spine_preview()");
	PreventCommandDuringRecovery("spine_preview()");
	InitMaterializedSRF(fcinfo, 0);
	spine_look_check_count(PG_GETARG_INT32(1));
	look = spine_look_parse(text_to_cstring(PG_GETARG_TEXT_PP(2)));

	/* what is allocated lasts until SPI_finish */
	SPI_connect();
	preview(PG_GETARG_NAME(0), PG_GETARG_INT32(1), &look, result);
	SPI_finish();
	return (Datum) 0;
}

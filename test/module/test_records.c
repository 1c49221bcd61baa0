/*
 * test_records.c
 *		Calls src/apply from a backend, for test/t/034_records.pl: plans, records that are
 *		applied in the caller's transaction, and fields of kinds that no format yields.
 *
 * It is linked with the extension's objects, of which it has a copy of its own.
 */
#include "compat.h"

#include "apply/bind.h"
#include "apply/dead_letters.h"
#include "apply/records.h"
#include "apply/role.h"
#include "apply/transaction.h"
#include "catalog/extension.h"
#include "catalog/own_tables.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

PG_MODULE_MAGIC;

#define MAX_PLANS			8
#define MAX_RECORD_MEMORY	((size_t) 1024 * 1024)
#define RECORD_TIME_MS		INT64CONST(1767225600123)	/* 2026-01-01 00:00:00.123 UTC */

/* By the number that the SQL functions know them by. */
static SpinePlan *plans[MAX_PLANS];

extern PGDLLEXPORT void _PG_init(void);

PG_FUNCTION_INFO_V1(test_make_plan);
PG_FUNCTION_INFO_V1(test_free_plan);
PG_FUNCTION_INFO_V1(test_lose_memory);
PG_FUNCTION_INFO_V1(test_apply);
PG_FUNCTION_INFO_V1(test_apply_pieces);
PG_FUNCTION_INFO_V1(test_apply_one);
PG_FUNCTION_INFO_V1(test_bind);

void
_PG_init(void)
{
	spine_own_tables_init();
}

/* make_plan(pipeline name): its number */
Datum
test_make_plan(PG_FUNCTION_ARGS)
{
	SpinePipeline *pipeline;
	int			number = 0;

	while (plans[number])
	{
		if (++number == MAX_PLANS)
			elog(ERROR, "too many plans");
	}

	SPI_connect();
	pipeline = spine_pipeline_load(spine_extension_schema(), PG_GETARG_NAME(0));
	if (pipeline == NULL)
		elog(ERROR, "no such pipeline");
	plans[number] = spine_plan_make(pipeline, MAX_RECORD_MEMORY);
	MemoryContextDelete(pipeline->context);
	SPI_finish();
	PG_RETURN_INT32(number);
}

/* free_plan(number) */
Datum
test_free_plan(PG_FUNCTION_ARGS)
{
	int			number = PG_GETARG_INT32(0);

	spine_plan_free(plans[number]);
	plans[number] = NULL;
	PG_RETURN_VOID();
}

static SpineDecodeOutcome
decode_without_memory(SpineDecoder *decoder, const SpineRecord *record, size_t max_memory,
					  SpineEvent *event, char *reason, size_t reason_size)
{
	strlcpy(reason, "no memory", reason_size);
	return SPINE_DECODE_NO_MEMORY;
}

/* lose_memory(plan, whether): decoding finds no memory from here on, or finds it again */
Datum
test_lose_memory(PG_FUNCTION_ARGS)
{
	static SpineFormat format;

	format = spine_format_json;
	if (PG_GETARG_BOOL(1))
		format.decode = decode_without_memory;
	plans[PG_GETARG_INT32(0)]->format = &format;
	PG_RETURN_VOID();
}

static bool
no_header(const SpineRecord *record, size_t i, SpineHeader *header)
{
	return false;
}

/* A record for each value, which may be null; the keys say which. */
static SpineRecord *
make_records(ArrayType *values, int *n)
{
	static const SpineRecordSource source = {.header = no_header};
	Datum	   *elements;
	bool	   *nulls;
	SpineRecord *records;

	deconstruct_array(values, BYTEAOID, -1, false, TYPALIGN_INT, &elements, &nulls, n);
	records = palloc0(Max(*n, 1) * sizeof(SpineRecord));
	for (int i = 0; i < *n; i++)
	{
		SpineRecord *record = &records[i];

		record->topic = "made here";
		record->partition = 7;
		record->offset = i;
		record->timestamp_ms = RECORD_TIME_MS;
		record->key = psprintf("key %d", i);
		record->key_len = strlen(record->key);
		record->value = nulls[i] ? NULL : VARDATA_ANY(DatumGetByteaPP(elements[i]));
		record->value_len = nulls[i] ? 0 : VARSIZE_ANY_EXHDR(DatumGetByteaPP(elements[i]));
		record->source = &source;
	}
	return records;
}

typedef struct Attempt
{
	SpinePlan  *plan;
	const SpineDecoded *decoded;
	SpineApplied applied;
	SpineApplyOutcome outcome;
} Attempt;

/* Step. */
static bool
apply_plainly(void *arg)
{
	Attempt    *attempt = arg;

	SpineApplying *applying = spine_records_start(attempt->plan);

	attempt->outcome = applying ? SPINE_APPLIED : SPINE_PLAN_OUTDATED;
	if (applying)
	{
		spine_apply_add(applying, attempt->decoded->events, attempt->decoded->nevents);
		(void) spine_records_finish(attempt->plan, applying);
	}
	attempt->applied.nletters = attempt->decoded->nletters;
	attempt->applied.letters = attempt->decoded->letters;
	return true;
}

/* "applied", or the dead letter, of each record; or why nothing was applied. */
static ArrayType *
describe(const Attempt *attempt, const SpineRecord *records, int n)
{
	Datum	   *lines = palloc(Max(n, 1) * sizeof(Datum));
	const SpineApplied *applied = &attempt->applied;

	if (attempt->outcome != SPINE_APPLIED)
	{
		static const char *const outcomes[] = {
			[SPINE_PLAN_OUTDATED] = "plan outdated",
			[SPINE_TABLE_AT_FAULT] = "table at fault",
			[SPINE_TOO_MANY_REFUSALS] = "too many refusals"
		};

		lines[0] = CStringGetTextDatum(outcomes[attempt->outcome]);
		return construct_array(lines, 1, TEXTOID, -1, false, TYPALIGN_INT);
	}

	for (int i = 0; i < n; i++)
		lines[i] = CStringGetTextDatum("applied");
	for (size_t i = 0; i < applied->nletters; i++)
		lines[applied->letters[i].record - records] =
			CStringGetTextDatum(psprintf("%s %s", applied->letters[i].sqlstate, applied->letters[i].reason));
	return construct_array(lines, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * apply(plan, how, values bytea[], breaker): what became of each, as text[].  how: 'plain';
 * 'search'; or 'plain, then search', from one decoding.
 */
Datum
test_apply(PG_FUNCTION_ARGS)
{
	Attempt		attempt = {.plan = plans[PG_GETARG_INT32(0)]};
	char	   *how = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int			breaker = PG_GETARG_INT32(3);
	int			n;
	SpineRecord *records = make_records(PG_GETARG_ARRAYTYPE_P(2), &n);
	SpineDecoded decoded;
	SpineError	error;
	ArrayType  *result;

	spine_records_decode(attempt.plan, records, n, &decoded);
	attempt.decoded = &decoded;

	SPI_connect();
	if (strcmp(how, "plain") == 0)
		(void) apply_plainly(&attempt);
	else
	{
		if (strcmp(how, "search") != 0 && spine_subtransaction_run(apply_plainly, &attempt, &error))
			elog(ERROR, "nothing was refused");
		attempt.outcome = spine_records_search(attempt.plan, &decoded, breaker, &attempt.applied);
	}
	if (attempt.outcome == SPINE_APPLIED)
		spine_dead_letters_write(spine_extension_schema(), &attempt.plan->pipeline,
								 attempt.applied.letters, attempt.applied.nletters);
	SPI_finish();

	result = describe(&attempt, records, n);
	spine_records_forget(attempt.plan);
	PG_RETURN_ARRAYTYPE_P(result);
}

/*
 * apply_pieces(plan, values bytea[], sizes int[]): applies the records in pieces of these
 * sizes, each forgotten before the next comes.  The counts: upserts, unchanged and filtered;
 * and how many bytes were held at most.
 */
Datum
test_apply_pieces(PG_FUNCTION_ARGS)
{
	SpinePlan  *plan = plans[PG_GETARG_INT32(0)];
	int			n;
	SpineRecord *records = make_records(PG_GETARG_ARRAYTYPE_P(1), &n);
	ArrayType  *sizes = PG_GETARG_ARRAYTYPE_P(2);
	int			npieces = ArrayGetNItems(ARR_NDIM(sizes), ARR_DIMS(sizes));
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "piece", ALLOCSET_DEFAULT_SIZES);
	SpineApplying *applying;
	SpineApplyCounts counts;
	size_t		held = 0;
	int			first = 0;

	SPI_connect();
	applying = spine_records_start(plan);
	if (applying == NULL)
		elog(ERROR, "the plan is outdated");
	for (int i = 0; i < npieces; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);
		int			size = ((const int32 *) ARR_DATA_PTR(sizes))[i];
		SpineRecord *piece = palloc(size * sizeof(SpineRecord));
		SpineDecoded decoded;

		if (size > n - first)
			elog(ERROR, "there are only %d records", n);
		memcpy(piece, records + first, size * sizeof(SpineRecord));
		for (int j = 0; j < size; j++)
			piece[j].value = memcpy(palloc(piece[j].value_len), piece[j].value, piece[j].value_len);
		first += size;
		spine_records_decode(plan, piece, size, &decoded);
		spine_apply_add(applying, decoded.events, decoded.nevents);
		spine_records_forget(plan);
		MemoryContextSwitchTo(old_context);
		for (int j = 0; j < size; j++)
			memset(unconstify(void *, piece[j].value), 'x', piece[j].value_len);
		MemoryContextReset(context);
		held = Max(held, spine_apply_held(applying));
	}
	counts = spine_records_finish(plan, applying);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf(UINT64_FORMAT " " UINT64_FORMAT " " UINT64_FORMAT " %zu", counts.nupserts,
											  counts.nunchanged, counts.nfiltered, held)));
}

/* The headers of a record. */
typedef struct Headers
{
	int			n;
	Datum	   *names;
	Datum	   *contents;
	bool	   *nulls;
} Headers;

static bool
get_header(const SpineRecord *record, size_t i, SpineHeader *header)
{
	const Headers *headers = record->object;

	if (i >= (size_t) headers->n)
		return false;
	*header = (SpineHeader) {TextDatumGetCString(headers->names[i]), NULL, 0};
	if (!headers->nulls[i])
	{
		header->value = VARDATA_ANY(DatumGetByteaPP(headers->contents[i]));
		header->value_len = VARSIZE_ANY_EXHDR(DatumGetByteaPP(headers->contents[i]));
	}
	return true;
}

/*
 * apply_one(plan, key bytea, value bytea, names text[], contents bytea[]): what became of
 * the record, which has these headers
 */
Datum
test_apply_one(PG_FUNCTION_ARGS)
{
	static const SpineRecordSource source = {.header = get_header};
	Attempt		attempt = {.plan = plans[PG_GETARG_INT32(0)]};
	bytea	   *key = PG_ARGISNULL(1) ? NULL : PG_GETARG_BYTEA_PP(1);
	bytea	   *value = PG_GETARG_BYTEA_PP(2);
	Headers		headers;
	SpineRecord record = {
		.topic = "made here",
		.partition = 7,
		.offset = 12,
		.timestamp_ms = RECORD_TIME_MS,
		.key = key ? VARDATA_ANY(key) : NULL,
		.key_len = key ? VARSIZE_ANY_EXHDR(key) : 0,
		.value = VARDATA_ANY(value),
		.value_len = VARSIZE_ANY_EXHDR(value),
		.source = &source,
		.object = &headers
	};
	SpineDecoded decoded;
	Datum		result;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), TEXTOID, -1, false, TYPALIGN_INT,
					  &headers.names, NULL, &headers.n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(4), BYTEAOID, -1, false, TYPALIGN_INT,
					  &headers.contents, &headers.nulls, &headers.n);
	spine_records_decode(attempt.plan, &record, 1, &decoded);
	SPI_connect();
	attempt.outcome = spine_records_search(attempt.plan, &decoded, 0, &attempt.applied);
	SPI_finish();
	result = array_get_element(PointerGetDatum(describe(&attempt, &record, 1)), 1, (int[]) {1}, -1, -1,
							   false, TYPALIGN_INT, &(bool) {false});
	spine_records_forget(attempt.plan);
	PG_RETURN_DATUM(result);
}

/* A field of the kind, from a value of the nearest type as text. */
static SpineField
make_field(const char *kind, char *value)
{
	SpineField	field = {.kind = SPINE_FIELD_NULL};

	if (strcmp(kind, "int64") == 0 || strcmp(kind, "timestamp") == 0)
	{
		field.kind = kind[0] == 'i' ? SPINE_FIELD_INT64 : SPINE_FIELD_TIMESTAMP;
		field.int64 = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(value)));
	}
	else if (strcmp(kind, "double") == 0)
	{
		field.kind = SPINE_FIELD_DOUBLE;
		field.float64 = DatumGetFloat8(DirectFunctionCall1(float8in, CStringGetDatum(value)));
	}
	else if (strcmp(kind, "bytes") == 0)
	{
		bytea	   *bytes = DatumGetByteaPP(DirectFunctionCall1(byteain, CStringGetDatum(value)));

		field.kind = SPINE_FIELD_BYTES;
		field.len = VARSIZE_ANY_EXHDR(bytes);
		field.bytes = (const uint8_t *) VARDATA_ANY(bytes);
	}
	else if (strcmp(kind, "uuid") == 0)
	{
		field.kind = SPINE_FIELD_UUID;
		field.len = UUID_LEN;
		field.bytes = DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(value)))->data;
	}
	else
		elog(ERROR, "no kind \"%s\"", kind);
	return field;
}

/* bind(kind, value, type): what a column of the type makes of the field, as text */
Datum
test_bind(PG_FUNCTION_ARGS)
{
	SpineField	field = make_field(text_to_cstring(PG_GETARG_TEXT_PP(0)),
								   text_to_cstring(PG_GETARG_TEXT_PP(1)));
	SpineTableColumn table_column = {.name = "c", .type = PG_GETARG_OID(2), .typmod = -1,
	.collation = get_typcollation(PG_GETARG_OID(2))};
	SpineMapping mapping = {.column = "c", .place = "c"};
	SpineFieldList fields = {0};
	SpineColumn column = {0};
	SpineEvent	event = {.fields = &field};
	int			level = spine_role_fix_settings();
	bool		isnull;
	bool		missing;
	Datum		value;
	Oid			output;
	bool		is_varlena;
	char	   *result;

	spine_column_make(&column, &table_column, &mapping, &fields, MAX_RECORD_MEMORY);
	value = spine_bind_value(&column, &event, &isnull, &missing);
	getTypeOutputInfo(column.base_type, &output, &is_varlena);
	result = OidOutputFunctionCall(output, value);
	spine_role_restore_settings(level);
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

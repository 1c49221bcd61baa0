/*
 * dead_letters.c
 *		Writes records to the table spine_dead_letters, byte for byte.
 */
#include "apply/dead_letters.h"

#include "access/xact.h"
#include "apply/record_time.h"
#include "apply/statement.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static Datum
bytea_datum(const void *bytes, size_t len)
{
	return PointerGetDatum(cstring_to_text_with_len(bytes, len));
}

/* {{name, value}, ...}, or NULL when the record has no headers. */
static Datum
headers_datum(const SpineRecord *record, char *null_flag)
{
	int			capacity = 8;
	Datum	   *values = palloc(2 * capacity * sizeof(Datum));
	bool	   *nulls = palloc0(2 * capacity * sizeof(bool));
	int			dims[2] = {0, 2};
	int			lower_bounds[2] = {1, 1};
	SpineHeader header;

	for (; record->source->header(record, dims[0], &header); dims[0]++)
	{
		if (dims[0] == capacity)
		{
			capacity *= 2;
			values = repalloc(values, 2 * capacity * sizeof(Datum));
			nulls = repalloc(nulls, 2 * capacity * sizeof(bool));
		}
		values[2 * dims[0]] = bytea_datum(header.name, strlen(header.name));
		nulls[2 * dims[0]] = false;
		nulls[2 * dims[0] + 1] = header.value == NULL;
		values[2 * dims[0] + 1] = header.value ? bytea_datum(header.value, header.value_len) : (Datum) 0;
	}

	*null_flag = dims[0] == 0 ? 'n' : ' ';
	if (dims[0] == 0)
		return (Datum) 0;
	return PointerGetDatum(construct_md_array(values, nulls, 2, dims, lower_bounds,
											  BYTEAOID, -1, false, TYPALIGN_INT));
}

SpineDeadLetter
spine_dead_letter_make(const SpineRecord *record, const char *sqlstate, const char *reason)
{
	SpineDeadLetter letter = {.record = record, .reason = pstrdup(reason)};

	strlcpy(letter.sqlstate, sqlstate, sizeof(letter.sqlstate));
	return letter;
}

static SPIPlanPtr
prepare_insert(const char *schema)
{
	static SpineStatement statement;
	Oid			types[10] = {NAMEOID, TEXTOID, INT4OID, INT8OID, BYTEAOID, BYTEAOID,
	BYTEAARRAYOID, TIMESTAMPTZOID, TEXTOID, TEXTOID};

	return spine_statement_prepare(&statement,
								   psprintf("INSERT INTO %s.spine_dead_letters (pipeline, topic, kafka_partition,"
											" kafka_offset, key, value, headers, record_time, sqlstate, reason)"
											" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", schema),
								   10, types);
}

static void
write_one(SPIPlanPtr plan, const NameData *pipeline, const SpineDeadLetter *letter)
{
	const SpineRecord *record = letter->record;
	TimestampTz record_time = 0;
	Datum		args[10];
	char		nulls[10];

	memset(nulls, ' ', sizeof(nulls));
	args[0] = NameGetDatum(pipeline);
	args[1] = CStringGetTextDatum(record->topic);
	args[2] = Int32GetDatum(record->partition);
	args[3] = Int64GetDatum(record->offset);
	nulls[4] = record->key ? ' ' : 'n';
	args[4] = record->key ? bytea_datum(record->key, record->key_len) : (Datum) 0;
	nulls[5] = record->value ? ' ' : 'n';
	args[5] = record->value ? bytea_datum(record->value, record->value_len) : (Datum) 0;
	args[6] = headers_datum(record, &nulls[6]);
	nulls[7] = spine_record_time(record, &record_time) ? ' ' : 'n';
	args[7] = TimestampTzGetDatum(record_time);
	args[8] = CStringGetTextDatum(letter->sqlstate);
	args[9] = CStringGetTextDatum(letter->reason);

	if (SPI_execute_plan(plan, args, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write to spine_dead_letters");
}

void
spine_dead_letters_write(const char *schema, const NameData *pipeline,
						 const SpineDeadLetter *letters, size_t n)
{
	MemoryContext context;
	SPIPlanPtr	plan;

	Assert(IsTransactionState());
	if (n == 0)
		return;

	plan = prepare_insert(schema);
	context = AllocSetContextCreate(CurrentMemoryContext, "spine dead letter",
									ALLOCSET_DEFAULT_SIZES);
	for (size_t i = 0; i < n; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);

		write_one(plan, pipeline, &letters[i]);
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

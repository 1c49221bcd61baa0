/*
 * format_json.c
 *		Records that are JSON objects: a field is the value of a key.
 *
 * A record is decoded exactly or refused.  All of it is checked, including what nobody asks
 * for.  The text of a field stays where the record has it; only a string with escapes is
 * copied, into at most as many bytes as it has.
 *
 * Fields are TEXT, NUMERIC, BOOL, JSON, NULL or ABSENT.  The target column decides what a
 * number or a string means.
 */
#include "event/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event/arena.h"
#include "event/json_reader.h"

/* The length of a field has 32 bits.  Neither Kafka nor a PostgreSQL value gets this far. */
#define MAX_RECORD_LEN		((size_t) 1 << 30)

/* A key that is asked for. */
typedef struct Key
{
	SpineFieldSpec spec;
	const char *name;
	size_t		len;
	int			by_name;		/* of keys[i]: the i-th key in the order of names */
	int			same_name;		/* the next key of the same name, in a circle */
} Key;

struct SpineDecoder
{
	SpineArena	arena;
	int			nkeys;
	Key			keys[];
};

/* --------------------------------------------------------------------------
 * Keys
 * -------------------------------------------------------------------------- */

static inline int
compare_key(const SpineJsonValue *name, const Key *key)
{
	return spine_json_compare(name, key->name, key->len);
}

/* Insertion sort: it runs once per plan, and tables have few columns. */
static void
index_keys(Key *keys, int nkeys)
{
	for (int i = 0; i < nkeys; i++)
	{
		SpineJsonValue name = {SPINE_JSON_STRING, false, keys[i].name, keys[i].len};
		int			place = i;

		for (; place > 0 && compare_key(&name, &keys[keys[place - 1].by_name]) < 0; place--)
			keys[place].by_name = keys[place - 1].by_name;
		keys[place].by_name = i;
		keys[i].same_name = i;
	}
	for (int i = 1; i < nkeys; i++)
	{
		Key		   *key = &keys[keys[i].by_name];
		Key		   *before = &keys[keys[i - 1].by_name];

		if (strcmp(key->name, before->name) == 0)
		{
			key->same_name = before->same_name;
			before->same_name = keys[i].by_name;
		}
	}
}

/* A key of this name, or -1.  Records mostly have their keys in the order of the specs. */
static inline int
find_key(const SpineDecoder *decoder, int guess, const SpineJsonValue *name)
{
	int			low = 0;
	int			high = decoder->nkeys;

	if (guess < high && !name->has_escapes && name->len == decoder->keys[guess].len &&
		memcmp(name->text, decoder->keys[guess].name, name->len) == 0)
		return guess;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			key = decoder->keys[middle].by_name;
		int			order = compare_key(name, &decoder->keys[key]);

		if (order == 0)
			return key;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return -1;
}

/* Copies the names behind the keys, into the same allocation. */
static SpineDecoder *
compile(const SpineFieldSpec *specs, int nspecs)
{
	size_t		size = sizeof(SpineDecoder) + (size_t) nspecs * sizeof(Key);
	SpineDecoder *decoder;
	char	   *names;

	for (int i = 0; i < nspecs; i++)
		size += strlen(specs[i].path.steps[0].member) + 1;
	decoder = calloc(1, size);
	if (decoder == NULL)
		return NULL;

	names = (char *) &decoder->keys[nspecs];
	decoder->nkeys = nspecs;
	for (int i = 0; i < nspecs; i++)
	{
		Key		   *key = &decoder->keys[i];

		key->spec = specs[i];
		key->len = strlen(specs[i].path.steps[0].member);
		key->name = memcpy(names, specs[i].path.steps[0].member, key->len + 1);
		names += key->len + 1;
	}
	index_keys(decoder->keys, nspecs);
	return decoder;
}

/* --------------------------------------------------------------------------
 * Records
 * -------------------------------------------------------------------------- */

/* False: no memory. */
static inline bool
make_field(SpineDecoder *decoder, const SpineJsonValue *value, SpineField *field)
{
	static const SpineFieldKind kinds[] = {
		[SPINE_JSON_NUMBER] = SPINE_FIELD_NUMERIC,
		[SPINE_JSON_STRING] = SPINE_FIELD_TEXT,
		[SPINE_JSON_NESTED] = SPINE_FIELD_JSON
	};

	if (value->kind == SPINE_JSON_NULL)
		*field = (SpineField) {SPINE_FIELD_NULL, 0, {.text = ""}};
	else if (value->kind == SPINE_JSON_BOOL)
		*field = (SpineField) {SPINE_FIELD_BOOL, 0, {.boolean = value->text[0] == 't'}};
	else if (value->kind == SPINE_JSON_STRING && value->has_escapes)
	{
		char	   *text = spine_arena_alloc(&decoder->arena, value->len);

		if (text == NULL)
			return false;
		*field = (SpineField) {SPINE_FIELD_TEXT, (uint32_t) spine_json_unescape(value, text),
		{.text = text}};
	}
	else
		*field = (SpineField) {kinds[value->kind], (uint32_t) value->len, {.text = value->text}};
	return true;
}

/*
 * Gives the value to every key of its name, and adds to *memory what jsonb of it takes.
 * json is the value's text including the quotes of a string.  False: no memory.
 */
static inline bool
take_value(SpineDecoder *decoder, const SpineJsonReader *reader, int first,
		   const SpineJsonValue *value, const char *json, size_t len,
		   SpineField *fields, size_t *memory)
{
	bool		is_made = false;
	SpineField	field;
	int			i = first;

	do
	{
		const Key  *key = &decoder->keys[i];

		if (key->spec.as_json && value->kind != SPINE_JSON_NULL)
			fields[i] = (SpineField) {SPINE_FIELD_JSON, (uint32_t) len, {.text = json}};
		else
		{
			if (!is_made && !make_field(decoder, value, &field))
				return false;
			is_made = true;
			fields[i] = field;
		}
		if (key->spec.for_jsonb)
			*memory += spine_json_value_memory(reader, len);
		i = key->same_name;
	} while (i != first);
	return true;
}

/*
 * Reads the members of the record.  Adds to *memory what jsonb of the fields takes; if a key
 * comes twice, both values count.  SPINE_MALFORMED: the reader has a complaint.
 */
static SpineDecodeOutcome
read_members(SpineDecoder *decoder, SpineJsonReader *reader, SpineField *fields, size_t *memory)
{
	int			guess = 0;

	for (;;)
	{
		SpineJsonValue name;
		SpineJsonValue value;
		const char *json;
		int			key;

		if (!spine_json_read_key(reader, &name))
			return SPINE_MALFORMED;
		(void) spine_json_peek(reader);
		json = reader->at;
		if (!spine_json_read_value(reader, &value))
			return SPINE_MALFORMED;

		key = find_key(decoder, guess, &name);
		if (key >= 0)
		{
			if (!take_value(decoder, reader, key, &value, json, (size_t) (reader->at - json),
							fields, memory))
				return SPINE_DECODE_NO_MEMORY;
			guess = key + 1;
		}

		if (spine_json_peek(reader) == '}')
			return SPINE_DECODED;
		if (!spine_json_read_comma(reader, '}'))
			return SPINE_MALFORMED;
	}
}

static SpineDecodeOutcome
read_record(SpineDecoder *decoder, SpineJsonReader *reader, SpineField *fields, size_t *memory)
{
	SpineDecodeOutcome outcome;

	for (int i = 0; i < decoder->nkeys; i++)
		fields[i] = (SpineField) {SPINE_FIELD_ABSENT, 0, {.text = ""}};
	*memory = 0;

	if (spine_json_peek(reader) != '{')
	{
		reader->complaint = reader->at == reader->end ?
			"nothing but white space" : "not a JSON object";
		return SPINE_MALFORMED;
	}
	reader->at++;
	if (spine_json_peek(reader) != '}')
	{
		outcome = read_members(decoder, reader, fields, memory);
		if (outcome != SPINE_DECODED)
			return outcome;
	}
	reader->at++;
	(void) spine_json_peek(reader);
	if (reader->at < reader->end)
	{
		reader->complaint = "something after the JSON object";
		return SPINE_MALFORMED;
	}
	return SPINE_DECODED;
}

static SpineDecodeOutcome
decode(SpineDecoder *decoder, const SpineRecord *record, size_t max_memory,
	   SpineEvent *event, char *reason, size_t reason_size)
{
	const char *value = record->value;
	SpineJsonReader reader = {.start = value, .at = value};
	SpineDecodeOutcome outcome;
	SpineField *fields;
	size_t		memory;

	reason[0] = '\0';
	if (value == NULL || record->value_len == 0)
	{
		snprintf(reason, reason_size, value == NULL ? "tombstone" : "empty value");
		return value == NULL ? SPINE_NO_VALUE : SPINE_MALFORMED;
	}
	if (record->value_len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, "longer than 1 GB");
		return SPINE_BEYOND_LIMIT;
	}

	reader.end = value + record->value_len;
	fields = spine_arena_alloc(&decoder->arena, decoder->nkeys * sizeof(SpineField));
	outcome = fields ? read_record(decoder, &reader, fields, &memory) : SPINE_DECODE_NO_MEMORY;
	if (outcome == SPINE_DECODE_NO_MEMORY)
		snprintf(reason, reason_size, "out of memory");
	else if (outcome != SPINE_DECODED)
	{
		spine_json_describe(&reader, reason, reason_size);
		if (reader.beyond_limit)
			outcome = SPINE_BEYOND_LIMIT;
	}
	else if (memory > max_memory)
	{
		snprintf(reason, reason_size,
				 "jsonb of its values would take about %zu MB of memory to make,"
				 " more than spine.max_record_memory allows", memory >> 20);
		outcome = SPINE_BEYOND_LIMIT;
	}
	else
		*event = (SpineEvent) {SPINE_OPERATION_UPSERT, record, fields};
	return outcome;
}

static void
reset(SpineDecoder *decoder)
{
	spine_arena_reset(&decoder->arena);
}

static void
free_decoder(SpineDecoder *decoder)
{
	if (decoder == NULL)
		return;
	spine_arena_free(&decoder->arena);
	free(decoder);
}

const SpineFormat spine_format_json = {
	.name = "json",
	.compile = compile,
	.decode = decode,
	.reset = reset,
	.free = free_decoder
};

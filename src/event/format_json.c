/*
 * format_json.c
 *		Records that are JSON: a field is the value at the end of a path.
 *
 * A record is decoded exactly or refused.  All of it is checked, including what nobody asks
 * for, in one pass.  The text of a field stays where the record has it; only a string with
 * escapes is copied, into at most as many bytes as it has.
 *
 * Fields are TEXT, NUMERIC, BOOL, JSON, NULL or ABSENT.  The target column decides what a
 * number or a string means.
 */
#include "event/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event/arena.h"
#include "event/json_paths.h"
#include "event/json_reader.h"
#include "event/json_walk.h"

/* The length of a field has 32 bits.  Neither Kafka nor a PostgreSQL value gets this far. */
#define MAX_RECORD_LEN		((size_t) 1 << 30)

struct SpineDecoder
{
	SpineArena	arena;
	SpineJsonPaths *paths;
	int			nspecs;
	uint64_t	now;			/* grows with every object, so that it tells what came first */
};

/* --------------------------------------------------------------------------
 * Records
 * -------------------------------------------------------------------------- */

static SpineDecoder *
compile(const SpineFieldSpec *specs, int nspecs)
{
	SpineDecoder *decoder = calloc(1, sizeof(SpineDecoder));

	if (decoder == NULL)
		return NULL;
	decoder->nspecs = nspecs;
	decoder->paths = spine_json_paths_make(specs, nspecs);
	if (decoder->paths == NULL)
	{
		free(decoder);
		return NULL;
	}
	return decoder;
}

/* Gives the bytes of a key that is not JSON to the specs that ask for all of it. */
static SpineDecodeOutcome
take_plain_key(SpineJsonWalk *walk, const SpineJsonNode *root, const SpineRecord *record,
			   char *reason, size_t reason_size)
{
	const SpineJsonSpec *specs = walk->specs;
	size_t		len = spine_json_write_string(record->key, record->key_len, NULL);
	char	   *json = NULL;
	int			i = root->spec;

	if (len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, len == SIZE_MAX ?
				 "the key is neither JSON nor UTF-8" : "the key is longer than 1 GB");
		return len == SIZE_MAX ? SPINE_MALFORMED : SPINE_BEYOND_LIMIT;
	}
	do
	{
		if (!specs[i].as_json)
			walk->fields[i] = (SpineField) {SPINE_FIELD_TEXT, (uint32_t) record->key_len,
			{.text = record->key}};
		else
		{
			if (json == NULL)
			{
				json = spine_arena_alloc(walk->arena, len);
				if (json == NULL)
					return SPINE_DECODE_NO_MEMORY;
				(void) spine_json_write_string(record->key, record->key_len, json);
			}
			walk->fields[i] = (SpineField) {SPINE_FIELD_JSON, (uint32_t) len, {.text = json}};
		}
		if (specs[i].for_jsonb)
			walk->memory += spine_json_value_memory(0, len);
		i = specs[i].same_path;
	} while (i != root->spec);
	return SPINE_DECODED;
}

/*
 * The fields of the record's key.  A key need not be JSON, and a record need not have one.
 * Then paths into the key find nothing, and all of it is its text, or NULL.
 */
static SpineDecodeOutcome
decode_key(SpineJsonWalk *walk, SpineJsonNode *root, int nspecs, const SpineRecord *record,
		   char *reason, size_t reason_size)
{
	size_t		memory = walk->memory;
	SpineDecodeOutcome outcome;

	if (root->spec < 0 && !root->has_children && !root[SPINE_JSON_ROOTS].has_children)
		return SPINE_DECODED;
	if (record->key == NULL)
	{
		for (int i = 0; i < nspecs; i++)
		{
			if (walk->specs[i].node == root)
				walk->fields[i] = (SpineField) {SPINE_FIELD_NULL, 0, {.text = ""}};
		}
		return SPINE_DECODED;
	}
	if (record->key_len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, "the key is longer than 1 GB");
		return SPINE_BEYOND_LIMIT;
	}
	outcome = spine_json_walk(walk, root, record->key, record->key_len, false);
	if (outcome != SPINE_MALFORMED)
		return outcome;
	if (walk->reader.beyond_limit)
	{
		snprintf(reason, reason_size, "the key is nested deeper than 512 levels");
		return SPINE_BEYOND_LIMIT;
	}
	walk->memory = memory;
	spine_json_forget(walk, root, walk->start);
	spine_json_forget(walk, root + SPINE_JSON_ROOTS, walk->start);
	return root->spec >= 0 ? take_plain_key(walk, root, record, reason, reason_size) : SPINE_DECODED;
}

static SpineDecodeOutcome
decode_value(SpineJsonWalk *walk, SpineJsonNode *root, const SpineRecord *record,
			 char *reason, size_t reason_size)
{
	SpineDecodeOutcome outcome;

	if (record->value == NULL || record->value_len == 0)
	{
		snprintf(reason, reason_size, record->value == NULL ? "tombstone" : "empty value");
		return record->value == NULL ? SPINE_NO_VALUE : SPINE_MALFORMED;
	}
	if (record->value_len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, "longer than 1 GB");
		return SPINE_BEYOND_LIMIT;
	}
	outcome = spine_json_walk(walk, root, record->value, record->value_len,
							  root->spec < 0 && root->nelements == 0 && root[SPINE_JSON_ROOTS].nelements == 0);
	if (outcome == SPINE_MALFORMED)
	{
		spine_json_describe(&walk->reader, reason, reason_size);
		if (walk->reader.beyond_limit)
			outcome = SPINE_BEYOND_LIMIT;
	}
	return outcome;
}

static SpineDecodeOutcome
decode(SpineDecoder *decoder, const SpineRecord *record, size_t max_memory,
	   SpineEvent *event, char *reason, size_t reason_size)
{
	SpineJsonPaths *paths = decoder->paths;
	SpineJsonWalk walk = {.arena = &decoder->arena, .specs = paths->specs, .active = paths->active};
	SpineDecodeOutcome outcome = SPINE_DECODE_NO_MEMORY;

	reason[0] = '\0';
	walk.start = walk.now = ++decoder->now;
	walk.fields = spine_arena_alloc(&decoder->arena, decoder->nspecs * sizeof(SpineField));
	if (walk.fields)
	{
		for (int i = 0; i < decoder->nspecs; i++)
			walk.fields[i] = spine_json_absent;
		outcome = decode_value(&walk, &paths->nodes[SPINE_ROOT_VALUE], record, reason, reason_size);
		if (outcome == SPINE_DECODED)
			outcome = decode_key(&walk, &paths->nodes[SPINE_ROOT_KEY], decoder->nspecs, record, reason, reason_size);
		decoder->now = walk.now;
	}
	if (outcome == SPINE_DECODE_NO_MEMORY)
		snprintf(reason, reason_size, "out of memory");
	else if (outcome == SPINE_DECODED && walk.memory > max_memory)
	{
		snprintf(reason, reason_size,
				 "jsonb of its values would take about %zu MB of memory to make,"
				 " more than spine.max_record_memory allows", walk.memory >> 20);
		outcome = SPINE_BEYOND_LIMIT;
	}
	else if (outcome == SPINE_DECODED)
		*event = (SpineEvent) {SPINE_OPERATION_UPSERT, record, walk.fields};
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
	free(decoder->paths);
	free(decoder);
}

const SpineFormat spine_format_json = {
	.name = "json",
	.compile = compile,
	.decode = decode,
	.reset = reset,
	.free = free_decoder
};

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
 *
 * A path finds what PostgreSQL's jsonb_path_query_first finds in lax mode:
 *	- of equal keys of an object, the last one counts, with everything below it;
 *	- a step to a member of an array goes to that member of its elements, but not to those of
 *	  arrays among them, and the first value that the whole path finds counts;
 *	- element 0 of what is not an array is the thing itself.
 * A strict path finds what the operator -> of jsonb finds: members only of objects, and
 * elements only of arrays and scalars.
 *
 * So a value may be at the end of several paths, and a path may meet several values.  The
 * nodes whose value is being read are the active ones.  The values of a node do not overlap.
 * So while a value is read, each node is active at most once in what is around it, and no
 * byte is read for a node twice.
 */
#include "event/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event/arena.h"
#include "event/json_paths.h"
#include "event/json_reader.h"

/* The length of a field has 32 bits.  Neither Kafka nor a PostgreSQL value gets this far. */
#define MAX_RECORD_LEN		((size_t) 1 << 30)

struct SpineDecoder
{
	SpineArena	arena;
	SpineJsonPaths *paths;
	int			nspecs;
	uint64_t	now;			/* grows with every object, so that it tells what came first */
};

/* The reading of one record. */
typedef struct Walk
{
	SpineJsonReader reader;
	SpineArena *arena;
	const SpineJsonSpec *specs;
	SpineJsonActive *active;	/* nactive of them */
	size_t		nactive;
	const SpineJsonNode *record;	/* the value's root if it can only be an object */
	uint64_t	start;			/* of the record, in the decoder's time */
	uint64_t	now;
	SpineField *fields;
	size_t		memory;			/* what jsonb of the fields takes; of equal keys, each counts */
} Walk;

static const SpineField absent = {SPINE_FIELD_ABSENT, 0, {.text = ""}};

/* --------------------------------------------------------------------------
 * Fields
 * -------------------------------------------------------------------------- */

/* False: no memory. */
static inline bool
make_field(SpineArena *arena, const SpineJsonValue *value, SpineField *field)
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
		char	   *text = spine_arena_alloc(arena, value->len);

		if (text == NULL)
			return false;
		*field = (SpineField) {SPINE_FIELD_TEXT, (uint32_t) spine_json_unescape(value, text),
		{.text = text}};
	}
	else
		*field = (SpineField) {kinds[value->kind], (uint32_t) value->len, {.text = value->text}};
	return true;
}

/* Notes that a value was taken for the node. */
static inline void
mark_taken(SpineJsonNode *node, uint64_t now)
{
	node->taken = now;
	for (SpineJsonNode *above = node->parent; above && above->taken_below != now; above = above->parent)
		above->taken_below = now;
}

/* Forgets what was taken since then for the node and for those below it. */
static void
forget(Walk *walk, SpineJsonNode *node, uint64_t since)
{
	if (node->taken >= since)
	{
		int			i = node->spec;

		node->taken = 0;
		do
		{
			walk->fields[i] = absent;
			i = walk->specs[i].same_path;
		} while (i != node->spec);
	}
	if (node->taken_below < since)
		return;
	node->taken_below = since - 1;
	for (int i = 0; i < node->nmembers; i++)
		forget(walk, &node->members[i], since);
	for (int i = 0; i < node->nelements; i++)
		forget(walk, &node->elements[i], since);
}

/*
 * Gives the value to the specs of the node, which has some.  json is the value's text including the quotes of
 * a string, and nested_memory what is in it takes as jsonb.  False: no memory.
 */
static inline bool
take_value(Walk *walk, const SpineJsonNode *node, const SpineJsonValue *value,
		   const char *json, size_t len, size_t nested_memory)
{
	const SpineField *made = NULL;
	int			i = node->spec;

	do
	{
		const SpineJsonSpec *spec = &walk->specs[i];
		SpineField *field = &walk->fields[i];

		if (spec->as_json && value->kind != SPINE_JSON_NULL)
			*field = (SpineField) {SPINE_FIELD_JSON, (uint32_t) len, {.text = json}};
		else if (made)
			*field = *made;
		else if (make_field(walk->arena, value, field))
			made = field;
		else
			return false;
		if (spec->for_jsonb)
			walk->memory += spine_json_value_memory(nested_memory, len);
		i = spec->same_path;
	} while (i != node->spec);
	return true;
}

/* --------------------------------------------------------------------------
 * Values
 * -------------------------------------------------------------------------- */

static SpineDecodeOutcome read_value(Walk *walk, size_t first);

static inline void
activate(Walk *walk, SpineJsonNode *node, bool is_unwrapped)
{
	walk->active[walk->nactive++] = (SpineJsonActive) {node, node->members, is_unwrapped};
}

/*
 * Reads a value for a member that has no children; NULL: nobody asks for it.  start: when its
 * object began.  is_last: the last of equal keys counts, and nothing else.
 */
static inline SpineDecodeOutcome
read_leaf(Walk *walk, SpineJsonNode *member, uint64_t start, bool is_last)
{
	SpineJsonReader *reader = &walk->reader;
	size_t		nested_memory = reader->nested_memory;
	const char *json;
	SpineJsonValue value;

	(void) spine_json_peek(reader);
	json = reader->at;
	if (!spine_json_read_value(reader, &value))
		return SPINE_MALFORMED;
	if (member == NULL)
		return SPINE_DECODED;

	if (!is_last)
	{
		if (member->taken >= walk->start && member->taken < start)
			return SPINE_DECODED;
		mark_taken(member, walk->now);
	}
	return take_value(walk, member, &value, json, (size_t) (reader->at - json),
					  reader->nested_memory - nested_memory) ? SPINE_DECODED : SPINE_DECODE_NO_MEMORY;
}

/*
 * Reads a member's value for the children that have this name, of the nodes that are active
 * from first to end.
 */
static SpineDecodeOutcome
read_member(Walk *walk, size_t first, size_t end, const SpineJsonValue *name, uint64_t start)
{
	SpineDecodeOutcome outcome;

	for (size_t a = first; a < end; a++)
	{
		SpineJsonActive *active = &walk->active[a];
		SpineJsonNode *member = spine_json_find_member(active->node, active->guess, name);

		if (member)
		{
			active->guess = member->next;
			forget(walk, member, start);
			activate(walk, member, false);
		}
	}
	if (walk->nactive == end)
		return read_leaf(walk, NULL, start, false);
	if (walk->nactive == end + 1 && !walk->active[end].node->has_children)
		outcome = read_leaf(walk, walk->active[end].node, start, false);
	else
		outcome = read_value(walk, end);
	walk->nactive = end;
	return outcome;
}

/*
 * Reads an object for the nodes that are active from `first` on.  SPINE_MALFORMED: the reader
 * has a complaint.
 */
static SpineDecodeOutcome
read_members(Walk *walk, size_t first)
{
	SpineJsonReader *reader = &walk->reader;
	size_t		end = walk->nactive;
	const SpineJsonNode *only = end - first == 1 ? walk->active[first].node : NULL;
	bool		is_record = only != NULL && only == walk->record;
	uint64_t	start = ++walk->now;
	SpineJsonNode *guess = walk->active[first].node->members;

	if (!spine_json_open(reader))
		return SPINE_MALFORMED;
	if (spine_json_peek(reader) == '}')
	{
		spine_json_close(reader);
		return SPINE_DECODED;
	}
	for (;;)
	{
		SpineDecodeOutcome outcome;
		SpineJsonNode *member = NULL;
		SpineJsonValue name;

		if (!spine_json_read_key(reader, &name))
			return SPINE_MALFORMED;
		reader->nested_memory += SPINE_JSON_KEY_COST + SPINE_JSON_SCALAR_COST;
		if (only)
		{
			member = spine_json_find_member(only, guess, &name);
			if (member)
				guess = member->next;
		}
		if (only && (member == NULL || !member->has_children))
			outcome = read_leaf(walk, member, start, is_record);
		else
			outcome = read_member(walk, first, end, &name, start);
		if (outcome != SPINE_DECODED)
			return outcome;
		if (spine_json_peek(reader) == '}')
			break;
		if (!spine_json_read_comma(reader, '}'))
			return SPINE_MALFORMED;
	}
	spine_json_close(reader);
	return SPINE_DECODED;
}

/* The same for an array. */
static SpineDecodeOutcome
read_elements(Walk *walk, size_t first)
{
	SpineJsonReader *reader = &walk->reader;
	size_t		end = walk->nactive;
	SpineDecodeOutcome outcome;

	if (!spine_json_open(reader))
		return SPINE_MALFORMED;
	if (spine_json_peek(reader) != ']')
	{
		for (uint32_t i = 0;; i++)
		{
			for (size_t a = first; a < end; a++)
			{
				SpineJsonNode *node = walk->active[a].node;
				SpineJsonNode *element;

				if (walk->active[a].is_unwrapped)
					continue;
				element = spine_json_find_element(node, i);
				if (element)
					activate(walk, element, false);
				if (node->nmembers > 0 && !node->is_strict)
					activate(walk, node, true);
			}
			reader->nested_memory += SPINE_JSON_SCALAR_COST;
			outcome = read_value(walk, end);
			walk->nactive = end;
			if (outcome != SPINE_DECODED)
				return outcome;
			if (spine_json_peek(reader) == ']')
				break;
			if (!spine_json_read_comma(reader, ']'))
				return SPINE_MALFORMED;
		}
	}
	spine_json_close(reader);
	return SPINE_DECODED;
}

/*
 * Activates the nodes for element 0 of a value that is not an array.  The operator -> of
 * jsonb, too, takes a scalar for the array that is around it in jsonb.
 */
static inline void
activate_first_elements(Walk *walk, size_t first, char opening)
{
	for (size_t a = first; a < walk->nactive; a++)
	{
		const SpineJsonNode *node = walk->active[a].node;

		if (node->nelements > 0 && !walk->active[a].is_unwrapped && node->by_element[0]->element == 0 &&
			(opening != '{' || !node->is_strict))
			activate(walk, node->by_element[0], false);
	}
}

/* Is any node active, from `first` on, that has children in such a value? */
static inline bool
is_looked_into(const Walk *walk, size_t first, char opening)
{
	for (size_t a = first; a < walk->nactive; a++)
	{
		const SpineJsonNode *node = walk->active[a].node;

		if (opening == '{' ? node->nmembers > 0 :
			!walk->active[a].is_unwrapped && ((node->nmembers > 0 && !node->is_strict) || node->nelements > 0))
			return true;
	}
	return false;
}

/* Reads a value, and the white space before it, for the nodes that are active from `first` on. */
static SpineDecodeOutcome
read_value(Walk *walk, size_t first)
{
	SpineJsonReader *reader = &walk->reader;
	char		opening = spine_json_peek(reader);
	const char *json = reader->at;
	size_t		nested_memory = reader->nested_memory;
	SpineJsonValue value;

	if (opening != '[')
		activate_first_elements(walk, first, opening);
	if ((opening == '{' || opening == '[') && is_looked_into(walk, first, opening))
	{
		SpineDecodeOutcome outcome = opening == '{' ?
			read_members(walk, first) : read_elements(walk, first);

		if (outcome != SPINE_DECODED)
			return outcome;
		value = (SpineJsonValue) {SPINE_JSON_NESTED, false, json, (size_t) (reader->at - json)};
	}
	else if (!spine_json_read_value(reader, &value))
		return SPINE_MALFORMED;

	nested_memory = reader->nested_memory - nested_memory;
	for (size_t a = first; a < walk->nactive; a++)
	{
		SpineJsonNode *node = walk->active[a].node;

		/* what an earlier element of an array has stays */
		if (walk->active[a].is_unwrapped || node->spec < 0 || node->taken >= walk->start)
			continue;
		mark_taken(node, walk->now);
		if (!take_value(walk, node, &value, json, (size_t) (reader->at - json), nested_memory))
			return SPINE_DECODE_NO_MEMORY;
	}
	return SPINE_DECODED;
}

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

/* Reads one JSON value, which is all of the bytes. */
static SpineDecodeOutcome
read_root(Walk *walk, SpineJsonNode *root, const void *bytes, size_t len, bool only_object)
{
	SpineJsonReader *reader = &walk->reader;
	SpineJsonNode *strict = root + SPINE_JSON_ROOTS;
	char		opening;
	SpineDecodeOutcome outcome;

	*reader = (SpineJsonReader) {.start = bytes, .at = bytes, .end = (const char *) bytes + len};
	opening = spine_json_peek(reader);
	if (reader->at == reader->end || (only_object && opening != '{'))
	{
		reader->complaint = reader->at == reader->end ?
			"nothing but white space" : "not a JSON object";
		return SPINE_MALFORMED;
	}
	walk->nactive = 0;
	if (root->spec >= 0 || root->has_children || !strict->has_children)
		activate(walk, root, false);
	if (strict->has_children)
		activate(walk, strict, false);
	if (only_object)
		walk->record = walk->active[0].node;
	outcome = only_object ? read_members(walk, 0) : read_value(walk, 0);
	if (outcome != SPINE_DECODED)
		return outcome;
	(void) spine_json_peek(reader);
	if (reader->at < reader->end)
	{
		reader->complaint = opening == '{' ?
			"something after the JSON object" : "something after the JSON value";
		return SPINE_MALFORMED;
	}
	return SPINE_DECODED;
}

/* Gives the bytes of a key that is not JSON to the specs that ask for all of it. */
static SpineDecodeOutcome
take_plain_key(Walk *walk, const SpineJsonNode *root, const SpineRecord *record,
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
decode_key(Walk *walk, SpineJsonNode *root, const SpineRecord *record, char *reason, size_t reason_size)
{
	size_t		memory = walk->memory;
	SpineDecodeOutcome outcome;

	if (root->spec < 0 && !root->has_children && !root[SPINE_JSON_ROOTS].has_children)
		return SPINE_DECODED;
	if (record->key == NULL)
	{
		static const SpineJsonValue null = {SPINE_JSON_NULL, false, "null", 4};

		if (root->spec >= 0)
			(void) take_value(walk, root, &null, null.text, null.len, 0);
		return SPINE_DECODED;
	}
	if (record->key_len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, "the key is longer than 1 GB");
		return SPINE_BEYOND_LIMIT;
	}
	outcome = read_root(walk, root, record->key, record->key_len, false);
	if (outcome != SPINE_MALFORMED)
		return outcome;
	if (walk->reader.beyond_limit)
	{
		snprintf(reason, reason_size, "the key is nested deeper than 512 levels");
		return SPINE_BEYOND_LIMIT;
	}
	walk->memory = memory;
	forget(walk, root, walk->start);
	forget(walk, root + SPINE_JSON_ROOTS, walk->start);
	return root->spec >= 0 ? take_plain_key(walk, root, record, reason, reason_size) : SPINE_DECODED;
}

static SpineDecodeOutcome
decode_value(Walk *walk, SpineJsonNode *root, const SpineRecord *record, char *reason, size_t reason_size)
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
	outcome = read_root(walk, root, record->value, record->value_len,
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
	Walk		walk = {.arena = &decoder->arena, .specs = paths->specs, .active = paths->active};
	SpineDecodeOutcome outcome = SPINE_DECODE_NO_MEMORY;

	reason[0] = '\0';
	walk.start = walk.now = ++decoder->now;
	walk.fields = spine_arena_alloc(&decoder->arena, decoder->nspecs * sizeof(SpineField));
	if (walk.fields)
	{
		for (int i = 0; i < decoder->nspecs; i++)
			walk.fields[i] = absent;
		outcome = decode_value(&walk, &paths->nodes[SPINE_ROOT_VALUE], record, reason, reason_size);
		if (outcome == SPINE_DECODED)
			outcome = decode_key(&walk, &paths->nodes[SPINE_ROOT_KEY], record, reason, reason_size);
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

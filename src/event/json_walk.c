/*
 * json_walk.c
 *		Takes the fields of all paths out of JSON, in one pass.
 *
 * The text of a field stays where the JSON has it; only a string with escapes is copied, into
 * at most as many bytes as it has.
 */
#include "event/json_walk.h"

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

void
spine_json_forget(SpineJsonWalk *walk, SpineJsonNode *node, uint64_t since)
{
	if (node->taken >= since)
	{
		int			i = node->spec;

		node->taken = 0;
		do
		{
			walk->fields[i] = spine_json_absent;
			i = walk->specs[i].same_path;
		} while (i != node->spec);
	}
	if (node->taken_below < since)
		return;
	node->taken_below = since - 1;
	for (int i = 0; i < node->nmembers; i++)
		spine_json_forget(walk, &node->members[i], since);
	for (int i = 0; i < node->nelements; i++)
		spine_json_forget(walk, &node->elements[i], since);
}

/*
 * Gives the value to the specs of the node, which has some.  json is the value's text,
 * including the quotes of a string; nested_memory is what the values in it take as jsonb.
 * False: no memory.
 */
static inline bool
take_value(SpineJsonWalk *walk, const SpineJsonNode *node, const SpineJsonValue *value,
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

static SpineDecodeOutcome read_value(SpineJsonWalk *walk, size_t first);

static inline void
activate(SpineJsonWalk *walk, SpineJsonNode *node, bool is_unwrapped)
{
	walk->active[walk->nactive++] = (SpineJsonActive) {node, node->members, is_unwrapped};
}

/*
 * Reads a value for a member that has no children; NULL: nobody asks for it.  start: when its
 * object began.  is_last: the last of equal keys counts, and nothing else.
 */
static inline SpineDecodeOutcome
read_leaf(SpineJsonWalk *walk, SpineJsonNode *member, uint64_t start, bool is_last)
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
read_member(SpineJsonWalk *walk, size_t first, size_t end, const SpineJsonValue *name, uint64_t start)
{
	SpineDecodeOutcome outcome;

	for (size_t a = first; a < end; a++)
	{
		SpineJsonActive *active = &walk->active[a];
		SpineJsonNode *member = spine_json_find_member(active->node, active->guess, name);

		if (member)
		{
			active->guess = member->next;
			spine_json_forget(walk, member, start);
			activate(walk, member, false);
		}
	}
	outcome = read_value(walk, end);
	walk->nactive = end;
	return outcome;
}

/*
 * Reads an object for the nodes that are active from `first` on.  SPINE_MALFORMED: the reader
 * has a complaint.
 */
static SpineDecodeOutcome
read_members(SpineJsonWalk *walk, size_t first)
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
read_elements(SpineJsonWalk *walk, size_t first)
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
activate_first_elements(SpineJsonWalk *walk, size_t first, char opening)
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
is_looked_into(const SpineJsonWalk *walk, size_t first, char opening)
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
read_value(SpineJsonWalk *walk, size_t first)
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

SpineDecodeOutcome
spine_json_walk(SpineJsonWalk *walk, SpineJsonNode *root, const void *bytes, size_t len, bool only_object)
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

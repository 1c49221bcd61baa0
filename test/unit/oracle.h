/*
 * oracle.h
 *		What json-c makes of the same bytes, for the unit tests and the fuzzer.
 *
 * json-c is more forgiving than RFC 8259, and changes some values.  It is not asked where
 * it is known to do that:
 *	- it takes NaN, Infinity and names in any case, -01, 'quotes', comments, control
 *	  characters, any UTF-8, one half of a surrogate pair, a comma before a closing
 *	  bracket, values other than objects, and anything after the first value;
 *	- it cuts a key at \u0000;
 *	- it takes an escaped pair for U+1D800 to U+1DFFF, or for the same range of a higher
 *	  plane, for half a pair;
 *	- it clamps integers to 64 bits, and reads the integer -0 as 0.
 */
#ifndef SPINE_ORACLE_H
#define SPINE_ORACLE_H

#include <stdlib.h>
#include <string.h>

#include <json.h>

#include "event/format.h"
#include "event/json_reader.h"

/* Reasons for which spine refuses what json-c may take. */
static const char *const lax_reasons[] = {
	"neither a number nor", "unexpected byte", "no key", "invalid UTF-8", "control character",
	"half of a surrogate pair", "\\u0000 in a key", "nothing after a comma",
	"not a JSON object", "nothing but white space", "something after the JSON", "empty value",
	"the key is neither JSON nor UTF-8"
};

static bool
json_c_is_lax(const char *bytes, const char *reason)
{
	const char *position = strstr(reason, " at byte ");

	for (size_t i = 0; i < sizeof(lax_reasons) / sizeof(lax_reasons[0]); i++)
	{
		if (strncmp(reason, lax_reasons[i], strlen(lax_reasons[i])) == 0)
			return true;
	}

	/* a comment may be anywhere */
	return position != NULL && bytes[strtoul(position + strlen(" at byte "), NULL, 10) - 1] == '/';
}

/* Is there the first half of such a pair: D836, D837, D876, ... DBF7? */
static bool
has_misread_pair(const char *bytes, size_t len)
{
	for (size_t i = 0; i + 6 <= len; i++)
	{
		if (memcmp(bytes + i, "\\u", 2) == 0 && strchr("dD", bytes[i + 2]) && strchr("89aAbB", bytes[i + 3]) &&
			strchr("37bBfF", bytes[i + 4]) && strchr("67", bytes[i + 5]))
			return true;
	}
	return false;
}

/*
 * The value as a tree, for the caller to free (json_object_put).  *taken: the bytes are one
 * value, from the first to the last.
 */
static struct json_object *
json_c_parse(const char *bytes, size_t len, bool *taken)
{
	struct json_tokener *tokener = json_tokener_new_ex(1000);
	struct json_object *value = json_tokener_parse_ex(tokener, bytes, (int) len);

	/* json-c waits for more digits of a number at the very end */
	if (json_tokener_get_error(tokener) == json_tokener_continue)
		value = json_tokener_parse_ex(tokener, "", 1);
	else if (json_tokener_get_parse_end(tokener) < len)
	{
		json_object_put(value);
		json_tokener_free(tokener);
		*taken = false;
		return NULL;
	}
	*taken = json_tokener_get_error(tokener) == json_tokener_success;
	json_tokener_free(tokener);
	return value;
}

static bool
same_text(const SpineField *field, const char *text, size_t len)
{
	return field->len == len && memcmp(field->text, text, len) == 0;
}

static bool
same_number(const SpineField *field, struct json_object *value)
{
	const char *text = json_object_get_string(value);
	size_t		ndigits = field->len - (field->text[0] == '-');

	if (json_object_is_type(value, json_type_int) &&
		(ndigits > 18 || same_text(field, "-0", 2)))
		return true;
	return same_text(field, text, strlen(text));
}

static bool
same_json(const SpineField *field, struct json_object *value)
{
	bool		taken;
	struct json_object *again = json_c_parse(field->text, field->len, &taken);
	bool		same = taken && json_object_equal(again, value);

	json_object_put(again);
	return same;
}

/*
 * The first value at the end of these steps, as jsonpath finds it in lax mode.  unwraps: a
 * step to a member may go to the elements of an array.
 */
static bool
find_first(struct json_object *value, const SpinePathStep *steps, int nsteps, bool unwraps,
		   struct json_object **found)
{
	bool		is_array = json_object_is_type(value, json_type_array);
	struct json_object *next = value;

	if (nsteps == 0)
	{
		*found = value;
		return true;
	}
	if (steps->member && is_array)
	{
		for (size_t i = 0; unwraps && i < json_object_array_length(value); i++)
		{
			if (find_first(json_object_array_get_idx(value, i), steps, nsteps, false, found))
				return true;
		}
		return false;
	}
	if (steps->member ? !json_object_object_get_ex(value, steps->member, &next) :
		steps->element >= (is_array ? json_object_array_length(value) : 1))
		return false;
	if (steps->member == NULL && is_array)
		next = json_object_array_get_idx(value, steps->element);
	return find_first(next, steps + 1, nsteps - 1, true, found);
}

/* The field of a key that is not JSON. */
static bool
same_plain_key(const SpineFieldSpec *spec, const SpineField *field, const SpineRecord *record)
{
	bool		taken;
	bool		same;
	struct json_object *value;

	if (spec->path.nsteps > 0)
		return field->kind == SPINE_FIELD_ABSENT && field->len == 0;
	if (record->key == NULL)
		return field->kind == SPINE_FIELD_NULL && field->len == 0;
	if (!spec->as_json)
		return field->kind == SPINE_FIELD_TEXT && same_text(field, record->key, record->key_len);
	value = json_c_parse(field->text, field->len, &taken);
	same = taken && field->kind == SPINE_FIELD_JSON && json_object_is_type(value, json_type_string) &&
		(size_t) json_object_get_string_len(value) == record->key_len &&
		memcmp(json_object_get_string(value), record->key, record->key_len) == 0;
	json_object_put(value);
	return same;
}

static bool
same_field(const SpineFieldSpec *spec, const SpineField *field, struct json_object *root)
{
	struct json_object *value;

	if (!find_first(root, spec->path.steps, spec->path.nsteps, true, &value))
		return field->kind == SPINE_FIELD_ABSENT && field->len == 0;
	if (value == NULL)
		return field->kind == SPINE_FIELD_NULL && field->len == 0;
	if (spec->as_json)
		return field->kind == SPINE_FIELD_JSON && same_json(field, value);
	switch (json_object_get_type(value))
	{
		case json_type_boolean:
			return field->kind == SPINE_FIELD_BOOL && field->len == 0 &&
				field->boolean == json_object_get_boolean(value);
		case json_type_int:
		case json_type_double:
			return field->kind == SPINE_FIELD_NUMERIC && same_number(field, value);
		case json_type_string:
			return field->kind == SPINE_FIELD_TEXT &&
				same_text(field, json_object_get_string(value),
						  (size_t) json_object_get_string_len(value));
		default:
			return field->kind == SPINE_FIELD_JSON && same_json(field, value);
	}
}

/* json-c is not asked: it would take too much for JSON. */
static bool
key_is_json(const SpineRecord *record)
{
	SpineJsonReader reader = {.start = record->key, .at = record->key};
	SpineJsonValue value;

	if (record->key == NULL)
		return false;
	reader.end = reader.start + record->key_len;
	return spine_json_read_value(&reader, &value) && spine_json_peek(&reader) == '\0' && reader.at == reader.end;
}

/* Does json-c say the same?  True where it cannot be trusted. */
static bool
json_c_agrees(const SpineRecord *record, const SpineFieldSpec *specs, int nspecs,
			  SpineDecodeOutcome outcome, const SpineField *fields, const char *reason)
{
	bool		taken;
	bool		key_taken;
	bool		agrees;
	bool		has_json_key = key_is_json(record);
	struct json_object *value;
	struct json_object *key = NULL;

	if (outcome == SPINE_BEYOND_LIMIT || outcome == SPINE_NO_VALUE ||
		json_c_is_lax(record->value, reason) || has_misread_pair(record->value, record->value_len) ||
		(has_json_key && has_misread_pair(record->key, record->key_len)))
		return true;
	value = json_c_parse(record->value, record->value_len, &taken);
	if (has_json_key)
		key = json_c_parse(record->key, record->key_len, &key_taken);
	agrees = taken == (outcome == SPINE_DECODED) && (!has_json_key || key_taken);
	for (int i = 0; agrees && taken && i < nspecs; i++)
	{
		if (specs[i].path.root == SPINE_ROOT_KEY && !has_json_key)
			agrees = same_plain_key(&specs[i], &fields[i], record);
		else
			agrees = same_field(&specs[i], &fields[i], specs[i].path.root == SPINE_ROOT_KEY ? key : value);
	}
	json_object_put(value);
	json_object_put(key);
	return agrees;
}

#endif							/* SPINE_ORACLE_H */

/*
 * decode.c
 *		Bytes of a record to fields, exactly or not at all.
 *
 * json-c builds the tree, after json_scan.c has made sure that it will neither
 * accept what is not JSON nor change what is.
 *
 * Depends on json-c alone.  Turning fields into typed values is not done here:
 * what a number or a string means is the target column's affair.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "decode.h"
#include "json_scan.h"

/* Deep enough for any sensible event; bounds json-c's recursion on output. */
#define MAX_DEPTH			512

/*
 * json-c counts bytes in int, and the copy with its e0s is up to a ninth
 * longer.  Neither a Kafka client nor a PostgreSQL value gets as far.
 */
#define MAX_RECORD_LEN		((size_t) 1 << 30)

#define OUTPUT_FLAGS		(JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)

struct SpineDecoder
{
	struct json_tokener *tokener;
	struct json_object *root;	/* owns the texts of the last record */
};

SpineDecoder *
spine_decoder_create(void)
{
	SpineDecoder *decoder = calloc(1, sizeof(SpineDecoder));

	if (decoder == NULL)
		return NULL;
	decoder->tokener = json_tokener_new_ex(MAX_DEPTH);
	if (decoder->tokener == NULL)
	{
		free(decoder);
		return NULL;
	}

	/*
	 * Neither JSON_TOKENER_STRICT nor JSON_TOKENER_VALIDATE_UTF8: the scan has
	 * done it, and better.
	 */
	return decoder;
}

void
spine_decoder_destroy(SpineDecoder *decoder)
{
	if (decoder == NULL)
		return;
	json_object_put(decoder->root);
	json_tokener_free(decoder->tokener);
	free(decoder);
}

void
spine_decoder_reset(SpineDecoder *decoder)
{
	json_object_put(decoder->root);
	decoder->root = NULL;
}

/*
 * Is there memory for the tree?  json-c overlooks many a failed allocation: it
 * crashes, or gives a tree that lacks fields.  So all is asked for at once,
 * first, when failing does no harm.
 */
static bool
memory_suffices(const SpineJsonScan *scan)
{
	/* text may be held twice and grows by doubling; volatile: do allocate */
	void	   *volatile room = malloc(scan->tree_cost + 4 * (scan->end - scan->start));

	free(room);
	return room != NULL;
}

/* Builds the tree from scanned bytes. */
static bool
parse(SpineDecoder *decoder, const SpineJsonScan *scan, char *reason, size_t reason_size)
{
	struct json_tokener *tokener = decoder->tokener;
	const char *text = (const char *) scan->start;
	size_t		len = scan->end - scan->start;
	const char *complaint = "";
	enum json_tokener_error error;

	if (scan->copy != NULL)
	{
		text = scan->copy;
		len = scan->copy_len;
	}
	json_tokener_reset(tokener);
	decoder->root = json_tokener_parse_ex(tokener, text, (int) len);
	error = json_tokener_get_error(tokener);

	/* json-c calls it success, too, when it stopped for lack of memory */
	if (decoder->root != NULL && json_tokener_get_parse_end(tokener) == len)
		return true;
	if (decoder->root != NULL)
		complaint = "something after the JSON object";
	else if (error == json_tokener_continue)
		complaint = "JSON without an end";
	else if (error != json_tokener_success)
		complaint = json_tokener_error_desc(error);
	if (scan->copy != NULL || error == json_tokener_continue)	/* positions are those of the copy */
		snprintf(reason, reason_size, "%s", complaint);
	else if (complaint[0] != '\0')
		snprintf(reason, reason_size, "%s at byte %zu", complaint,
				 json_tokener_get_parse_end(tokener) + 1);
	return false;
}

/* The value as JSON, in memory of its own; NULL when out of memory. */
static const char *
json_text(struct json_object *value, size_t *len)
{
	const char *text = json_object_to_json_string_length(value, OUTPUT_FLAGS, len);

	/*
	 * Undo widen_integer.  Nothing but a number ends in e0, and should that be
	 * from the source, it says nothing.
	 */
	if (text != NULL && *len > SPINE_MAX_INT64_DIGITS + 2 &&
		memcmp(text + *len - 2, "e0", 2) == 0)
		*len -= 2;
	return text;
}

/* Returns false when out of memory. */
static bool
take_field(struct json_object *root, const SpineFieldSpec *spec,
		   SpineField *field)
{
	struct json_object *value;
	const char *text = "";
	size_t		len = 0;

	if (!json_object_object_get_ex(root, spec->json_key, &value))
		field->kind = SPINE_FIELD_MISSING;
	else if (value == NULL)
		field->kind = SPINE_FIELD_NULL;
	else if (spec->as_json)
	{
		field->kind = SPINE_FIELD_JSON;
		text = json_text(value, &len);
	}
	else
	{
		switch (json_object_get_type(value))
		{
			case json_type_boolean:
				field->kind = SPINE_FIELD_BOOLEAN;
				text = json_object_get_boolean(value) ? "true" : "false";
				len = strlen(text);
				break;
			case json_type_int:
			case json_type_double:
				field->kind = SPINE_FIELD_NUMBER;
				text = json_text(value, &len);
				break;
			case json_type_string:
				field->kind = SPINE_FIELD_STRING;
				text = json_object_get_string(value);
				len = json_object_get_string_len(value);
				break;
			default:
				field->kind = SPINE_FIELD_JSON;
				text = json_text(value, &len);
				break;
		}
	}

	field->text = text;
	field->len = (uint32_t) len;
	return text != NULL;
}

/* Positions in reasons count bytes from 1. */
bool
spine_decode(SpineDecoder *decoder, const void *value, size_t value_len,
			 const SpineFieldSpec *specs, int nspecs, SpineField *fields,
			 char *reason, size_t reason_size)
{
	SpineJsonScan scan = {0};
	bool		ok;

	spine_decoder_reset(decoder);
	if (value == NULL || value_len == 0)
	{
		snprintf(reason, reason_size, value == NULL ? "tombstone" : "empty value");
		return false;
	}
	if (value_len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, "longer than 1 GB");
		return false;
	}

	reason[0] = '\0';
	ok = spine_json_scan(&scan, value, value_len);
	if (ok)
		ok = memory_suffices(&scan) && parse(decoder, &scan, reason, reason_size);
	else if (scan.complaint)
		snprintf(reason, reason_size, "%s at byte %zu", scan.complaint,
				 (size_t) (scan.at - scan.start) + 1);
	free(scan.copy);

	for (int i = 0; ok && i < nspecs; i++)
		ok = take_field(decoder->root, &specs[i], &fields[i]);
	return ok;
}

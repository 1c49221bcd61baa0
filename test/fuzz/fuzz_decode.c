/*
 * fuzz_decode.c
 *		Whatever the bytes, decode's answer keeps its contract, and is json-c's where
 *		that can be trusted.
 *
 * Aborts, so that libFuzzer keeps the input, when a field's text is not what
 * its kind says, when the JSON given out does not come back the same, when a refusal
 * has no reason, when a word is refused that is valid, when a limit changes more than
 * the outcome, or when json-c makes something else of the bytes.  The sanitizers see to
 * the reads and writes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event/decode.h"
#include "../unit/oracle.h"

/* The keys of the order events, and short ones that the fuzzer finds at once. */
static SpineFieldSpec specs[] = {
	{.json_key = "event_id"}, {.json_key = "tenant"}, {.json_key = "event_type"},
	{.json_key = "order_id"}, {.json_key = "amount_cents"}, {.json_key = "event_time"},
	{.json_key = "a"}, {.json_key = "a", .as_json = true, .for_jsonb = true},
	{.json_key = "b"}, {.json_key = "b", .as_json = true, .for_jsonb = true},
	{.json_key = ""}, {.json_key = "\xc3\xa9", .as_json = true, .for_jsonb = true}
};

#define NSPECS	((int) (sizeof(specs) / sizeof(specs[0])))

#define CHECK(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

static size_t
count_digits(const char *text, size_t len, size_t at)
{
	size_t		start = at;

	while (at < len && text[at] >= '0' && text[at] <= '9')
		at++;
	return at - start;
}

static bool
is_json_number(const char *text, size_t len)
{
	size_t		at = len > 0 && text[0] == '-';
	size_t		ndigits = count_digits(text, len, at);

	if (ndigits == 0 || (text[at] == '0' && ndigits > 1))
		return false;
	at += ndigits;
	if (at < len && text[at] == '.')
	{
		ndigits = count_digits(text, len, ++at);
		if (ndigits == 0)
			return false;
		at += ndigits;
	}
	if (at < len && (text[at] == 'e' || text[at] == 'E'))
	{
		at++;
		if (at < len && (text[at] == '+' || text[at] == '-'))
			at++;
		ndigits = count_digits(text, len, at);
		if (ndigits == 0)
			return false;
		at += ndigits;
	}
	return at == len;
}

/* The JSON of a field, put into an object again, is the same JSON. */
static void
check_json(const SpineField *field)
{
	SpineFieldSpec spec = {.json_key = "x", .as_json = true};
	SpineField	again;
	char		reason[200];
	size_t		len = field->len + 6;
	char	   *wrapped = malloc(len);

	CHECK(wrapped != NULL);
	memcpy(wrapped, "{\"x\":", 5);
	memcpy(wrapped + 5, field->text, field->len);
	wrapped[len - 1] = '}';
	spine_index_specs(&spec, 1);
	CHECK(spine_decode(wrapped, len, &spec, 1, SIZE_MAX, &again, reason, sizeof(reason)) == SPINE_DECODED);
	CHECK(again.kind == SPINE_FIELD_JSON);
	CHECK(again.text == wrapped + 5 && again.len == field->len);
	free(wrapped);
}

/* The word at the position that a reason names is neither a number nor a name. */
static void
check_refused_word(const char *reason, const uint8_t *data, size_t size)
{
	const char *position = strstr(reason, "neither a number nor true, false or null at byte ");
	const char *word;
	size_t		len = 0;

	if (position != reason)
		return;
	word = (const char *) data + strtoul(strrchr(reason, ' '), NULL, 10) - 1;
	while (word + len < (const char *) data + size &&
		   word[len] != '\0' && strchr(" \t\r\n,:{}[]\"'", word[len]) == NULL)
		len++;
	CHECK(!is_json_number(word, len));
	CHECK(!(len == 4 && (memcmp(word, "true", 4) == 0 || memcmp(word, "null", 4) == 0)));
	CHECK(!(len == 5 && memcmp(word, "false", 5) == 0));
}

static void
check_field(const SpineFieldSpec *spec, const SpineField *field,
			const uint8_t *data, size_t size)
{
	bool		in_record = (const uint8_t *) field->text >= data &&
		(const uint8_t *) field->text + field->len <= data + size;
	unsigned	sum = 0;

	CHECK(field->text != NULL);
	for (size_t i = 0; i < field->len; i++)
		sum += (unsigned char) field->text[i];
	CHECK(sum > 0 || field->len == 0 || memchr(field->text, 0, field->len) != NULL);

	switch (field->kind)
	{
		case SPINE_FIELD_MISSING:
		case SPINE_FIELD_NULL:
			CHECK(field->len == 0);
			break;
		case SPINE_FIELD_BOOLEAN:
			CHECK(!spec->as_json);
			CHECK((field->len == 4 && memcmp(field->text, "true", 4) == 0) ||
				  (field->len == 5 && memcmp(field->text, "false", 5) == 0));
			break;
		case SPINE_FIELD_NUMBER:
			CHECK(!spec->as_json);
			CHECK(is_json_number(field->text, field->len));
			CHECK(in_record);
			break;
		case SPINE_FIELD_STRING:
			CHECK(!spec->as_json);
			break;
		case SPINE_FIELD_JSON:
			CHECK(in_record && field->len > 0);
			CHECK(spec->as_json || field->text[0] == '{' || field->text[0] == '[');
			check_json(field);
			break;
		default:
			CHECK(!"a known kind");
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	SpineField	fields[NSPECS];
	SpineField	limited[NSPECS];
	char	   *strings[NSPECS] = {NULL};
	char		reason[200];
	char		limit_reason[200];
	SpineDecodeOutcome outcome;
	SpineDecodeOutcome limit_outcome;

	spine_index_specs(specs, NSPECS);
	outcome = spine_decode(data, size, specs, NSPECS, SIZE_MAX, fields, reason, sizeof(reason));
	limit_outcome = spine_decode(data, size, specs, NSPECS, 1000, limited, limit_reason,
								 sizeof(limit_reason));
	CHECK((outcome == SPINE_DECODED) == (reason[0] == '\0'));
	if (limit_outcome != outcome)
		CHECK(outcome == SPINE_DECODED && limit_outcome == SPINE_BEYOND_LIMIT);
	else
		CHECK(strcmp(reason, limit_reason) == 0);
	check_refused_word(reason, data, size);

	for (int i = 0; outcome == SPINE_DECODED && i < NSPECS; i++)
	{
		if (fields[i].kind == SPINE_FIELD_ESCAPED)
		{
			uint32_t	len = fields[i].len;

			strings[i] = malloc(len);
			spine_unescape(&fields[i], strings[i]);
			CHECK(fields[i].kind == SPINE_FIELD_STRING && fields[i].len < len);
		}
		check_field(&specs[i], &fields[i], data, size);
	}
	CHECK(json_c_agrees(data, size, specs, NSPECS, outcome, fields, reason));
	for (int i = 0; i < NSPECS; i++)
		free(strings[i]);
	return 0;
}

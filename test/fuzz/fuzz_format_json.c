/*
 * fuzz_format_json.c
 *		Whatever the bytes, the decoder keeps its contract, and json-c agrees where it can
 *		be trusted.
 *
 * Aborts, so that libFuzzer keeps the input, when a field is not what its kind says, when
 * JSON that was delivered is decoded differently the next time, when a refusal has no
 * reason, when a valid word is refused, when a limit or a lack of memory changes more than
 * the outcome, or when json-c makes something else of the bytes.  The sanitizers watch the
 * reads and writes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event/format.h"
#include "event/json_reader.h"
#include "../unit/oracle.h"
#include "../unit/scarce_memory.h"

#define MEMBER(name)	{.member = (name)}
#define ELEMENT(i)		{.element = (i)}
#define PATH(part, ...) \
	{.root = SPINE_ROOT_##part, .nsteps = sizeof((const SpinePathStep[]) {__VA_ARGS__}) / sizeof(SpinePathStep), \
	.steps = (const SpinePathStep[]) {__VA_ARGS__}}

/* The keys of the order events, short keys that the fuzzer finds at once, and paths of them. */
static const SpineFieldSpec object_specs[] = {
	{.path = SPINE_PATH_TO_KEY("event_id")}, {.path = SPINE_PATH_TO_KEY("tenant")}, {.path = SPINE_PATH_TO_KEY("event_type")},
	{.path = SPINE_PATH_TO_KEY("order_id")}, {.path = SPINE_PATH_TO_KEY("amount_cents")}, {.path = SPINE_PATH_TO_KEY("event_time")},
	{.path = SPINE_PATH_TO_KEY("a")}, {.path = SPINE_PATH_TO_KEY("a"), .as_json = true, .for_jsonb = true},
	{.path = SPINE_PATH_TO_KEY("b")}, {.path = SPINE_PATH_TO_KEY("b"), .as_json = true, .for_jsonb = true},
	{.path = SPINE_PATH_TO_KEY("")}, {.path = SPINE_PATH_TO_KEY("\xc3\xa9"), .as_json = true, .for_jsonb = true},
	{.path = PATH(VALUE, MEMBER("a"), MEMBER("b"))}, {.path = PATH(VALUE, MEMBER("a"), MEMBER("a")), .as_json = true},
	{.path = PATH(VALUE, MEMBER("a"), ELEMENT(0), MEMBER("b")), .for_jsonb = true}, {.path = PATH(VALUE, MEMBER("a"), ELEMENT(1))},
	{.path = PATH(VALUE, MEMBER("a"), MEMBER("b"), MEMBER("a"), ELEMENT(1))}, {.path = PATH(VALUE, MEMBER("b"), ELEMENT(0), ELEMENT(0))}
};

/* The same for values that need not be objects, and for the record's key. */
static const SpineFieldSpec any_specs[] = {
	{.path = {.root = SPINE_ROOT_VALUE}}, {.path = {.root = SPINE_ROOT_VALUE}, .as_json = true, .for_jsonb = true},
	{.path = {.root = SPINE_ROOT_KEY}}, {.path = {.root = SPINE_ROOT_KEY}, .as_json = true},
	{.path = PATH(VALUE, ELEMENT(1), MEMBER("a"))}, {.path = PATH(VALUE, ELEMENT(0), ELEMENT(0)), .as_json = true},
	{.path = PATH(VALUE, MEMBER("a"))}, {.path = PATH(VALUE, MEMBER("a"), ELEMENT(0), MEMBER("a"))},
	{.path = PATH(KEY, MEMBER("a"))}, {.path = PATH(KEY, ELEMENT(1), MEMBER("a"), MEMBER("b")), .as_json = true}
};

#define NOBJECT_SPECS	((int) (sizeof(object_specs) / sizeof(object_specs[0])))
#define NANY_SPECS		((int) (sizeof(any_specs) / sizeof(any_specs[0])))

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

static SpineDecodeOutcome
decode(SpineDecoder *decoder, const SpineRecord *record, size_t max_memory,
	   SpineEvent *event, char reason[200])
{
	SpineDecodeOutcome outcome = spine_format_json.decode(decoder, record, max_memory, event, reason, 200);

	CHECK((outcome == SPINE_DECODED) == (reason[0] == '\0'));
	if (outcome == SPINE_DECODED)
		CHECK(event->operation == SPINE_OPERATION_UPSERT && event->record == record);
	return outcome;
}

/* The JSON of a field, put into another object, is decoded to the same JSON. */
static void
check_json(const SpineField *field)
{
	static SpineDecoder *decoder = NULL;
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("x"), .as_json = true};
	SpineEvent	again;
	char		reason[200];
	size_t		len = field->len + 6;
	char	   *wrapped = malloc(len);
	SpineRecord record = {.value = wrapped, .value_len = len};
	SpineDecodeOutcome outcome;

	CHECK(wrapped != NULL);
	memcpy(wrapped, "{\"x\":", 5);
	memcpy(wrapped + 5, field->text, field->len);
	wrapped[len - 1] = '}';
	if (decoder == NULL)
		decoder = spine_format_json.compile(&spec, 1);
	spine_format_json.reset(decoder);
	outcome = decode(decoder, &record, SIZE_MAX, &again, reason);
	if (outcome == SPINE_BEYOND_LIMIT)
	{
		/* as deep as it may be by itself */
		CHECK(strstr(reason, "512 levels") != NULL);
		free(wrapped);
		return;
	}
	CHECK(outcome == SPINE_DECODED);
	CHECK(again.fields[0].kind == SPINE_FIELD_JSON);
	CHECK(again.fields[0].text == wrapped + 5 && again.fields[0].len == field->len);
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
	bool		in_record;
	unsigned	sum = 0;

	if (field->kind == SPINE_FIELD_BOOL)
	{
		CHECK(!spec->as_json && field->len == 0);
		return;
	}
	in_record = (const uint8_t *) field->text >= data &&
		(const uint8_t *) field->text + field->len <= data + size;
	CHECK(field->text != NULL);
	for (size_t i = 0; i < field->len; i++)
		sum += (unsigned char) field->text[i];
	CHECK(sum > 0 || field->len == 0 || memchr(field->text, 0, field->len) != NULL);

	switch (field->kind)
	{
		case SPINE_FIELD_ABSENT:
		case SPINE_FIELD_NULL:
			CHECK(field->len == 0);
			break;
		case SPINE_FIELD_NUMERIC:
			CHECK(!spec->as_json);
			CHECK(is_json_number(field->text, field->len));
			CHECK(in_record);
			break;
		case SPINE_FIELD_TEXT:
			CHECK(!spec->as_json);
			break;
		case SPINE_FIELD_JSON:
			/* a key that is not JSON is written as a string */
			CHECK(in_record || (spec->path.root == SPINE_ROOT_KEY && spec->path.nsteps == 0 && field->text[0] == '"'));
			CHECK(field->len > 0);
			CHECK(spec->as_json || field->text[0] == '{' || field->text[0] == '[');
			check_json(field);
			break;
		default:
			CHECK(!"a known kind");
	}
}

/* kept: the decoder of these specs, which stays.  data: what the fields come from. */
static void
check_record(SpineDecoder **kept, const SpineFieldSpec *specs, int nspecs,
			 const SpineRecord *record, const uint8_t *data, size_t size)
{
	SpineDecoder *decoder = *kept ? *kept : spine_format_json.compile(specs, nspecs);
	SpineEvent	event = {0};
	SpineEvent	other;
	char		reason[200];
	char		other_reason[200];
	SpineDecodeOutcome outcome;
	SpineDecodeOutcome other_outcome;

	CHECK(decoder != NULL);
	*kept = decoder;
	spine_format_json.reset(decoder);
	outcome = decode(decoder, record, SIZE_MAX, &event, reason);
	check_refused_word(reason, data, size);

	/* with little memory for jsonb, and then with little memory at all */
	other_outcome = decode(decoder, record, 1000, &other, other_reason);
	if (other_outcome != outcome)
		CHECK(outcome == SPINE_DECODED && other_outcome == SPINE_BEYOND_LIMIT);
	else
		CHECK(strcmp(reason, other_reason) == 0);

	allocations_left = size % 5;
	other_outcome = decode(decoder, record, SIZE_MAX, &other, other_reason);
	allocations_left = -1;
	CHECK(other_outcome == outcome || other_outcome == SPINE_DECODE_NO_MEMORY);

	/* the first event is still there */
	for (int i = 0; outcome == SPINE_DECODED && i < nspecs; i++)
		check_field(&specs[i], &event.fields[i], data, size);
	CHECK(json_c_agrees(record, specs, nspecs, outcome, event.fields, reason));

	/* jsonb may be made of a record's key, which may be any bytes */
	if (outcome == SPINE_DECODED)
		CHECK(spine_json_memory(data, size) >= size);
	else
		(void) spine_json_memory(data, size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static SpineDecoder *decoders[3];
	SpineRecord value = {.value = data, .value_len = size};
	SpineRecord both = {.key = data, .key_len = size, .value = data, .value_len = size};
	SpineRecord key = {.key = data, .key_len = size, .value = "{}", .value_len = 2};

	check_record(&decoders[0], object_specs, NOBJECT_SPECS, &value, data, size);
	check_record(&decoders[1], any_specs, NANY_SPECS, &both, data, size);
	check_record(&decoders[2], any_specs + 2, 2, &key, data, size);
	return 0;
}

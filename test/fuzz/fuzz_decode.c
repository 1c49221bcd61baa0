/*
 * fuzz_decode.c
 *		Whatever the bytes, decode's answer keeps its contract.
 *
 * Aborts, so that libFuzzer keeps the input, when a field's text is not what
 * its kind says, when the JSON given out does not come back the same, when the
 * same bytes decode differently a second time, when a refusal has no reason, or
 * when the short cut for flat records takes one that decode takes otherwise.  The
 * sanitizers see to the reads and writes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "flat_json.h"

/* The keys of the order events, and short ones that the fuzzer finds at once. */
static const SpineFieldSpec specs[] = {
	{"event_id", false}, {"tenant", false}, {"event_type", false},
	{"order_id", false}, {"amount_cents", false}, {"event_time", false},
	{"a", false}, {"a", true}, {"b", false}, {"b", true}, {"", false}, {"\xc3\xa9", true}
};

#define NSPECS	((int) (sizeof(specs) / sizeof(specs[0])))

static const SpineFieldSpec flat_specs[] = {{"a", false}, {"b", false}, {"", false}};

#define NFLAT	((int) (sizeof(flat_specs) / sizeof(flat_specs[0])))

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

/* The JSON of a field, put into an object again, gives the same JSON. */
static void
check_json(const SpineField *field)
{
	SpineDecoder *decoder = spine_decoder_create();
	SpineFieldSpec spec = {"x", true};
	SpineField	again;
	char		reason[200];
	size_t		len = field->len + 6;
	char	   *wrapped = malloc(len);

	CHECK(decoder != NULL && wrapped != NULL);
	memcpy(wrapped, "{\"x\":", 5);
	memcpy(wrapped + 5, field->text, field->len);
	wrapped[len - 1] = '}';
	CHECK(spine_decode(decoder, wrapped, len, &spec, 1, &again, reason, sizeof(reason)));
	CHECK(again.kind == SPINE_FIELD_JSON);
	CHECK(again.len == field->len);
	CHECK(memcmp(again.text, field->text, again.len) == 0);
	free(wrapped);
	spine_decoder_destroy(decoder);
}

static void
check_field(const SpineFieldSpec *spec, const SpineField *field,
			const uint8_t *data, size_t size)
{
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

			/* as in the source; of -0 at least the 0 is */
			CHECK(memmem(data, size, field->text, field->len) != NULL);
			break;
		case SPINE_FIELD_STRING:
			CHECK(!spec->as_json);
			break;
		case SPINE_FIELD_JSON:
			CHECK(field->len > 0);
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
	/* kept from input to input, so that nothing may remain of the one before */
	static SpineDecoder *used = NULL;
	SpineDecoder *fresh = spine_decoder_create();
	SpineField	fields[NSPECS];
	SpineField	again[NSPECS];
	char		reason[200] = "";
	char		reason_again[200] = "";
	bool		ok;

	if (used == NULL)
		used = spine_decoder_create();
	CHECK(used != NULL && fresh != NULL);

	ok = spine_decode(used, data, size, specs, NSPECS, fields, reason, sizeof(reason));
	CHECK(ok == (reason[0] == '\0'));
	CHECK(spine_decode(fresh, data, size, specs, NSPECS, again,
					   reason_again, sizeof(reason_again)) == ok);
	CHECK(strcmp(reason, reason_again) == 0);
	for (int i = 0; ok && i < NSPECS; i++)
	{
		check_field(&specs[i], &fields[i], data, size);
		CHECK(fields[i].kind == again[i].kind && fields[i].len == again[i].len);
		CHECK(memcmp(fields[i].text, again[i].text, fields[i].len) == 0);
	}

	/* the short cut never takes more, nor anything otherwise */
	if (spine_flat_json(data, size, flat_specs, NFLAT, again))
	{
		CHECK(spine_decode(fresh, data, size, flat_specs, NFLAT, fields, reason, sizeof(reason)));
		for (int i = 0; i < NFLAT; i++)
		{
			CHECK(fields[i].kind == again[i].kind && fields[i].len == again[i].len);
			CHECK(memcmp(fields[i].text, again[i].text, fields[i].len) == 0);
		}
	}

	spine_decoder_destroy(fresh);
	return 0;
}

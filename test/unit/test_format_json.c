/*
 * test_format_json.c
 *		Any bytes end in exact fields or in a reason.
 *
 * What would break this: taking what is not JSON (NaN, lone surrogates, overlong UTF-8,
 * -01, control characters, 'quotes'), losing what is (integers beyond 64 bits, decimals,
 * keys with escapes, the last of two equal keys), reading past the end of the record,
 * an idea of which token may follow which that is not RFC 8259's, memory or a stack that
 * grows with a record's shape, a costly record that is not refused, fields that do not
 * last until the reset or memory that lasts longer, or a crash when memory runs out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "event/format.h"
#include "event/json_reader.h"
#include "oracle.h"
#include "scarce_memory.h"

#define REASON_SIZE	200

/* A literal and its length, NUL bytes inside counted. */
#define BYTES(literal)	literal, sizeof(literal) - 1

/* json-c is asked about records up to this length. */
#define MAX_ORACLE_LEN	100000

#define MAX_SPECS	100

/* What the fields of the last decode_exact lean on. */
static char *last_record = NULL;
static SpineDecoder *last_decoder = NULL;

/* Compiles specs that are gone afterwards. */
static SpineDecoder *
compile(const SpineFieldSpec *specs, int nspecs)
{
	SpineFieldSpec copies[MAX_SPECS];
	SpineDecoder *decoder;

	assert_true(nspecs <= MAX_SPECS);
	for (int i = 0; i < nspecs; i++)
	{
		copies[i] = specs[i];
		copies[i].name = memcpy(malloc(strlen(specs[i].name) + 1), specs[i].name,
								strlen(specs[i].name) + 1);
	}
	decoder = spine_format_json.compile(copies, nspecs);
	for (int i = 0; i < nspecs; i++)
		free((char *) copies[i].name);
	memset(copies, 0, sizeof(copies));
	return decoder;
}

static SpineDecodeOutcome
decode(SpineDecoder *decoder, const void *value, size_t len, SpineEvent *event, char *reason)
{
	static SpineRecord record;

	record = (SpineRecord) {.value = value, .value_len = len};
	return spine_format_json.decode(decoder, &record, SIZE_MAX, event, reason, REASON_SIZE);
}

/*
 * Decodes from memory of exactly the right size, so that the sanitizers see a read past
 * the end; and asks json-c.  The fields stay valid until the next call.
 */
static SpineDecodeOutcome
decode_limited(const char *bytes, size_t len, const SpineFieldSpec *specs, int nspecs,
			   size_t max_memory, SpineField *fields, char *reason)
{
	SpineRecord record = {.value_len = len};
	SpineEvent	event;
	SpineDecodeOutcome outcome;

	free(last_record);
	spine_format_json.free(last_decoder);
	last_decoder = compile(specs, nspecs);
	assert_non_null(last_decoder);
	last_record = malloc(len > 0 ? len : 1);
	assert_non_null(last_record);
	memcpy(last_record, bytes, len);
	record.value = last_record;
	outcome = spine_format_json.decode(last_decoder, &record, max_memory, &event, reason, REASON_SIZE);
	assert_int_equal(outcome == SPINE_DECODED, reason[0] == '\0');
	if (outcome == SPINE_DECODED)
	{
		assert_int_equal(event.operation, SPINE_OPERATION_UPSERT);
		assert_ptr_equal(event.record, &record);
		assert_non_null(event.fields);
		if (nspecs > 0)
			memcpy(fields, event.fields, nspecs * sizeof(SpineField));
	}
	if (len <= MAX_ORACLE_LEN && !json_c_agrees(bytes, len, specs, nspecs, outcome, fields, reason))
		fail_msg("%.*s: json-c does not agree (%s)", (int) len, bytes, reason);
	return outcome;
}

static bool
decode_exact(const char *bytes, size_t len, const SpineFieldSpec *specs, int nspecs,
			 SpineField *fields, char *reason)
{
	SpineDecodeOutcome outcome = decode_limited(bytes, len, specs, nspecs, SIZE_MAX,
												fields, reason);

	assert_true(outcome != SPINE_BEYOND_LIMIT);
	return outcome == SPINE_DECODED;
}

static void
expect_field(const char *json, size_t len, bool as_json,
			 SpineFieldKind kind, const char *text, size_t text_len)
{
	SpineFieldSpec spec = {.name = "a", .as_json = as_json};
	SpineField	field;
	char		reason[REASON_SIZE];

	if (!decode_exact(json, len, &spec, 1, &field, reason))
		fail_msg("%s: %s", json, reason);
	if (field.kind == SPINE_FIELD_BOOL)
	{
		assert_int_equal(field.len, 0);
		field.len = field.boolean ? 4 : 5;
		field.text = field.boolean ? "true" : "false";
	}
	if (field.kind != kind || field.len != text_len ||
		memcmp(field.text, text, text_len) != 0)
		fail_msg("%s: got kind %d, \"%.*s\" (%u), expected kind %d, \"%s\" (%zu)", json,
				 (int) field.kind, (int) field.len, field.text, field.len,
				 (int) kind, text, text_len);
}

typedef struct GoodCase
{
	const char *json;
	size_t		len;
	SpineFieldKind kind;
	const char *text;
	size_t		text_len;
} GoodCase;

/* What key "a" decodes to when it is not asked for as JSON. */
static const GoodCase plain_cases[] = {
	{BYTES("{}"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES(" \t\r\n{ \t\r\n} \t\r\n"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES("{\"b\":1}"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES("{\"A\":1,\"\":2,\"aa\":3,\"b\":{\"a\":4}}"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES("{\"a\":null}"), SPINE_FIELD_NULL, BYTES("")},
	{BYTES("{\"a\":true}"), SPINE_FIELD_BOOL, BYTES("true")},
	{BYTES("{\"a\":false}"), SPINE_FIELD_BOOL, BYTES("false")},
	{BYTES("{ \"a\" : 1 , \"b\" : [ 1 , { } , [ ] ] }"), SPINE_FIELD_NUMERIC, BYTES("1")},

	/* the key itself may be written with escapes; the last of two counts */
	{BYTES("{\"\\u0061\":1}"), SPINE_FIELD_NUMERIC, BYTES("1")},
	{BYTES("{\"a\":1,\"a\":2}"), SPINE_FIELD_NUMERIC, BYTES("2")},
	{BYTES("{\"a\":1,\"\\u0061\":null}"), SPINE_FIELD_NULL, BYTES("")},

	/* numbers keep their value whatever their size */
	{BYTES("{\"a\":0}"), SPINE_FIELD_NUMERIC, BYTES("0")},
	{BYTES("{\"a\":-0}"), SPINE_FIELD_NUMERIC, BYTES("-0")},
	{BYTES("{\"a\":-0.0}"), SPINE_FIELD_NUMERIC, BYTES("-0.0")},
	{BYTES("{\"a\":0.10}"), SPINE_FIELD_NUMERIC, BYTES("0.10")},
	{BYTES("{\"a\":1e400}"), SPINE_FIELD_NUMERIC, BYTES("1e400")},
	{BYTES("{\"a\":-1E-400}"), SPINE_FIELD_NUMERIC, BYTES("-1E-400")},
	{BYTES("{\"a\":1.5e+3}"), SPINE_FIELD_NUMERIC, BYTES("1.5e+3")},
	{BYTES("{\"a\":0e0}"), SPINE_FIELD_NUMERIC, BYTES("0e0")},
	{BYTES("{\"a\":5e0}"), SPINE_FIELD_NUMERIC, BYTES("5e0")},
	{BYTES("{\"a\":-0e0}"), SPINE_FIELD_NUMERIC, BYTES("-0e0")},
	{BYTES("{\"a\":5e10}"), SPINE_FIELD_NUMERIC, BYTES("5e10")},
	{BYTES("{\"a\":5e00}"), SPINE_FIELD_NUMERIC, BYTES("5e00")},
	{BYTES("{\"a\":0.1000000000000000055511151231257827}"), SPINE_FIELD_NUMERIC,
	BYTES("0.1000000000000000055511151231257827")},
	{BYTES("{\"a\":999999999999999999}"), SPINE_FIELD_NUMERIC, BYTES("999999999999999999")},
	{BYTES("{\"a\":-999999999999999999}"), SPINE_FIELD_NUMERIC, BYTES("-999999999999999999")},
	{BYTES("{\"a\":1000000000000000000}"), SPINE_FIELD_NUMERIC, BYTES("1000000000000000000")},
	{BYTES("{\"a\":9223372036854775807}"), SPINE_FIELD_NUMERIC, BYTES("9223372036854775807")},
	{BYTES("{\"a\":9223372036854775808}"), SPINE_FIELD_NUMERIC, BYTES("9223372036854775808")},
	{BYTES("{\"a\":-9223372036854775808}"), SPINE_FIELD_NUMERIC, BYTES("-9223372036854775808")},
	{BYTES("{\"a\":-9223372036854775809}"), SPINE_FIELD_NUMERIC, BYTES("-9223372036854775809")},
	{BYTES("{\"a\":18446744073709551615}"), SPINE_FIELD_NUMERIC, BYTES("18446744073709551615")},
	{BYTES("{\"a\":18446744073709551616}"), SPINE_FIELD_NUMERIC, BYTES("18446744073709551616")},
	{BYTES("{\"a\":-18446744073709551616 }"), SPINE_FIELD_NUMERIC, BYTES("-18446744073709551616")},
	{BYTES("{\"a\":123456789012345678901234567890123456789012345678901234567890}"), SPINE_FIELD_NUMERIC,
	BYTES("123456789012345678901234567890123456789012345678901234567890")},
	{BYTES("{\"a\":12345678901234567890.5}"), SPINE_FIELD_NUMERIC, BYTES("12345678901234567890.5")},
	{BYTES("{\"a\":12345678901234567890e5}"), SPINE_FIELD_NUMERIC, BYTES("12345678901234567890e5")},

	/* an unknown key with a huge integer is no reason to refuse */
	{BYTES("{\"z\":123456789012345678901234567890,\"a\":7}"), SPINE_FIELD_NUMERIC, BYTES("7")},
	{BYTES("{\"a\":\"12345678901234567890\",\"z\":12345678901234567890}"), SPINE_FIELD_TEXT,
	BYTES("12345678901234567890")},
	{BYTES("{\"x\":11111111111111111111,\"a\":[22222222222222222222],\"a\":33333333333333333333,\"y\":-1}"),
	SPINE_FIELD_NUMERIC, BYTES("33333333333333333333")},

	/* strings */
	{BYTES("{\"a\":\"\"}"), SPINE_FIELD_TEXT, BYTES("")},
	{BYTES("{\"a\":\"NaN // 'x' /* 01 */ ,}\"}"), SPINE_FIELD_TEXT, BYTES("NaN // 'x' /* 01 */ ,}")},
	{BYTES("{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}"), SPINE_FIELD_TEXT, BYTES("\"\\/\b\f\n\r\t")},
	{BYTES("{\"a\":\"\x7f\"}"), SPINE_FIELD_TEXT, BYTES("\x7f")},
	{BYTES("{\"a\":\"\\u00e9\\u20AC\\u0001\"}"), SPINE_FIELD_TEXT, BYTES("\xc3\xa9\xe2\x82\xac\x01")},
	{BYTES("{\"a\":\"x\\u0000y\"}"), SPINE_FIELD_TEXT, BYTES("x\0y")},
	{BYTES("{\"a\":\"\\u0000\"}"), SPINE_FIELD_TEXT, BYTES("\0")},
	{BYTES("{\"a\":\"x\\u0000\",\"b\":[\"\\u0000\"],\"c\":{\"d\":\"\\u0000\"}}"), SPINE_FIELD_TEXT, BYTES("x\0")},
	{BYTES("{\"b\":\"\\u0000\" , \"a\":1}"), SPINE_FIELD_NUMERIC, BYTES("1")},
	{BYTES("{\"a\":\"\\ud83d\\ude00\"}"), SPINE_FIELD_TEXT, BYTES("\xf0\x9f\x98\x80")},
	{BYTES("{\"a\":\"\\uD800\\uDC00\\uDBFF\\uDFFF\"}"), SPINE_FIELD_TEXT,
	BYTES("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},
	{BYTES("{\"a\":\"\\ud7ff\\ue000\\uffff\"}"), SPINE_FIELD_TEXT, BYTES("\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf")},
	{BYTES("{\"a\":\"\\\\ud800\"}"), SPINE_FIELD_TEXT, BYTES("\\ud800")},

	/* the first and last sequence of each length, and around the surrogates */
	{BYTES("{\"a\":\"\xc2\x80\xdf\xbf\"}"), SPINE_FIELD_TEXT, BYTES("\xc2\x80\xdf\xbf")},
	{BYTES("{\"a\":\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"}"), SPINE_FIELD_TEXT,
	BYTES("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf")},
	{BYTES("{\"a\":\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}"), SPINE_FIELD_TEXT,
	BYTES("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},

	/* objects and arrays come as JSON anyway */
	{BYTES("{\"a\":{}}"), SPINE_FIELD_JSON, BYTES("{}")},
	{BYTES("{\"a\":[ ]}"), SPINE_FIELD_JSON, BYTES("[ ]")},
	{BYTES("{\"a\": [1, \"\\/\", null, -0 ] }"), SPINE_FIELD_JSON, BYTES("[1, \"\\/\", null, -0 ]")},
};

/* The same when it is. */
static const GoodCase as_json_cases[] = {
	{BYTES("{}"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES("{\"a\":null}"), SPINE_FIELD_NULL, BYTES("")},
	{BYTES("{\"a\":false}"), SPINE_FIELD_JSON, BYTES("false")},
	{BYTES("{\"a\":0.10}"), SPINE_FIELD_JSON, BYTES("0.10")},
	{BYTES("{\"a\":12345678901234567890}"), SPINE_FIELD_JSON, BYTES("12345678901234567890")},
	{BYTES("{\"a\":\"x\"}"), SPINE_FIELD_JSON, BYTES("\"x\"")},
	{BYTES("{\"a\":\"\"}"), SPINE_FIELD_JSON, BYTES("\"\"")},
	{BYTES("{\"a\":\"5e0\"}"), SPINE_FIELD_JSON, BYTES("\"5e0\"")},
	{BYTES("{\"a\":\"\\u0000\\u001f\\\"\\\\\\/\\n\\ud83d\\ude00\"}"), SPINE_FIELD_JSON,
	BYTES("\"\\u0000\\u001f\\\"\\\\\\/\\n\\ud83d\\ude00\"")},
	{BYTES("{\"a\":{\"b\":{\"b\":[\"x\\u0000y\",1e400,-0.0,0.10,{\"\":null}]}}}"), SPINE_FIELD_JSON,
	BYTES("{\"b\":{\"b\":[\"x\\u0000y\",1e400,-0.0,0.10,{\"\":null}]}}")},
	{BYTES("{\"a\":[18446744073709551616,-9223372036854775809,\"12345678901234567890\",1]}"), SPINE_FIELD_JSON,
	BYTES("[18446744073709551616,-9223372036854775809,\"12345678901234567890\",1]")},
	{BYTES("{\"a\":{\"k\":1,\"l\":2,\"k\":3}}"), SPINE_FIELD_JSON, BYTES("{\"k\":1,\"l\":2,\"k\":3}")},
	{BYTES("{\"a\":{\"\xc3\xa9\\n\":1}}"), SPINE_FIELD_JSON, BYTES("{\"\xc3\xa9\\n\":1}")},
};

static void
test_good_records(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof(plain_cases) / sizeof(plain_cases[0]); i++)
	{
		const GoodCase *c = &plain_cases[i];

		expect_field(c->json, c->len, false, c->kind, c->text, c->text_len);
	}
	for (size_t i = 0; i < sizeof(as_json_cases) / sizeof(as_json_cases[0]); i++)
	{
		const GoodCase *c = &as_json_cases[i];

		expect_field(c->json, c->len, true, c->kind, c->text, c->text_len);
	}
}

typedef struct BadCase
{
	const char *json;
	size_t		len;
	const char *reason;			/* begins so */
} BadCase;

static const BadCase bad_cases[] = {
	{BYTES(""), "empty value"},
	{BYTES(" \n\t\r"), "nothing but white space"},
	{BYTES("\0"), "not a JSON object at byte 1"},
	{BYTES("\xef\xbb\xbf{}"), "not a JSON object at byte 1"},
	{BYTES("\xff\xfe{\0}\0"), "not a JSON object at byte 1"},
	{BYTES(" [1]"), "not a JSON object at byte 2"},
	{BYTES("1"), "not a JSON object at byte 1"},
	{BYTES("\"a\""), "not a JSON object at byte 1"},
	{BYTES("null"), "not a JSON object at byte 1"},
	{BYTES("}"), "not a JSON object at byte 1"},

	/* words */
	{BYTES("{\"a\":NaN}"), "neither a number nor true, false or null at byte 6"},
	{BYTES("{\"a\":nan}"), "neither"},
	{BYTES("{\"a\":Infinity}"), "neither"},
	{BYTES("{\"a\":-Infinity}"), "neither"},
	{BYTES("{\"a\":TRUE}"), "neither"},
	{BYTES("{\"a\":True}"), "neither"},
	{BYTES("{\"a\":nUll}"), "neither"},
	{BYTES("{\"a\":False}"), "neither"},
	{BYTES("{\"a\":tru}"), "neither"},
	{BYTES("{\"a\":trux}"), "neither"},
	{BYTES("{\"a\":falsx}"), "neither"},
	{BYTES("{\"a\":nulx}"), "neither"},
	{BYTES("{\"a\":nullx}"), "neither"},
	{BYTES("{\"a\":true1}"), "neither"},
	{BYTES("{\"a\":undefined}"), "neither"},
	{BYTES("{a:1}"), "no key at byte 2"},
	{BYTES("{\"a\":t"), "neither"},

	/* numbers */
	{BYTES("{\"a\":01}"), "neither"},
	{BYTES("{\"a\":-01}"), "neither"},
	{BYTES("{\"a\":00}"), "neither"},
	{BYTES("{\"a\":-00}"), "neither"},
	{BYTES("{\"a\":01.5}"), "neither"},
	{BYTES("{\"a\":-}"), "neither"},
	{BYTES("{\"a\":--1}"), "neither"},
	{BYTES("{\"a\":+1}"), "neither"},
	{BYTES("{\"a\":.5}"), "neither"},
	{BYTES("{\"a\":-.5}"), "neither"},
	{BYTES("{\"a\":1.}"), "neither"},
	{BYTES("{\"a\":1.e5}"), "neither"},
	{BYTES("{\"a\":1.2.3}"), "neither"},
	{BYTES("{\"a\":1e}"), "neither"},
	{BYTES("{\"a\":1e+}"), "neither"},
	{BYTES("{\"a\":1e5e5}"), "neither"},
	{BYTES("{\"a\":1e5.0}"), "neither"},
	{BYTES("{\"a\":e5}"), "neither"},
	{BYTES("{\"a\":0x10}"), "neither"},
	{BYTES("{\"a\":1-2}"), "neither"},
	{BYTES("{\"a\":1.0f}"), "neither"},
	{BYTES("{\"a\":12345678901234567890x}"), "neither"},
	{BYTES("{\"a\":1_000}"), "neither a comma nor the end of the object at byte 7"},

	/* what other formats allow */
	{BYTES("{'a':1}"), "no key at byte 2"},
	{BYTES("{\"a\":'b'}"), "unexpected byte at byte 6"},
	{BYTES("/*c*/{}"), "not a JSON object"},
	{BYTES("{/*c*/}"), "no key at byte 2"},
	{BYTES("{}//x"), "something after the JSON object at byte 3"},
	{BYTES("{}#x"), "something after the JSON object at byte 3"},
	{BYTES("{}\0"), "something after the JSON object at byte 3"},
	{BYTES("{\0}"), "no key at byte 2"},
	{BYTES("{\v}"), "no key at byte 2"},
	{BYTES("{\f}"), "no key at byte 2"},
	{BYTES("{\xc2\xa0}"), "no key at byte 2"},
	{BYTES("\v{}"), "not a JSON object"},
	{BYTES("{}\xef\xbb\xbf"), "something after the JSON object at byte 3"},

	/* strings */
	{BYTES("{\"a\":\"x"), "string without an end at byte 6"},
	{BYTES("{\""), "string without an end at byte 2"},
	{BYTES("{\"a\":\"\n\"}"), "control character in a string at byte 7"},
	{BYTES("{\"a\":\"\t\"}"), "control character"},
	{BYTES("{\"a\":\"\0\"}"), "control character"},
	{BYTES("{\"a\":\"\x1f\"}"), "control character"},
	{BYTES("{\"\x01\":1}"), "control character"},
	{BYTES("{\"a\":\"\\x41\"}"), "invalid escape in a string at byte 7"},
	{BYTES("{\"a\":\"\\'\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\U0041\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\\0\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\"), "invalid escape"},
	{BYTES("{\"a\":\"\\\""), "string without an end"},
	{BYTES("{\"a\":\"\\u00g0\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\u 041\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\u-041\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\u041\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\u00`0\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\u00/0\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\u00:0\"}"), "invalid escape"},
	{BYTES("{\"a\":\"\\u004"), "invalid escape"},
	{BYTES("{\"a\":\"\\u"), "invalid escape"},

	/* surrogates */
	{BYTES("{\"a\":\"\\ud800\"}"), "half of a surrogate pair in a string at byte 7"},
	{BYTES("{\"a\":\"\\uDBFFx\"}"), "half"},
	{BYTES("{\"a\":\"\\udc00\"}"), "half"},
	{BYTES("{\"a\":\"\\uDFFF\"}"), "half"},
	{BYTES("{\"a\":\"\\udc00\\ud800\"}"), "half"},
	{BYTES("{\"a\":\"\\udc00\\udc00\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800\\ud800\\udc00\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800\\n\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800\\u0041\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800\\ue000\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800udc00\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800xudc00\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800\\xdc00\"}"), "half"},
	{BYTES("{\"a\":\"\\ud800\\udc0"), "half"},
	{BYTES("{\"a\":\"\\ud83d\\ude00\\ude00\"}"), "half"},
	{BYTES("{\"\\ud800\":1}"), "half"},
	{BYTES("{\"z\":[{\"\\ud800\":1}]}"), "half"},

	/* UTF-8 */
	{BYTES("{\"a\":\"\x80\"}"), "invalid UTF-8 at byte 7"},
	{BYTES("{\"a\":\"\xbf\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xc0\xaf\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xc1\xbf\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xc2\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xc2\xc0\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xc2\x7f\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xe0\x80\x80\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xe0\x9f\xbf\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xe2\x82\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xe2\x28\xa1\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xed\xa0\x80\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xed\xbf\xbf\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xed\xa0\xbd\xed\xb8\x80\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xf0\x80\x80\x80\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xf0\x8f\xbf\xbf\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xf0\x9f\x98\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xf4\x90\x80\x80\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xf5\x80\x80\x80\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xf8\x88\x80\x80\x80\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xfe\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xff\"}"), "invalid UTF-8"},
	{BYTES("{\"a\":\"\xe2"), "invalid UTF-8"},
	{BYTES("{\"\xff\":1}"), "invalid UTF-8"},
	{BYTES("{\"z\":[\"\xff\"]}"), "invalid UTF-8"},

	/* a key that other readers would cut short, here or further down */
	{BYTES("{\"a\\u0000b\":1,\"a\":2}"), "\\u0000 in a key at byte 12"},
	{BYTES("{\"a\":2,\"a\\u0000b\" \n:1}"), "\\u0000 in a key"},
	{BYTES("{\"\\u0000\":1}"), "\\u0000 in a key"},
	{BYTES("{\"a\":{\"\\u0000\":1}}"), "\\u0000 in a key"},

	/* structure */
	{BYTES("{"), "JSON without an end"},
	{BYTES("{\"a\":1"), "JSON without an end"},
	{BYTES("{\"a\":[{}"), "JSON without an end"},
	{BYTES("{\"a\":12345678901234567890"), "JSON without an end"},
	{BYTES("{\"a\":1,}"), "nothing after a comma at byte 8"},
	{BYTES("{\"a\":[1,]}"), "nothing after a comma at byte 9"},
	{BYTES("{\"a\":[,1]}"), "unexpected byte at byte 7"},
	{BYTES("{,}"), "no key at byte 2"},
	{BYTES("{}{}"), "something after the JSON object at byte 3"},
	{BYTES("{} x"), "something after the JSON object at byte 4"},
	{BYTES("{}1"), "something after"},
	{BYTES("{}}"), "something after"},
	{BYTES("{}\n\n]"), "something after the JSON object at byte 5"},
	{BYTES("{1:2}"), "no key at byte 2"},
	{BYTES("{\"a\":1 \"b\":2}"), "neither a comma nor the end of the object at byte 8"},
	{BYTES("{\"a\":[1 2]}"), "neither a comma nor the end of the array at byte 9"},
	{BYTES("{\"a\":[1}}"), "neither a comma nor the end of the array at byte 8"},
	{BYTES("{\"a\":{\"b\":1]}"), "neither a comma nor the end of the object at byte 12"},
	{BYTES("{\"a\":[{,}]}"), "no key at byte 8"},
	{BYTES("{\"a\":[{}{}]}"), "neither a comma nor the end of the array at byte 9"},
	{BYTES("{\"a\":[{\"b\"}]}"), "no colon after a key at byte 11"},
	{BYTES("{\"a\":[{\"b\":}]}"), "unexpected byte at byte 12"},
	{BYTES("{\"a\" 1}"), "no colon after a key at byte 6"},
	{BYTES("{\"a\":12345678901234567890,}"), "nothing after a comma"},
};

static void
test_bad_records(void **state)
{
	SpineFieldSpec spec = {.name = "a"};
	SpineField	field;
	char		reason[REASON_SIZE];

	(void) state;
	for (size_t i = 0; i < sizeof(bad_cases) / sizeof(bad_cases[0]); i++)
	{
		const BadCase *c = &bad_cases[i];

		if (decode_exact(c->json, c->len, &spec, 1, &field, reason))
			fail_msg("case %zu was taken: %s", i, c->json);
		if (strncmp(reason, c->reason, strlen(c->reason)) != 0)
			fail_msg("%s: reason \"%s\", expected \"%s\"", c->json, reason, c->reason);
	}
}

/* Wherever a good record is cut off, it is bad. */
static void
test_truncated_records(void **state)
{
	static const char record[] =
		"{\"a\":[1,-2.5e+3,12345678901234567890,true,null],"
		"\"b\\u00e9\":{\"c\":\"\\ud83d\\ude00\xf0\x9f\x98\x80\"}}";
	static const char flat[] =
		" { \"b\" : -12 , \"n\":null,\"t\":true,\"f\":false,\"\":0, \"a\":\"\xf0\x9f\x98\x80\xc3\xa9\xe2\x82\xac\" }";
	SpineFieldSpec spec = {.name = "a", .as_json = true};
	SpineFieldSpec flat_spec = {.name = "a"};
	SpineField	field;
	char		reason[REASON_SIZE];

	(void) state;
	assert_true(decode_exact(BYTES(record), &spec, 1, &field, reason));
	for (size_t len = 0; len < sizeof(record) - 1; len++)
		assert_false(decode_exact(record, len, &spec, 1, &field, reason));

	assert_true(decode_exact(BYTES(flat), &flat_spec, 1, &field, reason));
	for (size_t len = 0; len < sizeof(flat) - 1; len++)
		assert_false(decode_exact(flat, len, &flat_spec, 1, &field, reason));
}

static void
test_tombstone_and_lengths(void **state)
{
	SpineFieldSpec spec = {.name = "a"};
	SpineDecoder *decoder = compile(&spec, 1);
	SpineRecord record = {.value = "[]", .value_len = 2};
	SpineEvent	event;
	char		reason[REASON_SIZE];

	(void) state;
	assert_int_equal(decode(decoder, NULL, 0, &event, reason), SPINE_NO_VALUE);
	assert_string_equal(reason, "tombstone");
	assert_int_equal(decode(decoder, "", 0, &event, reason), SPINE_MALFORMED);
	assert_string_equal(reason, "empty value");

	/* refused unread */
	assert_int_equal(decode(decoder, "{}", ((size_t) 1 << 30) + 1, &event, reason), SPINE_BEYOND_LIMIT);
	assert_string_equal(reason, "longer than 1 GB");
	assert_int_equal(decode(decoder, "{}", SIZE_MAX, &event, reason), SPINE_BEYOND_LIMIT);

	/* a reason is cut, not overrun */
	memset(reason, '#', sizeof(reason));
	assert_int_equal(spine_format_json.decode(decoder, &record, 0, &event, reason, 5), SPINE_MALFORMED);
	assert_memory_equal(reason, "not \0#", 6);
	spine_format_json.free(decoder);

	/* no fields asked for: still checked */
	assert_true(decode_exact("{}", 2, NULL, 0, NULL, reason));
	assert_true(decode_exact(BYTES("{\"a\":[1,{}],\"b\":\"\\n\"}"), NULL, 0, NULL, reason));
	assert_false(decode_exact("{]", 2, NULL, 0, NULL, reason));
}

static void
test_formats(void **state)
{
	(void) state;
	assert_ptr_equal(spine_format_find("json"), &spine_format_json);
	assert_string_equal(spine_format_json.name, "json");
	assert_null(spine_format_find(""));
	assert_null(spine_format_find("jso"));
	assert_null(spine_format_find("json2"));
	assert_null(spine_format_find("JSON"));
	spine_format_json.free(NULL);
}

/* The fields of every record of a batch last until the reset, whatever comes between. */
static void
test_batch(void **state)
{
	enum
	{
		NRECORDS = 3000
	};
	static const SpineFieldSpec specs[] = {{.name = "n"}, {.name = "text"}, {.name = "b"}, {.name = "none"}};
	static char texts[NRECORDS][80];
	static SpineRecord records[NRECORDS];
	static SpineEvent events[NRECORDS];
	SpineDecoder *decoder = compile(specs, 4);
	char		reason[REASON_SIZE];

	(void) state;
	for (int batch = 0; batch < 3; batch++)
	{
		for (int i = 0; i < NRECORDS; i++)
		{
			int			len = sprintf(texts[i], "{\"n\":%d,\"text\":\"\\u00e9%d\",\"b\":%s%s", i, i + batch,
									  i % 2 ? "true" : "false", i % 5 ? "}" : "");

			records[i] = (SpineRecord) {.value = texts[i], .value_len = (size_t) len};
			assert_int_equal(spine_format_json.decode(decoder, &records[i], SIZE_MAX, &events[i],
													  reason, sizeof(reason)),
							 i % 5 ? SPINE_DECODED : SPINE_MALFORMED);
		}
		for (int i = 0; i < NRECORDS; i++)
		{
			const SpineField *fields = events[i].fields;
			char		expected[20];

			if (i % 5 == 0)
				continue;
			assert_int_equal(events[i].operation, SPINE_OPERATION_UPSERT);
			assert_ptr_equal(events[i].record, &records[i]);
			assert_int_equal(fields[0].kind, SPINE_FIELD_NUMERIC);
			assert_int_equal(atoi(fields[0].text), i);
			sprintf(expected, "\xc3\xa9%d", i + batch);
			assert_int_equal(fields[1].kind, SPINE_FIELD_TEXT);
			assert_int_equal(fields[1].len, strlen(expected));
			assert_memory_equal(fields[1].text, expected, fields[1].len);
			assert_int_equal(fields[2].kind, SPINE_FIELD_BOOL);
			assert_int_equal(fields[2].boolean, i % 2);
			assert_int_equal(fields[3].kind, SPINE_FIELD_ABSENT);
		}
		spine_format_json.reset(decoder);
	}
	spine_format_json.free(decoder);
}

/* A reset gives back what a batch took, except for what a small batch needs again. */
static void
test_reset(void **state)
{
	static const SpineFieldSpec specs[] = {{.name = "a"}, {.name = "b"}};
	long		before = live_allocations;
	SpineDecoder *decoder = compile(specs, 2);
	const SpineField *first = NULL;
	SpineEvent	event;
	char		reason[REASON_SIZE];

	(void) state;
	for (int round = 0; round < 5; round++)
	{
		assert_int_equal(decode(decoder, BYTES("{\"a\":\"\\n\"}"), &event, reason), SPINE_DECODED);
		if (first)
			assert_ptr_equal(event.fields, first);
		first = event.fields;
		for (int i = 0; i < 10000 * round; i++)
			assert_int_equal(decode(decoder, BYTES("{\"a\":\"\\n\"}"), &event, reason), SPINE_DECODED);
		spine_format_json.reset(decoder);
		assert_int_equal(live_allocations - before, 2);
	}
	spine_format_json.free(decoder);
	assert_int_equal(live_allocations, before);
}

/* Whichever allocation fails, the outcome says so, and the decoder works on. */
static void
test_no_memory(void **state)
{
	static const SpineFieldSpec specs[] = {{.name = "a"}, {.name = "b", .as_json = true}};
	static char record[100000];
	SpineDecoder *decoder;
	SpineEvent	event;
	char		reason[REASON_SIZE];
	int			nallocations = 0;

	(void) state;
	allocations_left = 0;
	decoder = spine_format_json.compile(specs, 2);
	allocations_left = -1;
	assert_null(decoder);

	/* one for the fields, one for the string */
	memset(record, ' ', sizeof(record));
	memcpy(record, "{\"a\":\"\\n", 8);
	memcpy(record + sizeof(record) - 2, "\"}", 2);
	decoder = compile(specs, 2);
	for (;; nallocations++)
	{
		SpineDecodeOutcome outcome;

		allocations_left = nallocations;
		outcome = decode(decoder, record, sizeof(record), &event, reason);
		allocations_left = -1;
		if (outcome == SPINE_DECODED)
			break;
		assert_int_equal(outcome, SPINE_DECODE_NO_MEMORY);
		assert_string_equal(reason, "out of memory");

		/* begin again without memory */
		spine_format_json.free(decoder);
		decoder = compile(specs, 2);
	}
	assert_int_equal(nallocations, 2);
	assert_int_equal(event.fields[0].kind, SPINE_FIELD_TEXT);
	assert_int_equal(event.fields[0].len, sizeof(record) - 9);

	/* what a decoder has survives that it does not get more */
	allocations_left = 0;
	assert_int_equal(decode(decoder, record, sizeof(record), &event, reason), SPINE_DECODE_NO_MEMORY);
	assert_int_equal(decode(decoder, BYTES("{\"a\":1}"), &event, reason), SPINE_DECODED);
	assert_int_equal(decode(decoder, BYTES("{\"a\":1"), &event, reason), SPINE_MALFORMED);
	allocations_left = -1;
	spine_format_json.free(decoder);
}

/* One key asked for twice, both ways, beside others: all texts stay valid. */
static void
test_many_fields(void **state)
{
	SpineFieldSpec specs[] = {
		{.name = "s"}, {.name = "s", .as_json = true}, {.name = "n", .as_json = true}, {.name = "n"}, {.name = "o"},
		{.name = "o", .as_json = true}, {.name = ""}, {.name = "b"}, {.name = "none", .as_json = true}, {.name = "\xc3\xa9"}
	};
	static const char *const texts[] = {
		"x/y", "\"x\\/y\"", "12345678901234567890", "12345678901234567890",
		"{\"p\":[]}", "{\"p\":[]}", "empty", "", "", "1.50"
	};
	static const SpineFieldKind kinds[] = {
		SPINE_FIELD_TEXT, SPINE_FIELD_JSON, SPINE_FIELD_JSON, SPINE_FIELD_NUMERIC,
		SPINE_FIELD_JSON, SPINE_FIELD_JSON, SPINE_FIELD_TEXT, SPINE_FIELD_BOOL,
		SPINE_FIELD_ABSENT, SPINE_FIELD_NUMERIC
	};
	SpineField	fields[10];
	char		reason[REASON_SIZE];

	(void) state;
	assert_true(decode_exact(BYTES("{\"n\":12345678901234567890,\"s\":\"x\\/y\",\"\":\"empty\","
										   "\"o\":{\"p\":[]},\"b\":true,\"\\u00e9\":1.50}"),
							 specs, 10, fields, reason));
	for (int i = 0; i < 10; i++)
	{
		assert_int_equal(fields[i].kind, kinds[i]);
		assert_int_equal(fields[i].len, strlen(texts[i]));
		assert_memory_equal(fields[i].text, texts[i], fields[i].len);
	}
	assert_true(fields[7].boolean);
}

/* A record of n times `piece`, between two other strings. */
static char *
repeated(const char *before, const char *piece, size_t n, const char *after, size_t *len)
{
	size_t		piece_len = strlen(piece);
	char	   *record;
	char	   *end;

	*len = strlen(before) + n * piece_len + strlen(after);
	record = malloc(*len + 1);
	assert_non_null(record);
	end = stpcpy(record, before);
	for (size_t i = 0; i < n; i++)
		end = mempcpy(end, piece, piece_len);
	strcpy(end, after);
	return record;
}

/* The outcome for a record of n times `piece` within its array or object a. */
static SpineDecodeOutcome
outcome_of(const char *before, const char *piece, size_t n, const char *after,
		   size_t max_memory, char *reason)
{
	SpineFieldSpec spec = {.name = "a", .as_json = true, .for_jsonb = true};
	SpineField	field;
	size_t		len;
	char	   *record = repeated(before, piece, n, after, &len);
	SpineDecodeOutcome outcome = decode_limited(record, len, &spec, 1, max_memory, &field, reason);

	free(record);
	return outcome;
}

static SpineDecodeOutcome
outcome_of_depth(const char *opening, const char *closing, size_t levels, char *reason)
{
	size_t		len;
	char	   *end = repeated("0", closing, levels - 1, "}", &len);
	SpineDecodeOutcome outcome = outcome_of("{\"a\":", opening, levels - 1, end, SIZE_MAX, reason);

	free(end);
	return outcome;
}

/* 512 levels are fine, more are refused, and a million cost nothing. */
static void
test_depth(void **state)
{
	char		reason[REASON_SIZE];

	(void) state;
	assert_int_equal(outcome_of_depth("[", "]", 512, reason), SPINE_DECODED);
	assert_int_equal(outcome_of_depth("{\"b\":", "}", 512, reason), SPINE_DECODED);
	assert_int_equal(outcome_of_depth("[", "]", 513, reason), SPINE_BEYOND_LIMIT);
	assert_string_equal(reason, "nested deeper than 512 levels at byte 517");
	assert_int_equal(outcome_of_depth("{\"b\":", "}", 513, reason), SPINE_BEYOND_LIMIT);
	assert_int_equal(outcome_of_depth("[", "]", 1000000, reason), SPINE_BEYOND_LIMIT);
	assert_int_equal(outcome_of("{\"a\":", "[", 1000000, "", SIZE_MAX, reason), SPINE_BEYOND_LIMIT);
	assert_int_equal(outcome_of("", "{\"a\":", 1000000, "", SIZE_MAX, reason), SPINE_BEYOND_LIMIT);
}

/* Records of 16 MB. */
static const struct
{
	const char *before;
	const char *piece;
	const char *after;
}			shapes[] = {
	{"{\"a\":[{}", ",{}", "]}"},
	{"{\"a\":[[]", ",[]", "]}"},
	{"{\"a\":[[[[[[[[[]]]]]]]]", ",[[[[[[[[]]]]]]]]", "]}"},
	{"{\"a\":[1", ",1", "]}"},
	{"{\"a\":[\"\"", ",\"\"", "]}"},
	{"{\"a\":[null", ",null", "]}"},
	{"{\"a\":{\"\":1", ",\"\":1", "}}"},
	{"{\"a\":[{\"\":1}", ",{\"\":1}", "]}"},
	{"{\"a\":[\"\\u00e9\"", ",\"\\u00e9\"", "]}"},
	{"{\"a\":[12345678901234567890", ",12345678901234567890", "]}"},
	{"{\"a\":[1", ",1       ", "]}"},
	{"{\"\":1", ",\"\":1", "}"},
	{"{\"a\":1", ",\"\\u0061\":1", "}"},
	{"{\"a\":\"", "x", "\"}"},
	{"{\"a\":\"", "\\n", "\"}"},
	{"{\"a\":\"", "\\ud83d\\ude00", "\"}"},
	{"{\"a\":\"", "\xf0\x9f\x98\x80", "\"}"},
	{"{\"a\":", "1", "}"},
	{"{\"a\":1", " ", "}"},
};

#define NSHAPES		(sizeof(shapes) / sizeof(shapes[0]))
#define SHAPE_BYTES	(16 * 1024 * 1024)

static char *
make_shape(size_t i, size_t *len)
{
	return repeated(shapes[i].before, shapes[i].piece, SHAPE_BYTES / strlen(shapes[i].piece),
					shapes[i].after, len);
}

/* Bytes that are mapped, as RLIMIT_DATA counts them. */
static size_t
mapped_bytes(void)
{
	char		status[4096];
	FILE	   *file = fopen("/proc/self/status", "r");
	size_t		len;
	const char *line;

	assert_non_null(file);
	len = fread(status, 1, sizeof(status) - 1, file);
	fclose(file);
	status[len] = '\0';
	line = strstr(status, "\nVmData:");
	assert_non_null(line);
	return strtoul(line + strlen("\nVmData:"), NULL, 10) * 1024;
}

/*
 * Whatever the shape, decoding takes no memory except for a string with escapes, and then
 * no more than the string's own length, until the reset.  The sanitizers need theirs.
 */
static void
test_memory(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
	skip();
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
	skip();
#endif
#endif
	(void) state;

	/* a large piece is mapped by itself, so that a free gives it back */
	mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
	for (size_t i = 0; i < NSHAPES; i++)
	{
		SpineFieldSpec specs[] = {{.name = "a"}, {.name = "a", .as_json = true, .for_jsonb = true}};
		SpineDecoder *decoder = compile(specs, 2);
		SpineEvent	event;
		char		reason[REASON_SIZE];
		size_t		len;
		char	   *record = make_shape(i, &len);
		size_t		allowed = shapes[i].piece[0] == '\\' ? len : 0;
		size_t		mapped;
		struct rlimit unlimited;
		struct rlimit limited;
		struct rusage before;
		struct rusage after;
		SpineDecodeOutcome outcome;

		/* what a decoder has anyway */
		assert_int_equal(decode(decoder, BYTES("{}"), &event, reason), SPINE_DECODED);
		spine_format_json.reset(decoder);
		mapped = mapped_bytes();

		/* no byte more may be mapped, and no page touched except for a few of the stack */
		assert_int_equal(getrlimit(RLIMIT_DATA, &unlimited), 0);
		limited = unlimited;
		limited.rlim_cur = allowed > 0 ? mapped + allowed + 4096 : 0;
		assert_int_equal(setrlimit(RLIMIT_DATA, &limited), 0);
		assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
		outcome = decode(decoder, record, len, &event, reason);
		assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
		assert_int_equal(setrlimit(RLIMIT_DATA, &unlimited), 0);

		if (outcome != SPINE_DECODED)
			fail_msg("%s%s...: %s", shapes[i].before, shapes[i].piece, reason);
		if (after.ru_minflt - before.ru_minflt > 16 + (long) (allowed / 4096))
			fail_msg("%s%s...: %ld pages were touched", shapes[i].before, shapes[i].piece,
					 after.ru_minflt - before.ru_minflt);
		if (allowed > 0)
			assert_true(mapped_bytes() > mapped + allowed / 2);
		spine_format_json.reset(decoder);
		assert_true(mapped_bytes() <= mapped);
		spine_format_json.free(decoder);
		free(record);
	}
}

/* What jsonb would take is counted, and only where jsonb is made. */
static void
test_memory_limit(void **state)
{
	SpineFieldSpec text[] = {{.name = "a"}, {.name = "b", .as_json = true, .for_jsonb = true}};
	SpineField	fields[2];
	char		reason[REASON_SIZE];
	size_t		len;
	char	   *record;
	size_t		limit = 96 << 20;

	(void) state;
	for (size_t i = 0; i < 10; i++)
	{
		SpineDecodeOutcome outcome;

		record = make_shape(i, &len);
		assert_int_equal(decode_limited(record, len, text, 2, 1024, fields, reason), SPINE_DECODED);
		text[0] = (SpineFieldSpec) {.name = "a", .as_json = true, .for_jsonb = true};
		outcome = decode_limited(record, len, text, 2, limit, fields, reason);
		if (outcome != SPINE_BEYOND_LIMIT)
			fail_msg("%s%s... is taken", shapes[i].before, shapes[i].piece);
		assert_non_null(strstr(reason, "spine.max_record_memory"));
		text[0] = (SpineFieldSpec) {.name = "a"};
		free(record);
	}

	/* what a producer of large records writes */
	assert_int_equal(outcome_of("{\"a\":[0", ",{\"id\":12345,\"name\":\"a name\",\"tags\":[\"x\",\"y\"]}", 20000,
								"]}", limit, reason), SPINE_DECODED);
	assert_int_equal(outcome_of("{\"a\":\"", "text ", 3000000, "\"}", limit, reason), SPINE_DECODED);

	/* of a text by itself */
	assert_true(spine_json_memory("[{},{}]", 7) > spine_json_memory("[{}]", 4));
	assert_true(spine_json_memory("[{},{}", 6) > spine_json_memory("[{}]", 4));
	assert_true(spine_json_memory("", 0) < 1000);
	record = repeated("", "[", 600, "", &len);
	assert_true(spine_json_memory(record, len) == SIZE_MAX);
	free(record);

	/* of two fields, the sum */
	text[0].for_jsonb = true;
	assert_int_equal(decode_limited(BYTES("{\"a\":[1,1],\"b\":[[],{},\"x\"]}"), text, 2, 4000, fields, reason),
					 SPINE_DECODED);
	assert_int_equal(decode_limited(BYTES("{\"a\":[1,1],\"b\":[[],{},\"x\"]}"), text, 2, 1500, fields, reason),
					 SPINE_BEYOND_LIMIT);
	assert_int_equal(decode_limited(BYTES("{\"a\":[1,1],\"c\":[[],{},\"x\"]}"), text, 2, 1500, fields, reason),
					 SPINE_DECODED);
}

static void
test_large_records(void **state)
{
	SpineFieldSpec specs[] = {{.name = "a"}, {.name = "a", .as_json = true}};
	SpineField	fields[2];
	char		reason[REASON_SIZE];
	size_t		n = 3000000;
	size_t		len;
	char	   *record;

	(void) state;

	/* one long string */
	record = repeated("{\"a\":\"", "x\\u0000", n, "\"}", &len);
	assert_true(decode_exact(record, len, specs, 2, fields, reason));
	assert_int_equal(fields[0].len, 2 * n);
	assert_int_equal(fields[1].len, 7 * n + 2);
	free(record);

	/* one long number */
	record = repeated("{\"a\":-", "9", n, "}", &len);
	assert_true(decode_exact(record, len, specs, 2, fields, reason));
	assert_int_equal(fields[0].kind, SPINE_FIELD_NUMERIC);
	assert_int_equal(fields[0].len, n + 1);
	assert_memory_equal(fields[0].text, record + 5, n + 1);
	free(record);

	/* many keys, the last one counts */
	record = repeated("{", "\"a\":12345678901234567890,", 100000, "\"a\":\"last\"}", &len);
	assert_true(decode_exact(record, len, specs, 1, fields, reason));
	assert_memory_equal(fields[0].text, "last", 4);
	free(record);
}

/* As many specs as will do, in no order, met by keys in another one, some with escapes. */
static void
test_many_keys(void **state)
{
	SpineFieldSpec specs[MAX_SPECS];
	SpineField	fields[MAX_SPECS];
	char		names[MAX_SPECS][16];
	char		record[MAX_SPECS * 40] = "{\"\":0";
	char		reason[REASON_SIZE];

	(void) state;
	for (int i = 0; i < MAX_SPECS; i++)
	{
		/* prefixes of each other, and some twice */
		sprintf(names[i], "%.*s%d", i % 3, "\xc3\xa9", i * 37 % 50);
		if (i % 3 == 1)
			names[i][0] = 'c';
		specs[i] = (SpineFieldSpec) {.name = names[i], .as_json = i % 2};
	}
	for (int i = 0; i < 50; i++)
		sprintf(record + strlen(record), ",\"%d\":%d,\"\\u0063%d\":%d,\"\\u00e9%d\":%d,\"\xc3\xa9x%d\":9,\"\\n%d\":9",
				49 - i, 49 - i, i, 100 + i, i, 200 + i, i, i);
	strcat(record, "}");
	assert_true(decode_exact(record, strlen(record), specs, MAX_SPECS, fields, reason));
	for (int i = 0; i < MAX_SPECS; i++)
	{
		char		expected[16];

		sprintf(expected, "%d", i % 3 * 100 + i * 37 % 50);
		if (fields[i].len != strlen(expected) || memcmp(fields[i].text, expected, fields[i].len) != 0)
			fail_msg("%s: got %.*s, expected %s", names[i], (int) fields[i].len, fields[i].text, expected);
	}
}

/*
 * Every way to go on from every beginning of an object, against a grammar
 * written down independently: our idea of which token may follow which is that of
 * RFC 8259.
 */
#define MAX_TOKENS	11

typedef struct Tokens
{
	const char *at;
	const char *end;
	bool		ran_out;		/* it could go on validly */
} Tokens;

static bool
next_is(Tokens *tokens, char token)
{
	if (tokens->at == tokens->end)
		tokens->ran_out = true;
	if (tokens->ran_out || *tokens->at != token)
		return false;
	tokens->at++;
	return true;
}

static bool is_value(Tokens *tokens);

static bool
is_object_rest(Tokens *tokens)
{
	if (next_is(tokens, '}'))
		return true;
	do
	{
		if (!next_is(tokens, 's') || !next_is(tokens, ':') || !is_value(tokens))
			return false;
	} while (next_is(tokens, ','));
	return next_is(tokens, '}');
}

static bool
is_array_rest(Tokens *tokens)
{
	if (next_is(tokens, ']'))
		return true;
	do
	{
		if (!is_value(tokens))
			return false;
	} while (next_is(tokens, ','));
	return next_is(tokens, ']');
}

static bool
is_value(Tokens *tokens)
{
	if (next_is(tokens, '{'))
		return is_object_rest(tokens);
	if (next_is(tokens, '['))
		return is_array_rest(tokens);
	return next_is(tokens, 's') || next_is(tokens, '1') || next_is(tokens, 't');
}

typedef struct Walk
{
	char		tokens[MAX_TOKENS + 1];
	char		json[MAX_TOKENS * 24];
	int			taken;
	int			refused;
} Walk;

static void
walk_structures(Walk *walk, int ntokens, size_t len)
{
	static const char alphabet[] = "{}[],:s1t";
	static const char *const spelling[] = {
		"{", "}", "[", "]", ",", ":", "\"s\"", " 12345678901234567890", " null "
	};

	for (size_t i = 0; i < sizeof(alphabet) - 1; i++)
	{
		SpineFieldSpec spec = {.name = "s", .as_json = true};
		SpineField	field;
		char		reason[REASON_SIZE] = "";
		size_t		new_len = stpcpy(walk->json + len, spelling[i]) - walk->json;
		Tokens		tokens = {walk->tokens + 1, walk->tokens + ntokens + 1, false};
		bool		valid;
		bool		taken;

		walk->tokens[ntokens] = alphabet[i];
		valid = is_object_rest(&tokens) && tokens.at == tokens.end;
		taken = decode_exact(walk->json, new_len, &spec, 1, &field, reason);
		if (taken != valid ||
			tokens.ran_out != (strcmp(reason, "JSON without an end") == 0))
			fail_msg("%.*s: %s", (int) new_len, walk->json, taken ? "taken" : reason);
		walk->taken += taken;
		walk->refused += !taken;
		if ((taken || tokens.ran_out) && ntokens + 1 < MAX_TOKENS)
			walk_structures(walk, ntokens + 1, new_len);
	}
}

static void
test_every_short_structure(void **state)
{
	Walk		walk = {.tokens = "{", .json = "{"};

	(void) state;
	walk_structures(&walk, 1, 1);
	print_message("%d structures taken, %d refused\n", walk.taken, walk.refused);
	assert_true(walk.taken > 100 && walk.refused > 10000);
}

/* Every byte, in a string and outside of one, alone and after an escape. */
static void
test_every_byte(void **state)
{
	SpineFieldSpec spec = {.name = "a"};
	SpineField	field;
	char		reason[REASON_SIZE];

	(void) state;
	for (int c = 0; c < 256; c++)
	{
		char		in_string[] = "{\"a\":\"?\"}";
		char		escaped[] = "{\"a\":\"\\?\"}";
		char		outside[] = "{?}";
		char		value[] = "{\"a\":?}";

		in_string[6] = (char) c;
		assert_int_equal(decode_exact(BYTES(in_string), &spec, 1, &field, reason),
						 c >= 0x20 && c < 0x80 && c != '"' && c != '\\');
		escaped[7] = (char) c;
		assert_int_equal(decode_exact(BYTES(escaped), &spec, 1, &field, reason),
						 c != '\0' && strchr("\"\\/bfnrt", c) != NULL);
		outside[1] = (char) c;
		assert_int_equal(decode_exact(BYTES(outside), &spec, 1, &field, reason),
						 c != '\0' && strchr(" \t\n\r", c) != NULL);
		value[5] = (char) c;
		assert_int_equal(decode_exact(BYTES(value), &spec, 1, &field, reason),
						 c >= '0' && c <= '9');
	}
}

/* Every \uXXXX alone: all but the surrogates stand for themselves. */
static void
test_every_escaped_unit(void **state)
{
	SpineFieldSpec spec = {.name = "a"};
	SpineField	field;
	char		reason[REASON_SIZE];

	(void) state;
	for (unsigned unit = 0; unit <= 0xFFFF; unit++)
	{
		char		json[32];
		bool		surrogate = unit >= 0xD800 && unit <= 0xDFFF;
		unsigned char utf8[3] = {0xE0 | unit >> 12, 0x80 | (unit >> 6 & 0x3F), 0x80 | (unit & 0x3F)};
		int			len = unit < 0x80 ? 1 : unit < 0x800 ? 2 : 3;

		if (len == 1)
			utf8[2] = unit;
		if (len == 2)
			utf8[1] = 0xC0 | unit >> 6;
		sprintf(json, unit % 2 ? "{\"a\":\"\\u%04x\"}" : "{\"a\":\"\\u%04X\"}", unit);
		assert_int_equal(decode_exact(json, strlen(json), &spec, 1, &field, reason), !surrogate);
		if (surrogate)
			continue;
		assert_int_equal(field.len, len);
		assert_memory_equal(field.text, utf8 + 3 - len, len);
	}
}

/* Every pair of escaped halves, in steps: the character that they make. */
static void
test_every_surrogate_pair(void **state)
{
	SpineFieldSpec spec = {.name = "a"};
	SpineField	field;
	char		reason[REASON_SIZE];

	(void) state;
	for (unsigned code = 0x10000; code <= 0x10FFFF; code += code % 0x400 == 0x3FF ? 1 : 0x1F)
	{
		char		json[32];
		unsigned char utf8[4] = {0xF0 | code >> 18, 0x80 | (code >> 12 & 0x3F), 0x80 | (code >> 6 & 0x3F),
		0x80 | (code & 0x3F)};

		sprintf(json, "{\"a\":\"\\u%04x\\u%04x\"}", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + (code & 0x3FF));
		assert_true(decode_exact(json, strlen(json), &spec, 1, &field, reason));
		assert_int_equal(field.len, 4);
		assert_memory_equal(field.text, utf8, 4);
	}
}

static int
free_last(void **state)
{
	(void) state;
	free(last_record);
	spine_format_json.free(last_decoder);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_records),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_truncated_records),
		cmocka_unit_test(test_tombstone_and_lengths),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_many_fields),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_memory_limit),
		cmocka_unit_test(test_large_records),
		cmocka_unit_test(test_every_short_structure),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_every_escaped_unit),
		cmocka_unit_test(test_every_surrogate_pair),
	};

	return cmocka_run_group_tests_name("format_json", tests, NULL, free_last);
}

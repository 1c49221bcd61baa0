/*
 * test_json_reader.c
 *		What is JSON is read exactly, and nothing else is taken for JSON.
 *
 * What would break this: taking what is not JSON (NaN, lone surrogates, overlong UTF-8,
 * -01, control characters, 'quotes'), losing what is (integers beyond 64 bits, decimals,
 * escapes), reading past the end of the text, or a different idea than RFC 8259 of which
 * token may follow which.
 *
 * Reads through format_json, so that every case shows what becomes of a record.
 */
#include "decoding.h"

static void
expect_field(const char *json, size_t len, bool as_json,
			 SpineFieldKind kind, const char *text, size_t text_len)
{
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a"), .as_json = as_json};
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

/* What the key a decodes to when it is not wanted as JSON. */
static const GoodCase plain_cases[] = {
	{BYTES("{}"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES(" \t\r\n{ \t\r\n} \t\r\n"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES("{\"b\":1}"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES("{\"A\":1,\"\":2,\"aa\":3,\"b\":{\"a\":4}}"), SPINE_FIELD_ABSENT, BYTES("")},
	{BYTES("{\"a\":null}"), SPINE_FIELD_NULL, BYTES("")},
	{BYTES("{\"a\":true}"), SPINE_FIELD_BOOL, BYTES("true")},
	{BYTES("{\"a\":false}"), SPINE_FIELD_BOOL, BYTES("false")},
	{BYTES("{ \"a\" : 1 , \"b\" : [ 1 , { } , [ ] ] }"), SPINE_FIELD_NUMERIC, BYTES("1")},

	/* the key may be spelled with escapes; the last of two equal keys counts */
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

	/* a huge integer in an unknown key is no reason to refuse the record */
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

	/* the first and the last sequence of each length, and those around the surrogates */
	{BYTES("{\"a\":\"\xc2\x80\xdf\xbf\"}"), SPINE_FIELD_TEXT, BYTES("\xc2\x80\xdf\xbf")},
	{BYTES("{\"a\":\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"}"), SPINE_FIELD_TEXT,
	 BYTES("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf")},
	{BYTES("{\"a\":\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}"), SPINE_FIELD_TEXT,
	 BYTES("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},

	/* objects and arrays are JSON anyway */
	{BYTES("{\"a\":{}}"), SPINE_FIELD_JSON, BYTES("{}")},
	{BYTES("{\"a\":[ ]}"), SPINE_FIELD_JSON, BYTES("[ ]")},
	{BYTES("{\"a\": [1, \"\\/\", null, -0 ] }"), SPINE_FIELD_JSON, BYTES("[1, \"\\/\", null, -0 ]")},
};

/* What the key decodes to when it is wanted as JSON. */
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
	const char *reason;			/* the beginning of the reason */
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

	/* a key that other readers would cut, at the top or further down */
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
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a")};
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

/* A good record is bad wherever it is cut off. */
static void
test_truncated_records(void **state)
{
	static const char record[] =
		"{\"a\":[1,-2.5e+3,12345678901234567890,true,null],"
		"\"b\\u00e9\":{\"c\":\"\\ud83d\\ude00\xf0\x9f\x98\x80\"}}";
	static const char flat[] =
		" { \"b\" : -12 , \"n\":null,\"t\":true,\"f\":false,\"\":0, \"a\":\"\xf0\x9f\x98\x80\xc3\xa9\xe2\x82\xac\" }";
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a"), .as_json = true};
	SpineFieldSpec flat_spec = {.path = SPINE_PATH_TO_KEY("a")};
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

/*
 * Every beginning of an object, and every way to continue it, compared with a grammar that
 * is written down independently: which token may follow which is as in RFC 8259.
 */
#define MAX_TOKENS	11

typedef struct Tokens
{
	const char *at;
	const char *end;
	bool		ran_out;		/* a valid object may begin like this */
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
		SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("s"), .as_json = true};
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

/* Every byte: in a string, after a backslash, where a key belongs, where a value belongs. */
static void
test_every_byte(void **state)
{
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a")};
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

/* Every \uXXXX alone: all except the surrogates stand for a character. */
static void
test_every_escaped_unit(void **state)
{
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a")};
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

/* Pairs of escaped surrogates, all over their range. */
static void
test_every_surrogate_pair(void **state)
{
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a")};
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_records),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_truncated_records),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_every_short_structure),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_every_escaped_unit),
		cmocka_unit_test(test_every_surrogate_pair),
	};

	return cmocka_run_group_tests_name("json_reader", tests, NULL, free_last);
}

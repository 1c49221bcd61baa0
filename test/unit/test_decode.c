/*
 * test_decode.c
 *		Any bytes end in exact fields or in a reason.
 *
 * What would break this: leaving to json-c what it is lax about (NaN, lone
 * surrogates, overlong UTF-8, -01, control characters, 'quotes'), letting it
 * lose what it cannot hold (integers beyond 64 bits, doubles as binary, keys
 * with \u0000), a scan that reads past the end of the record, a decoder that
 * carries something over from one record to the next, a json-c that is no
 * longer strict about which token may follow which, or a short cut for flat records
 * that takes one which is not, or takes it otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "decode.h"
#include "flat_json.h"

#define REASON_SIZE	200

/* A literal and its length, NUL bytes inside counted. */
#define BYTES(literal)	literal, sizeof(literal) - 1

static int
setup(void **state)
{
	*state = spine_decoder_create();
	return *state == NULL;
}

static int
teardown(void **state)
{
	spine_decoder_destroy(*state);
	return 0;
}

/* What the short cut takes, spine_decode takes, too, and in the same way. */
static bool
check_flat(const char *bytes, size_t len, const SpineFieldSpec *specs, int nspecs,
		   bool decoded, const SpineField *fields)
{
	SpineField	flat[20];

	assert_true(nspecs <= 20);
	if (!spine_flat_json(bytes, len, specs, nspecs, flat))
		return false;
	if (!decoded)
		fail_msg("%.*s: taken for flat", (int) len, bytes);
	for (int i = 0; i < nspecs; i++)
	{
		if (flat[i].kind != fields[i].kind || flat[i].len != fields[i].len ||
			memcmp(flat[i].text, fields[i].text, flat[i].len) != 0)
			fail_msg("%.*s: field %d is \"%.*s\", and flat \"%.*s\"", (int) len, bytes, i,
					 (int) fields[i].len, fields[i].text, (int) flat[i].len, flat[i].text);
	}
	return true;
}

/*
 * Decodes from memory of exactly the right size, so that the sanitizers see a
 * read past the end.
 */
static bool
decode_exact(SpineDecoder *decoder, const char *bytes, size_t len,
			 const SpineFieldSpec *specs, int nspecs, SpineField *fields,
			 char *reason)
{
	char	   *copy = malloc(len > 0 ? len : 1);
	bool		ok;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	reason[0] = '\0';
	ok = spine_decode(decoder, copy, len, specs, nspecs, fields, reason, REASON_SIZE);
	(void) check_flat(copy, len, specs, nspecs, ok, fields);

	/* the fields must not lean on the record's bytes */
	memset(copy, '#', len);
	free(copy);
	if (ok)
		assert_string_equal(reason, "");
	else
		assert_string_not_equal(reason, "");
	return ok;
}

static void
expect_field(SpineDecoder *decoder, const char *json, size_t len, bool as_json,
			 SpineFieldKind kind, const char *text, size_t text_len)
{
	SpineFieldSpec spec = {"a", as_json};
	SpineField	field;
	char		reason[REASON_SIZE];

	if (!decode_exact(decoder, json, len, &spec, 1, &field, reason))
		fail_msg("%s: %s", json, reason);
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
	{BYTES("{}"), SPINE_FIELD_MISSING, BYTES("")},
	{BYTES(" \t\r\n{ \t\r\n} \t\r\n"), SPINE_FIELD_MISSING, BYTES("")},
	{BYTES("{\"b\":1}"), SPINE_FIELD_MISSING, BYTES("")},
	{BYTES("{\"A\":1,\"\":2,\"aa\":3,\"b\":{\"a\":4}}"), SPINE_FIELD_MISSING, BYTES("")},
	{BYTES("{\"a\":null}"), SPINE_FIELD_NULL, BYTES("")},
	{BYTES("{\"a\":true}"), SPINE_FIELD_BOOLEAN, BYTES("true")},
	{BYTES("{\"a\":false}"), SPINE_FIELD_BOOLEAN, BYTES("false")},
	{BYTES("{ \"a\" : 1 , \"b\" : [ 1 , { } , [ ] ] }"), SPINE_FIELD_NUMBER, BYTES("1")},

	/* the key itself may be written with escapes; the last of two counts */
	{BYTES("{\"\\u0061\":1}"), SPINE_FIELD_NUMBER, BYTES("1")},
	{BYTES("{\"a\":1,\"a\":2}"), SPINE_FIELD_NUMBER, BYTES("2")},
	{BYTES("{\"a\":1,\"\\u0061\":null}"), SPINE_FIELD_NULL, BYTES("")},

	/* numbers keep their value whatever their size */
	{BYTES("{\"a\":0}"), SPINE_FIELD_NUMBER, BYTES("0")},
	{BYTES("{\"a\":-0}"), SPINE_FIELD_NUMBER, BYTES("0")},
	{BYTES("{\"a\":-0.0}"), SPINE_FIELD_NUMBER, BYTES("-0.0")},
	{BYTES("{\"a\":0.10}"), SPINE_FIELD_NUMBER, BYTES("0.10")},
	{BYTES("{\"a\":1e400}"), SPINE_FIELD_NUMBER, BYTES("1e400")},
	{BYTES("{\"a\":-1E-400}"), SPINE_FIELD_NUMBER, BYTES("-1E-400")},
	{BYTES("{\"a\":1.5e+3}"), SPINE_FIELD_NUMBER, BYTES("1.5e+3")},
	{BYTES("{\"a\":0e0}"), SPINE_FIELD_NUMBER, BYTES("0e0")},
	{BYTES("{\"a\":5e0}"), SPINE_FIELD_NUMBER, BYTES("5e0")},
	{BYTES("{\"a\":-0e0}"), SPINE_FIELD_NUMBER, BYTES("-0e0")},
	{BYTES("{\"a\":5e10}"), SPINE_FIELD_NUMBER, BYTES("5e10")},
	{BYTES("{\"a\":5e00}"), SPINE_FIELD_NUMBER, BYTES("5e00")},
	{BYTES("{\"a\":0.1000000000000000055511151231257827}"), SPINE_FIELD_NUMBER,
	BYTES("0.1000000000000000055511151231257827")},
	{BYTES("{\"a\":999999999999999999}"), SPINE_FIELD_NUMBER, BYTES("999999999999999999")},
	{BYTES("{\"a\":-999999999999999999}"), SPINE_FIELD_NUMBER, BYTES("-999999999999999999")},
	{BYTES("{\"a\":1000000000000000000}"), SPINE_FIELD_NUMBER, BYTES("1000000000000000000")},
	{BYTES("{\"a\":9223372036854775807}"), SPINE_FIELD_NUMBER, BYTES("9223372036854775807")},
	{BYTES("{\"a\":9223372036854775808}"), SPINE_FIELD_NUMBER, BYTES("9223372036854775808")},
	{BYTES("{\"a\":-9223372036854775808}"), SPINE_FIELD_NUMBER, BYTES("-9223372036854775808")},
	{BYTES("{\"a\":-9223372036854775809}"), SPINE_FIELD_NUMBER, BYTES("-9223372036854775809")},
	{BYTES("{\"a\":18446744073709551615}"), SPINE_FIELD_NUMBER, BYTES("18446744073709551615")},
	{BYTES("{\"a\":18446744073709551616}"), SPINE_FIELD_NUMBER, BYTES("18446744073709551616")},
	{BYTES("{\"a\":-18446744073709551616 }"), SPINE_FIELD_NUMBER, BYTES("-18446744073709551616")},
	{BYTES("{\"a\":123456789012345678901234567890123456789012345678901234567890}"), SPINE_FIELD_NUMBER,
	BYTES("123456789012345678901234567890123456789012345678901234567890")},
	{BYTES("{\"a\":12345678901234567890.5}"), SPINE_FIELD_NUMBER, BYTES("12345678901234567890.5")},
	{BYTES("{\"a\":12345678901234567890e5}"), SPINE_FIELD_NUMBER, BYTES("12345678901234567890e5")},

	/* an unknown key with a huge integer is no reason to refuse */
	{BYTES("{\"z\":123456789012345678901234567890,\"a\":7}"), SPINE_FIELD_NUMBER, BYTES("7")},
	{BYTES("{\"a\":\"12345678901234567890\",\"z\":12345678901234567890}"), SPINE_FIELD_STRING,
	BYTES("12345678901234567890")},
	{BYTES("{\"x\":11111111111111111111,\"a\":[22222222222222222222],\"a\":33333333333333333333,\"y\":-1}"),
	SPINE_FIELD_NUMBER, BYTES("33333333333333333333")},

	/* strings */
	{BYTES("{\"a\":\"\"}"), SPINE_FIELD_STRING, BYTES("")},
	{BYTES("{\"a\":\"NaN // 'x' /* 01 */ ,}\"}"), SPINE_FIELD_STRING, BYTES("NaN // 'x' /* 01 */ ,}")},
	{BYTES("{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}"), SPINE_FIELD_STRING, BYTES("\"\\/\b\f\n\r\t")},
	{BYTES("{\"a\":\"\x7f\"}"), SPINE_FIELD_STRING, BYTES("\x7f")},
	{BYTES("{\"a\":\"\\u00e9\\u20AC\\u0001\"}"), SPINE_FIELD_STRING, BYTES("\xc3\xa9\xe2\x82\xac\x01")},
	{BYTES("{\"a\":\"x\\u0000y\"}"), SPINE_FIELD_STRING, BYTES("x\0y")},
	{BYTES("{\"a\":\"\\u0000\"}"), SPINE_FIELD_STRING, BYTES("\0")},
	{BYTES("{\"a\":\"x\\u0000\",\"b\":[\"\\u0000\"],\"c\":{\"d\":\"\\u0000\"}}"), SPINE_FIELD_STRING, BYTES("x\0")},
	{BYTES("{\"b\":\"\\u0000\" , \"a\":1}"), SPINE_FIELD_NUMBER, BYTES("1")},
	{BYTES("{\"a\":\"\\ud83d\\ude00\"}"), SPINE_FIELD_STRING, BYTES("\xf0\x9f\x98\x80")},
	{BYTES("{\"a\":\"\\uD800\\uDC00\\uDBFF\\uDFFF\"}"), SPINE_FIELD_STRING,
	BYTES("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},
	{BYTES("{\"a\":\"\\ud7ff\\ue000\\uffff\"}"), SPINE_FIELD_STRING, BYTES("\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf")},
	{BYTES("{\"a\":\"\\\\ud800\"}"), SPINE_FIELD_STRING, BYTES("\\ud800")},

	/* the first and last sequence of each length, and around the surrogates */
	{BYTES("{\"a\":\"\xc2\x80\xdf\xbf\"}"), SPINE_FIELD_STRING, BYTES("\xc2\x80\xdf\xbf")},
	{BYTES("{\"a\":\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"}"), SPINE_FIELD_STRING,
	BYTES("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf")},
	{BYTES("{\"a\":\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}"), SPINE_FIELD_STRING,
	BYTES("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},

	/* objects and arrays come as JSON anyway */
	{BYTES("{\"a\":{}}"), SPINE_FIELD_JSON, BYTES("{}")},
	{BYTES("{\"a\":[ ]}"), SPINE_FIELD_JSON, BYTES("[]")},
	{BYTES("{\"a\":[1, \"/\", null, true]}"), SPINE_FIELD_JSON, BYTES("[1,\"/\",null,true]")},
};

/* The same when it is. */
static const GoodCase as_json_cases[] = {
	{BYTES("{}"), SPINE_FIELD_MISSING, BYTES("")},
	{BYTES("{\"a\":null}"), SPINE_FIELD_NULL, BYTES("")},
	{BYTES("{\"a\":false}"), SPINE_FIELD_JSON, BYTES("false")},
	{BYTES("{\"a\":0.10}"), SPINE_FIELD_JSON, BYTES("0.10")},
	{BYTES("{\"a\":12345678901234567890}"), SPINE_FIELD_JSON, BYTES("12345678901234567890")},
	{BYTES("{\"a\":\"x\"}"), SPINE_FIELD_JSON, BYTES("\"x\"")},
	{BYTES("{\"a\":\"\"}"), SPINE_FIELD_JSON, BYTES("\"\"")},
	{BYTES("{\"a\":\"5e0\"}"), SPINE_FIELD_JSON, BYTES("\"5e0\"")},
	{BYTES("{\"a\":\"\\u0000\\u001f\\\"\\\\\\/\\n\\ud83d\\ude00\"}"), SPINE_FIELD_JSON,
	BYTES("\"\\u0000\\u001f\\\"\\\\/\\n\xf0\x9f\x98\x80\"")},
	{BYTES("{\"a\":{\"b\":{\"b\":[\"x\\u0000y\",1e400,-0.0,0.10,{\"\":null}]}}}"), SPINE_FIELD_JSON,
	BYTES("{\"b\":{\"b\":[\"x\\u0000y\",1e400,-0.0,0.10,{\"\":null}]}}")},
	{BYTES("{\"a\":[18446744073709551616,-9223372036854775809,\"12345678901234567890\",1]}"), SPINE_FIELD_JSON,
	BYTES("[18446744073709551616e0,-9223372036854775809e0,\"12345678901234567890\",1]")},
	{BYTES("{\"a\":{\"k\":1,\"l\":2,\"k\":3}}"), SPINE_FIELD_JSON, BYTES("{\"k\":3,\"l\":2}")},
	{BYTES("{\"a\":{\"\xc3\xa9\\n\":1}}"), SPINE_FIELD_JSON, BYTES("{\"\xc3\xa9\\n\":1}")},
};

static void
test_good_records(void **state)
{
	for (size_t i = 0; i < sizeof(plain_cases) / sizeof(plain_cases[0]); i++)
	{
		const GoodCase *c = &plain_cases[i];

		expect_field(*state, c->json, c->len, false, c->kind, c->text, c->text_len);
	}
	for (size_t i = 0; i < sizeof(as_json_cases) / sizeof(as_json_cases[0]); i++)
	{
		const GoodCase *c = &as_json_cases[i];

		expect_field(*state, c->json, c->len, true, c->kind, c->text, c->text_len);
	}
}

/* Records that must take the short cut, and some that must not. */
static void
test_flat_records(void **state)
{
	static const char *const flat[] = {
		"{}", " {\n} ", "{\"a\":\"x\"}", "{\"a\":\"\"}", "{\"\":1}", "{\"a\":null,\"b\":true,\"c\":false}",
		"{\"a\":0}", "{\"a\":-1}", "{\"a\":123456789012345678}", "{\"a\":-123456789012345678}",
		"\t{ \"b\" : \"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f'/\" ,\r\n\"a\" : 5 , \"zz\":\"{[\" } ",
		"{\"c\":1,\"b\":2,\"a\":3,\"d\":4}", "{\"a\":1,\"a\":\"2\"}",
		"{\"event_id\":\"0b1c\",\"tenant\":\"acme\",\"amount_cents\":4999,\"event_time\":\"2026-01-02T03:04:05.678Z\"}",
	};
	static const char *const other[] = {
		"", " ", "{", "}", "[]", "1", "{}x", "{}{}", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{a:1}", "{1:1}",
		"{\"a\":\"\\n\"}", "{\"a\\u0062\":1}", "{\"a\":{}}", "{\"a\":[]}", "{\"a\":1.0}", "{\"a\":1e3}", "{\"a\":-0}", "{\"a\":01}", "{\"a\":-}", "{\"a\":+1}",
		"{\"a\":1234567890123456789}", "{\"a\":True}", "{\"a\":tru}", "{\"a\":nullx}", "{\"a\":\"\xff\"}", "{\"a\":\"\xc3\"}", "{\"a\":\"\t\"}", "{\"a\":\"x",
	};
	static const SpineFieldSpec specs[] = {{"a", false}, {"b", false}, {"c", false}};
	SpineFieldSpec as_json = {"z", true};
	SpineFieldSpec many[65];
	SpineField	many_fields[65];
	SpineField	fields[3];
	char		reason[REASON_SIZE];

	for (size_t i = 0; i < sizeof(flat) / sizeof(flat[0]); i++)
	{
		bool		ok = spine_decode(*state, flat[i], strlen(flat[i]), specs, 3, fields, reason, REASON_SIZE);

		if (!check_flat(flat[i], strlen(flat[i]), specs, 3, ok, fields))
			fail_msg("%s: not taken for flat", flat[i]);
		assert_false(spine_flat_json(flat[i], strlen(flat[i]), &as_json, 1, fields));
	}
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
	{
		if (spine_flat_json(other[i], strlen(other[i]), specs, 3, fields))
			fail_msg("%s: taken for flat", other[i]);
	}
	for (size_t len = 1 << 20; len <= (1 << 20) + 1; len++)
	{
		char	   *record = malloc(len);

		assert_non_null(record);
		memset(record, ' ', len);
		record[0] = '{';
		record[len - 1] = '}';
		assert_int_equal(spine_flat_json(record, len, specs, 3, fields), len == 1 << 20);
		free(record);
	}
	for (int i = 0; i < 65; i++)
		many[i] = specs[0];
	assert_false(spine_flat_json(NULL, 0, specs, 3, fields));
	assert_false(spine_flat_json("{}\0", 3, specs, 3, fields));
	assert_true(spine_flat_json("{}", 2, many, 64, many_fields));
	assert_false(spine_flat_json("{}", 2, many, 65, many_fields));
}

typedef struct BadCase
{
	const char *json;
	size_t		len;
	const char *reason;			/* begins so; NULL: in json-c's words */
} BadCase;

static const BadCase bad_cases[] = {
	{BYTES(""), "empty value"},
	{BYTES(" \n\t\r"), "nothing but white space at byte 5"},
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
	{BYTES("{a:1}"), "neither"},
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
	{BYTES("{\"a\":1_000}"), "unexpected byte at byte 7"},

	/* what other formats allow */
	{BYTES("{'a':1}"), "unexpected byte at byte 2"},
	{BYTES("{\"a\":'b'}"), "unexpected byte at byte 6"},
	{BYTES("/*c*/{}"), "not a JSON object"},
	{BYTES("{/*c*/}"), "unexpected byte at byte 2"},
	{BYTES("{}//x"), "unexpected byte at byte 3"},
	{BYTES("{}#x"), "unexpected byte at byte 3"},
	{BYTES("{}\0"), "unexpected byte at byte 3"},
	{BYTES("{\0}"), "unexpected byte at byte 2"},
	{BYTES("{\v}"), "unexpected byte at byte 2"},
	{BYTES("{\f}"), "unexpected byte at byte 2"},
	{BYTES("{\xc2\xa0}"), "unexpected byte at byte 2"},
	{BYTES("\v{}"), "not a JSON object"},
	{BYTES("{}\xef\xbb\xbf"), "unexpected byte at byte 3"},

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

	/* a key that json-c would cut short, here or further down */
	{BYTES("{\"a\\u0000b\":1,\"a\":2}"), "\\u0000 in a key at byte 12"},
	{BYTES("{\"a\":2,\"a\\u0000b\" \n:1}"), "\\u0000 in a key"},
	{BYTES("{\"\\u0000\":1}"), "\\u0000 in a key"},
	{BYTES("{\"a\":{\"\\u0000\":1}}"), "\\u0000 in a key"},

	/* structure: json-c's part */
	{BYTES("{"), "JSON without an end"},
	{BYTES("{\"a\":1"), "JSON without an end"},
	{BYTES("{\"a\":[{}"), "JSON without an end"},
	{BYTES("{\"a\":12345678901234567890"), "JSON without an end"},
	{BYTES("{\"a\":1,}"), NULL},
	{BYTES("{\"a\":[1,]}"), NULL},
	{BYTES("{\"a\":[,1]}"), NULL},
	{BYTES("{,}"), NULL},
	{BYTES("{}{}"), NULL},
	{BYTES("{} x"), "neither"},
	{BYTES("{}1"), NULL},
	{BYTES("{}}"), NULL},
	{BYTES("{}\n\n]"), NULL},
	{BYTES("{1:2}"), NULL},
	{BYTES("{\"a\":1 \"b\":2}"), NULL},
	{BYTES("{\"a\":[1 2]}"), NULL},
	{BYTES("{\"a\":[1}}"), NULL},
	{BYTES("{\"a\" 1}"), NULL},
	{BYTES("{\"a\":12345678901234567890,}"), NULL},
};

static void
test_bad_records(void **state)
{
	SpineFieldSpec spec = {"a", false};
	SpineField	field;
	char		reason[REASON_SIZE];

	for (size_t i = 0; i < sizeof(bad_cases) / sizeof(bad_cases[0]); i++)
	{
		const BadCase *c = &bad_cases[i];

		if (decode_exact(*state, c->json, c->len, &spec, 1, &field, reason))
			fail_msg("case %zu was taken: %s", i, c->json);
		if (c->reason != NULL && strncmp(reason, c->reason, strlen(c->reason)) != 0)
			fail_msg("%s: reason \"%s\", expected \"%s\"", c->json, reason, c->reason);

		/* nothing of it remains: the next record is decoded as if alone */
		expect_field(*state, BYTES("{\"a\":1}"), false, SPINE_FIELD_NUMBER, "1", 1);
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
	SpineFieldSpec spec = {"a", true};
	SpineFieldSpec flat_spec = {"a", false};
	SpineField	field;
	char		reason[REASON_SIZE];

	assert_true(decode_exact(*state, BYTES(record), &spec, 1, &field, reason));
	for (size_t len = 0; len < sizeof(record) - 1; len++)
		assert_false(decode_exact(*state, record, len, &spec, 1, &field, reason));

	assert_true(decode_exact(*state, BYTES(flat), &flat_spec, 1, &field, reason));
	for (size_t len = 0; len < sizeof(flat) - 1; len++)
		assert_false(decode_exact(*state, flat, len, &flat_spec, 1, &field, reason));
}

static void
test_tombstone_and_lengths(void **state)
{
	SpineFieldSpec spec = {"a", false};
	SpineField	field;
	char		reason[REASON_SIZE];

	assert_false(spine_decode(*state, NULL, 0, &spec, 1, &field, reason, sizeof(reason)));
	assert_string_equal(reason, "tombstone");
	assert_false(spine_decode(*state, "", 0, &spec, 1, &field, reason, sizeof(reason)));
	assert_string_equal(reason, "empty value");

	/* a reason is cut, not overrun */
	memset(reason, '#', sizeof(reason));
	assert_false(spine_decode(*state, "[]", 2, &spec, 1, &field, reason, 5));
	assert_memory_equal(reason, "not \0#", 6);

	/* no fields asked for: still checked */
	assert_true(spine_decode(*state, "{}", 2, NULL, 0, NULL, reason, sizeof(reason)));
	assert_false(spine_decode(*state, "{]", 2, NULL, 0, NULL, reason, sizeof(reason)));
}

/*
 * When there is no memory, that is not said of the record: it would become a
 * dead letter.  The sanitizers need the address space for themselves.
 */
static void
test_out_of_memory(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
	skip();
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
	skip();
#endif
#endif
	SpineFieldSpec spec = {"a", false};
	SpineField	field;
	char		reason[REASON_SIZE];
	size_t		len = 6 + 3 * 1000000;
	char	   *record = malloc(len);
	struct rlimit unlimited;
	struct rlimit limited;

	memcpy(record, "{\"a\":[", 6);
	for (size_t i = 6; i < len; i += 3)
		memcpy(record + i, "{},", 3);
	record[5] = '[';
	memcpy(record + len - 1, "]", 1);
	record = realloc(record, len + 1);
	record[len] = '}';

	assert_int_equal(getrlimit(RLIMIT_AS, &unlimited), 0);
	limited = unlimited;
	limited.rlim_cur = 256 * 1024 * 1024;
	assert_int_equal(setrlimit(RLIMIT_AS, &limited), 0);
	assert_false(spine_decode(*state, record, len + 1, &spec, 1, &field, reason, sizeof(reason)));
	assert_int_equal(setrlimit(RLIMIT_AS, &unlimited), 0);
	assert_string_equal(reason, "");

	/* the same record, when there is */
	assert_true(spine_decode(*state, record, len + 1, &spec, 1, &field, reason, sizeof(reason)));
	free(record);
}

/* One key asked for twice, both ways, beside others: all texts stay valid. */
static void
test_many_fields(void **state)
{
	SpineFieldSpec specs[] = {
		{"s", false}, {"s", true}, {"n", true}, {"n", false}, {"o", false},
		{"o", true}, {"", false}, {"b", false}, {"none", true}, {"\xc3\xa9", false}
	};
	static const char *const texts[] = {
		"x/y", "\"x/y\"", "12345678901234567890", "12345678901234567890",
		"{\"p\":[]}", "{\"p\":[]}", "empty", "true", "", "1.50"
	};
	static const SpineFieldKind kinds[] = {
		SPINE_FIELD_STRING, SPINE_FIELD_JSON, SPINE_FIELD_JSON, SPINE_FIELD_NUMBER,
		SPINE_FIELD_JSON, SPINE_FIELD_JSON, SPINE_FIELD_STRING, SPINE_FIELD_BOOLEAN,
		SPINE_FIELD_MISSING, SPINE_FIELD_NUMBER
	};
	SpineField	fields[10];
	char		reason[REASON_SIZE];

	assert_true(decode_exact(*state, BYTES("{\"n\":12345678901234567890,\"s\":\"x\\/y\",\"\":\"empty\","
										   "\"o\":{\"p\":[]},\"b\":true,\"\\u00e9\":1.50}"),
							 specs, 10, fields, reason));
	for (int i = 0; i < 10; i++)
	{
		assert_int_equal(fields[i].kind, kinds[i]);
		assert_int_equal(fields[i].len, strlen(texts[i]));
		assert_memory_equal(fields[i].text, texts[i], fields[i].len);
	}
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

static bool
takes_repeated(SpineDecoder *decoder, const char *before, const char *piece, size_t n,
			   const char *after, char *reason)
{
	SpineFieldSpec spec = {"a", true};
	SpineField	field;
	size_t		len;
	char	   *record = repeated(before, piece, n, after, &len);
	bool		taken = decode_exact(decoder, record, len, &spec, 1, &field, reason);

	free(record);
	return taken;
}

static void
test_bombs(void **state)
{
	char		reason[REASON_SIZE];
	char	   *closing;
	size_t		len;

	/* deep: 500 levels are fine, more are refused, and a million cost nothing */
	closing = repeated("0", "]", 500, "}", &len);
	assert_true(takes_repeated(*state, "{\"a\":", "[", 500, closing, reason));
	free(closing);
	closing = repeated("0", "]", 600, "}", &len);
	assert_false(takes_repeated(*state, "{\"a\":", "[", 600, closing, reason));
	assert_non_null(strstr(reason, "deep"));
	free(closing);
	assert_false(takes_repeated(*state, "{\"a\":", "[", 1000000, "", reason));
	assert_false(takes_repeated(*state, "", "{\"a\":", 1000000, "", reason));

	/* wide: a tree far larger than the record is not built */
	assert_true(takes_repeated(*state, "{\"a\":[{}", ",{}", 10000, "]}", reason));
	assert_false(takes_repeated(*state, "{\"a\":[{}", ",{}", 1500000, "]}", reason));
	assert_non_null(strstr(reason, "too many values"));
	assert_false(takes_repeated(*state, "{\"a\":[[]", ",[]", 7000000, "]}", reason));
	assert_non_null(strstr(reason, "too many values"));
	assert_false(takes_repeated(*state, "{\"a\":[1", ",1", 11000000, "]}", reason));
	assert_non_null(strstr(reason, "too many values"));
	assert_false(takes_repeated(*state, "{\"a\":[\"\"", ",\"\"", 11000000, "]}", reason));
	assert_non_null(strstr(reason, "too many values"));
}

static void
test_large_records(void **state)
{
	SpineFieldSpec specs[] = {{"a", false}, {"a", true}};
	SpineField	fields[2];
	char		reason[REASON_SIZE];
	size_t		n = 3000000;
	size_t		len;
	char	   *record;

	/* one long string */
	record = repeated("{\"a\":\"", "x\\u0000", n, "\"}", &len);
	assert_true(decode_exact(*state, record, len, specs, 2, fields, reason));
	assert_int_equal(fields[0].len, 2 * n);
	assert_int_equal(fields[1].len, 7 * n + 2);
	free(record);

	/* one long number */
	record = repeated("{\"a\":-", "9", n, "}", &len);
	assert_true(decode_exact(*state, record, len, specs, 2, fields, reason));
	assert_int_equal(fields[0].kind, SPINE_FIELD_NUMBER);
	assert_int_equal(fields[0].len, n + 1);
	assert_memory_equal(fields[0].text, record + 5, n + 1);
	free(record);

	/* many long integers, at the densest: the copy must have room for all */
	record = repeated("{\"a\":[1234567890123456789", ",1234567890123456789", 10000, "]}", &len);
	assert_true(decode_exact(*state, record, len, specs, 2, fields, reason));
	assert_int_equal(fields[1].len, 10001 * (19 + 2 + 1) - 1 + 2);
	free(record);

	/* many keys, the last one counts */
	record = repeated("{", "\"a\":12345678901234567890,", 100000, "\"a\":\"last\"}", &len);
	assert_true(decode_exact(*state, record, len, specs, 1, fields, reason));
	assert_memory_equal(fields[0].text, "last", 4);
	free(record);
}

/* Refused unread: json-c counts in int. */
static void
test_longer_than_int32(void **state)
{
	SpineFieldSpec spec = {"a", false};
	SpineField	field;
	char		reason[REASON_SIZE];

	assert_false(spine_decode(*state, "{}", (size_t) INT32_MAX + 1, &spec, 1, &field,
							  reason, sizeof(reason)));
	assert_string_equal(reason, "longer than 1 GB");
	assert_false(spine_decode(*state, "{}", SIZE_MAX, &spec, 1, &field,
							  reason, sizeof(reason)));
	assert_string_equal(reason, "longer than 1 GB");
}

/*
 * Every way to go on from every beginning of an object, against a grammar
 * written down independently: json-c's idea of which token may follow which is
 * that of RFC 8259.
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
	SpineDecoder *decoder;
	char		tokens[MAX_TOKENS + 1];
	char		json[MAX_TOKENS * 24];
	int			taken;
	int			flat;
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
		SpineFieldSpec spec = {"s", true};
		SpineFieldSpec flat_spec = {"other", false};
		SpineField	field;
		char		reason[REASON_SIZE] = "";
		size_t		new_len = stpcpy(walk->json + len, spelling[i]) - walk->json;
		Tokens		tokens = {walk->tokens + 1, walk->tokens + ntokens + 1, false};
		bool		valid;
		bool		taken;

		walk->tokens[ntokens] = alphabet[i];
		valid = is_object_rest(&tokens) && tokens.at == tokens.end;
		taken = spine_decode(walk->decoder, walk->json, new_len, &spec, 1, &field,
							 reason, sizeof(reason));
		if (taken != valid ||
			tokens.ran_out != (strcmp(reason, "JSON without an end") == 0))
			fail_msg("%.*s: %s", (int) new_len, walk->json, taken ? "taken" : reason);
		if (spine_flat_json(walk->json, new_len, &flat_spec, 1, &field))
		{
			if (!valid)
				fail_msg("%.*s: taken for flat", (int) new_len, walk->json);
			walk->flat++;
		}
		walk->taken += taken;
		walk->refused += !taken;
		if ((taken || tokens.ran_out) && ntokens + 1 < MAX_TOKENS)
			walk_structures(walk, ntokens + 1, new_len);
	}
}

static void
test_every_short_structure(void **state)
{
	Walk		walk = {.decoder = *state, .tokens = "{", .json = "{"};

	walk_structures(&walk, 1, 1);
	print_message("%d structures taken, %d of them flat, %d refused\n", walk.taken, walk.flat, walk.refused);
	assert_true(walk.taken > 100 && walk.refused > 10000);
	assert_int_equal(walk.flat, 1 + 2 + 4);		/* {}, and one or two members, each a string or null */
}

/* Every byte, in a string and outside of one, alone and after an escape. */
static void
test_every_byte(void **state)
{
	SpineFieldSpec spec = {"a", false};
	SpineField	field;
	char		reason[REASON_SIZE];

	for (int c = 0; c < 256; c++)
	{
		char		in_string[] = "{\"a\":\"?\"}";
		char		escaped[] = "{\"a\":\"\\?\"}";
		char		outside[] = "{?}";
		char		value[] = "{\"a\":?}";

		in_string[6] = (char) c;
		assert_int_equal(decode_exact(*state, BYTES(in_string), &spec, 1, &field, reason),
						 c >= 0x20 && c < 0x80 && c != '"' && c != '\\');
		escaped[7] = (char) c;
		assert_int_equal(decode_exact(*state, BYTES(escaped), &spec, 1, &field, reason),
						 c != '\0' && strchr("\"\\/bfnrt", c) != NULL);
		outside[1] = (char) c;
		assert_int_equal(decode_exact(*state, BYTES(outside), &spec, 1, &field, reason),
						 c != '\0' && strchr(" \t\n\r", c) != NULL);
		value[5] = (char) c;
		assert_int_equal(decode_exact(*state, BYTES(value), &spec, 1, &field, reason),
						 c >= '0' && c <= '9');
	}
}

/* Every \uXXXX alone: all but the surrogates stand for themselves. */
static void
test_every_escaped_unit(void **state)
{
	SpineFieldSpec spec = {"a", false};
	SpineField	field;
	char		reason[REASON_SIZE];

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
		assert_int_equal(spine_decode(*state, json, strlen(json), &spec, 1, &field,
									  reason, sizeof(reason)), !surrogate);
		if (surrogate)
			continue;
		assert_int_equal(field.len, len);
		assert_memory_equal(field.text, utf8 + 3 - len, len);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_records),
		cmocka_unit_test(test_flat_records),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_truncated_records),
		cmocka_unit_test(test_tombstone_and_lengths),
		cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_many_fields),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_large_records),
		cmocka_unit_test(test_longer_than_int32),
		cmocka_unit_test(test_every_short_structure),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_every_escaped_unit),
	};

	return cmocka_run_group_tests_name("decode", tests, setup, teardown);
}

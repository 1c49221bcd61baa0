/*
 * test_json_paths.c
 *		Each path of a decoder finds what PostgreSQL's jsonb_path_query_first finds in lax
 *		mode, whatever the other paths are.
 *
 * What would break this: the first of equal keys, or something below it that the last one
 * does not have; a member of an array's last element; element 0 of a scalar that is not
 * found; null for absent, or absent for null; a value that one path takes away from another;
 * memory or depth that is not counted below a path; a record's key that is lost; time that
 * grows faster than paths times bytes.
 */
#include "decoding.h"

#include <time.h>

#include "event/path.h"

/* How the tests write a path to the record's key. */
#define OF_KEY	"key:"

/* Steps and names of the paths that a test has parsed. */
static SpinePathStep steps[10000];
static char names[100000];
static int	nsteps;
static size_t names_len;

static void
forget_paths(void)
{
	nsteps = 0;
	names_len = 0;
}

static SpineFieldSpec
spec_for(const char *path, bool as_json)
{
	bool		of_key = strncmp(path, OF_KEY, strlen(OF_KEY)) == 0;
	const char *text = of_key ? path + strlen(OF_KEY) : path;
	SpinePathStep *first = &steps[nsteps];
	int			n;

	assert_true(nsteps + strlen(text) < sizeof(steps) / sizeof(steps[0]));
	assert_true(names_len + strlen(text) < sizeof(names));
	n = spine_path_parse(text, first, names + names_len);
	if (n < 0)
		fail_msg("%s: not simple", path);
	nsteps += n;
	names_len += strlen(text) + 1;
	return (SpineFieldSpec) {
		.path = {.root = of_key ? SPINE_ROOT_KEY : SPINE_ROOT_VALUE, .nsteps = n, .steps = first},
		.as_json = as_json
	};
}

/* A field as one text, for comparisons. */
static const char *
spell(const SpineField *field, char *text)
{
	static const char *const kinds[] = {
		[SPINE_FIELD_ABSENT] = "absent", [SPINE_FIELD_NULL] = "null", [SPINE_FIELD_BOOL] = "bool",
		[SPINE_FIELD_NUMERIC] = "number", [SPINE_FIELD_TEXT] = "text", [SPINE_FIELD_JSON] = "json"
	};

	if (field->kind == SPINE_FIELD_BOOL)
		sprintf(text, "bool %s", field->boolean ? "true" : "false");
	else if (field->len == 0 && field->kind != SPINE_FIELD_TEXT)
		strcpy(text, kinds[field->kind]);
	else
		sprintf(text, "%s %.*s", kinds[field->kind], (int) field->len, field->text);
	return text;
}

static const struct
{
	const char *record;
	const char *path;
	const char *field;
}			cases[] = {
	/* members */
	{"{\"a\":{\"b\":{\"c\":1}}}", "$.a.b.c", "number 1"},
	{"{\"a\":{\"b\":\"x\\ny\"}}", "$.a.b", "text x\ny"},
	{"{\"a\":{\"b\":{\"c\":[1, 2]}}}", "$.a.b", "json {\"c\":[1, 2]}"},
	{"{\"a\":{\"b\":1}}", "$.a", "json {\"b\":1}"},
	{"{\"a\":{\"\\u0062\":true}}", "$.a.b", "bool true"},
	{"{\"a\":{\"\":1}}", "$.a.\"\"", "number 1"},
	{"{\"a\":{}}", "$.a.b", "absent"},
	{"{}", "$.a.b", "absent"},
	{"{\"a\":1}", "$.a.b", "absent"},
	{"{\"a\":\"b\"}", "$.a.b", "absent"},
	{"{\"a\":null}", "$.a.b", "absent"},
	{"{\"a\":{\"b\":null}}", "$.a.b", "null"},
	{"{\"a\":{\"b\":null}}", "$.a.b.c", "absent"},
	{"{\"a.b\":1}", "$.a.b", "absent"},
	{" { \"a\" : { \"b\" : [ 1 ] } } ", "$.a.b", "json [ 1 ]"},

	/* elements */
	{"{\"a\":[1,[2,3],\"x\"]}", "$.a[0]", "number 1"},
	{"{\"a\":[1,[2,3],\"x\"]}", "$.a[1]", "json [2,3]"},
	{"{\"a\":[1,[2,3],\"x\"]}", "$.a[1][1]", "number 3"},
	{"{\"a\":[1,[2,3],\"x\"]}", "$.a[3]", "absent"},
	{"{\"a\":[1,null]}", "$.a[1]", "null"},
	{"{\"a\":[]}", "$.a[0]", "absent"},
	{"{\"a\":[[]]}", "$.a[0]", "json []"},
	{"{\"a\":[{\"b\":1},{\"b\":2}]}", "$.a[1].b", "number 2"},
	{"{\"a\":1}", "$.a[0]", "number 1"},
	{"{\"a\":1}", "$.a[0][0][0]", "number 1"},
	{"{\"a\":1}", "$.a[1]", "absent"},
	{"{\"a\":1}", "$.a[0][1]", "absent"},
	{"{\"a\":null}", "$.a[0]", "null"},
	{"{\"a\":{\"b\":1}}", "$.a[0].b", "number 1"},
	{"{\"a\":{\"b\":1}}", "$[0].a[0].b[0]", "number 1"},
	{"{\"a\":{\"b\":1}}", "$[1].a", "absent"},
	{"{\"a\":[5]}", "$.a[0][0]", "number 5"},

	/* members of an array's elements */
	{"{\"a\":[{\"b\":1},{\"b\":2}]}", "$.a.b", "number 1"},
	{"{\"a\":[{\"c\":1},{\"b\":2},{\"b\":3}]}", "$.a.b", "number 2"},
	{"{\"a\":[1,\"b\",null,{\"b\":2}]}", "$.a.b", "number 2"},
	{"{\"a\":[{\"b\":null},{\"b\":2}]}", "$.a.b", "null"},
	{"{\"a\":[{\"b\":{}},{\"b\":{\"c\":5}}]}", "$.a.b.c", "number 5"},
	{"{\"a\":[{\"b\":[{\"x\":1},{\"c\":2}]},{\"b\":{\"c\":3}}]}", "$.a.b.c", "number 2"},
	{"{\"a\":[{\"b\":[1]},{\"b\":[3,4]}]}", "$.a.b[1]", "number 4"},
	{"{\"a\":[[{\"b\":1}]]}", "$.a.b", "absent"},
	{"{\"a\":[[{\"b\":1}]]}", "$.a[0].b", "number 1"},
	{"{\"a\":[[{\"b\":1}],{\"b\":2}]}", "$.a.b", "number 2"},
	{"{\"a\":[[{\"b\":1}],{\"b\":2}]}", "$.a[0].b", "number 1"},

	/* of equal keys, the last one, with all that is below it */
	{"{\"a\":{\"b\":1},\"a\":{\"b\":2}}", "$.a.b", "number 2"},
	{"{\"a\":{\"b\":1},\"a\":{\"c\":2}}", "$.a.b", "absent"},
	{"{\"a\":{\"b\":1},\"a\":3}", "$.a.b", "absent"},
	{"{\"a\":{\"b\":1},\"a\":[]}", "$.a.b", "absent"},
	{"{\"a\":{\"b\":1},\"\\u0061\":null}", "$.a.b", "absent"},
	{"{\"a\":3,\"a\":{\"b\":1}}", "$.a.b", "number 1"},
	{"{\"a\":{\"b\":1,\"b\":null}}", "$.a.b", "null"},
	{"{\"a\":[{\"b\":1,\"b\":2},{\"b\":3}]}", "$.a.b", "number 2"},
	{"{\"a\":[{\"b\":{\"c\":1},\"b\":{}},{\"b\":{\"c\":2}}]}", "$.a.b.c", "number 2"},
	{"{\"a\":[{\"b\":{\"c\":1}},{\"b\":{\"c\":2},\"b\":{}}]}", "$.a.b.c", "number 1"},
	{"{\"a\":[{\"b\":{\"c\":1}},{\"b\":{\"c\":2},\"b\":{}}],\"a\":{}}", "$.a.b.c", "absent"},
	{"{\"a\":[{\"b\":1}],\"a\":[{\"b\":2},{\"b\":3}]}", "$.a.b", "number 2"},
	{"{\"a\":[1,2],\"a\":[3]}", "$.a[1]", "absent"},
	{"{\"a\":[{\"b\":[{\"c\":1}]},{\"b\":[{\"c\":2}],\"b\":[{\"d\":3}]}],\"a\":[{\"b\":[{\"d\":4}]},{\"b\":{\"c\":5}}]}",
	"$.a.b.c", "number 5"},

	/* all of the value, which need not be an object then */
	{" {\"a\": 1} ", "$", "json {\"a\": 1}"},
	{"[1,{\"a\":2}]", "$", "json [1,{\"a\":2}]"},
	{" 12.50 ", "$", "number 12.50"},
	{"\"x\"", "$", "text x"},
	{"null", "$", "null"},
	{"true", "$[0]", "bool true"},
	{"[1,{\"a\":2}]", "$[1].a", "number 2"},
	{"[]", "$[0]", "absent"},
};

static void
test_cases(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		SpineFieldSpec spec;
		SpineField	field;
		char		reason[REASON_SIZE];
		char		text[1000];

		forget_paths();
		spec = spec_for(cases[i].path, false);
		if (!decode_exact(cases[i].record, strlen(cases[i].record), &spec, 1, &field, reason))
			fail_msg("%s: %s", cases[i].record, reason);
		if (strcmp(spell(&field, text), cases[i].field) != 0)
			fail_msg("%s of %s: %s, expected %s", cases[i].path, cases[i].record, text, cases[i].field);

		/* as JSON it is there, null and absent in the same cases */
		spec.as_json = true;
		assert_true(decode_exact(cases[i].record, strlen(cases[i].record), &spec, 1, &field, reason));
		assert_string_equal(spell(&field, text)[0] == 'j' ? "there" : text,
							strcmp(cases[i].field, "null") == 0 || strcmp(cases[i].field, "absent") == 0 ?
							cases[i].field : "there");
	}
}

/* Only a path that may begin in something else makes other values than objects welcome. */
static void
test_not_an_object(void **state)
{
	static const char *const others[] = {"[{\"a\":1}]", "1", "\"a\"", "null", "[]"};
	static const struct
	{
		const char *path;
		bool		taken;
	}			paths[] = {{"$", true}, {"$[0]", true}, {"$[0].a", true}, {"$.a", false}, {"$.a[0]", false}, {"key:$", false}, {"key:$.a", false}};
	char		reason[REASON_SIZE];

	(void) state;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
	{
		SpineField	fields[2];

		for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++)
		{
			SpineFieldSpec specs[2];

			forget_paths();
			specs[0] = spec_for("$.a", false);
			specs[1] = spec_for(paths[p].path, true);
			assert_int_equal(decode_exact(others[i], strlen(others[i]), specs, 2, fields, reason), paths[p].taken);
			if (!paths[p].taken)
				assert_string_equal(reason, "not a JSON object at byte 1");
		}
		assert_false(decode_exact(others[i], strlen(others[i]), NULL, 0, NULL, reason));
	}
	forget_paths();
	{
		SpineFieldSpec spec = spec_for("$", true);
		SpineField	field;

		assert_false(decode_exact(BYTES(" "), &spec, 1, &field, reason));
		assert_string_equal(reason, "nothing but white space");
		assert_false(decode_exact(BYTES("[] 1"), &spec, 1, &field, reason));
		assert_string_equal(reason, "something after the JSON value at byte 4");
		assert_false(decode_exact(BYTES("{} 1"), &spec, 1, &field, reason));
		assert_string_equal(reason, "something after the JSON object at byte 4");
	}
}

/* Paths that meet in a value, end at each other's nodes, or are the same. */
static void
test_paths_together(void **state)
{
	static const struct
	{
		const char *path;
		bool		as_json;
		const char *field;
	}			wanted[] = {
		{"$.a.b", false, "text x\ny"}, {"$.a", true, "json {\"b\":\"x\\ny\",\"c\":[7,{\"d\":8}]}"},
		{"$.a.b", true, "json \"x\\ny\""}, {"$.a[0].b", false, "text x\ny"}, {"$.a.b[0][0]", true, "json \"x\\ny\""},
		{"$.a.c[0]", false, "number 7"}, {"$.a.c", true, "json [7,{\"d\":8}]"}, {"$.a.c.d", false, "number 8"},
		{"$.a.c[1].d", false, "number 8"}, {"$.a.c[1]", false, "json {\"d\":8}"}, {"$", true, NULL},
		{"$.e", false, "null"}, {"$.e", true, "null"}, {"$.e.f", true, "absent"}, {"$.a.b", false, "text x\ny"},
		{"key:$", true, "json {\"a\":{\"b\":1}}"}, {"key:$.a.b", false, "number 1"}, {"key:$.e", false, "absent"},
		{"$.e[0]", false, "null"}, {"$[0]", false, NULL}
	};
	static const char record[] = "{\"a\":{\"b\":\"x\\ny\",\"c\":[7,{\"d\":8}]},\"e\":null}";
	enum
	{
		N = sizeof(wanted) / sizeof(wanted[0])
	};
	SpineFieldSpec specs[N];
	SpineField	fields[N];
	char		reason[REASON_SIZE];
	char		text[1000];

	(void) state;
	forget_paths();
	for (int i = 0; i < N; i++)
		specs[i] = spec_for(wanted[i].path, wanted[i].as_json);
	record_key = "{\"a\":{\"b\":1}}";
	record_key_len = strlen(record_key);
	assert_true(decode_exact(BYTES(record), specs, N, fields, reason));
	for (int i = 0; i < N; i++)
	{
		spell(&fields[i], text);
		if (strcmp(wanted[i].field ? wanted[i].field : "json {\"a\":{\"b\":\"x\\ny\",\"c\":[7,{\"d\":8}]},\"e\":null}", text) != 0)
			fail_msg("%s: %s", wanted[i].path, text);
	}
	record_key = NULL;
	record_key_len = 0;
}

/* Keys that are JSON, keys that are not, and none. */
static void
test_keys(void **state)
{
	static const struct
	{
		const char *key;
		size_t		len;
		const char *all;		/* of the key; NULL: the record is refused */
		const char *all_as_json;
		const char *a;			/* "$.a" */
		const char *first;		/* "$[0].a" */
	}			keys[] = {
		{NULL, 0, "null", "null", "absent", "absent"},
		{BYTES(""), "text ", "json \"\"", "absent", "absent"},
		{BYTES(" "), "text  ", "json \" \"", "absent", "absent"},
		{BYTES("{\"a\":1}"), "json {\"a\":1}", "json {\"a\":1}", "number 1", "number 1"},
		{BYTES("[{\"a\":1}]"), "json [{\"a\":1}]", "json [{\"a\":1}]", "number 1", "number 1"},
		{BYTES("12"), "number 12", "json 12", "absent", "absent"},
		{BYTES("\"x\\u0041\""), "text xA", "json \"x\\u0041\"", "absent", "absent"},
		{BYTES("null"), "null", "null", "absent", "absent"},
		{BYTES("true"), "bool true", "json true", "absent", "absent"},
		{BYTES("ord-1"), "text ord-1", "json \"ord-1\"", "absent", "absent"},
		{BYTES("0123"), "text 0123", "json \"0123\"", "absent", "absent"},
		{BYTES("{\"a\":1} x"), "text {\"a\":1} x", "json \"{\\\"a\\\":1} x\"", "absent", "absent"},
		{BYTES("{\"a\":1"), "text {\"a\":1", "json \"{\\\"a\\\":1\"", "absent", "absent"},
		{BYTES("\\\"\b\f\n\r\t\x01\x1f\x7f/\xc3\xa9"), "text \\\"\b\f\n\r\t\x01\x1f\x7f/\xc3\xa9",
		"json \"\\\\\\\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f/\xc3\xa9\"", "absent", "absent"},
		{BYTES("\xff"), NULL, NULL, NULL, NULL},
		{BYTES("x\xc3"), NULL, NULL, NULL, NULL},
	};
	SpineFieldSpec specs[4];
	SpineField	fields[4];
	char		reason[REASON_SIZE];
	char		text[1000];

	(void) state;
	forget_paths();
	specs[0] = spec_for("key:$", false);
	specs[1] = spec_for("key:$", true);
	specs[2] = spec_for("key:$.a", false);
	specs[3] = spec_for("key:$[0].a", false);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
	{
		record_key = keys[i].key;
		record_key_len = keys[i].len;
		assert_int_equal(decode_exact(BYTES("{}"), specs, 4, fields, reason), keys[i].all != NULL);
		if (keys[i].all == NULL)
		{
			assert_string_equal(reason, "the key is neither JSON nor UTF-8");
			/* paths into it find nothing; it need not be text for that */
			assert_true(decode_exact(BYTES("{}"), &specs[2], 2, fields, reason));
			assert_string_equal(spell(&fields[0], text), "absent");
			continue;
		}
		assert_string_equal(spell(&fields[0], text), keys[i].all);
		assert_string_equal(spell(&fields[1], text), keys[i].all_as_json);
		assert_string_equal(spell(&fields[2], text), keys[i].a);
		assert_string_equal(spell(&fields[3], text), keys[i].first);
	}

	/* a key that nobody asks for may be anything, and the value is checked first */
	record_key = "\xff";
	record_key_len = 1;
	assert_true(decode_exact(BYTES("{}"), NULL, 0, NULL, reason));
	assert_false(decode_exact(BYTES("[]"), specs, 4, fields, reason));
	assert_string_equal(reason, "not a JSON object at byte 1");
	record_key = NULL;
	record_key_len = 0;
}

/* --------------------------------------------------------------------------
 * Random records and paths, which decode_exact compares with json-c
 * -------------------------------------------------------------------------- */

static uint32_t random_state;

static uint32_t
pick(uint32_t n)
{
	random_state = random_state * 1664525 + 1013904223;
	return (uint32_t) (((uint64_t) random_state * n) >> 32);
}

static char *
write_random_value(char *to, int depth)
{
	static const char *const scalars[] = {"1", "2.50", "null", "true", "\"\"", "\"x\"", "\"\\n\\u00e9\"", "{}", "[]"};
	static const char *const keys[] = {"\"a\":", "\"b\":", "\"c\" : ", "\"\\u0061\":", "\"\\u0062\":"};
	bool		is_object = pick(2);
	uint32_t	n = pick(4);

	if (depth == 0 || pick(4) == 0)
		return stpcpy(to, scalars[pick(sizeof(scalars) / sizeof(scalars[0]))]);
	*to++ = is_object ? '{' : '[';
	for (uint32_t i = 0; i < n; i++)
	{
		if (i > 0)
			*to++ = ',';
		if (is_object)
			to = stpcpy(to, keys[pick(sizeof(keys) / sizeof(keys[0]))]);
		to = write_random_value(to, depth - 1);
	}
	*to++ = is_object ? '}' : ']';
	*to = '\0';
	return to;
}

static SpineFieldSpec
random_spec(void)
{
	static const char *const random_steps[] = {".a", ".b", ".c", "[0]", "[1]", "[2]", ".a", ".b", "[0]"};
	char		path[100];
	char	   *to = stpcpy(path, pick(4) == 0 ? OF_KEY "$" : "$");

	for (uint32_t n = pick(6); n > 0; n--)
		to = stpcpy(to, random_steps[pick(sizeof(random_steps) / sizeof(random_steps[0]))]);
	return spec_for(path, pick(2));
}

static void
test_random(void **state)
{
	static char record[100000];
	static char key[100000];
	int			found = 0;

	(void) state;
	for (random_state = 0; random_state < 30000; random_state++)
	{
		uint32_t	seed = random_state;
		int			nspecs = (int) pick(12) + 1;
		SpineFieldSpec specs[12];
		SpineField	fields[12];
		char		reason[REASON_SIZE];

		forget_paths();
		for (int i = 0; i < nspecs; i++)
			specs[i] = random_spec();
		write_random_value(record, 6);
		write_random_value(key, 3);
		record_key = pick(8) ? key : NULL;
		record_key_len = strlen(key);
		if (decode_exact(record, strlen(record), specs, nspecs, fields, reason))
		{
			for (int i = 0; i < nspecs; i++)
				found += specs[i].path.nsteps > 1 && fields[i].kind != SPINE_FIELD_ABSENT;
		}
		random_state = seed;
	}
	record_key = NULL;
	record_key_len = 0;
	print_message("%d values found by two or more steps\n", found);
	assert_true(found > 5000);
}

/* --------------------------------------------------------------------------
 * Limits
 * -------------------------------------------------------------------------- */

static SpineDecodeOutcome
outcome_for(SpineFieldSpec spec, const char *record, size_t len, size_t max_memory)
{
	SpineField	field;
	char		reason[REASON_SIZE];

	return decode_limited(record, len, &spec, 1, max_memory, &field, reason);
}

/* 512 levels, whether a path leads into them or not. */
static void
test_depth(void **state)
{
	static const char *const paths[] = {"$.x", "$", "$.a", "$.a[0][0]", "$.a[0].a[0].a", "$[0]", "key:$.a[0].a", "key:$"};

	(void) state;
	for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++)
	{
		forget_paths();
		SpineFieldSpec spec = spec_for(paths[p], true);

		for (size_t extra = 0; extra < 2; extra++)
		{
			char		record[10000] = "";
			char	   *to = record;
			bool		of_key = spec.path.root == SPINE_ROOT_KEY;

			for (int i = 0; i < 256; i++)
				to = stpcpy(to, "{\"a\":[");
			to = stpcpy(to, extra ? "{}" : "1");
			for (int i = 0; i < 256; i++)
				to = stpcpy(to, "]}");
			if (of_key)
			{
				record_key = record;
				record_key_len = strlen(record);
			}
			assert_int_equal(outcome_for(spec, of_key ? "{}" : record, of_key ? 2 : strlen(record), SIZE_MAX),
							 extra ? SPINE_BEYOND_LIMIT : SPINE_DECODED);
			record_key = NULL;
			record_key_len = 0;
		}
	}
}

/* A path costs what its values take as jsonb, whatever other paths lead into them. */
static void
test_memory_below_paths(void **state)
{
	static const char *const paths[] = {"$.a", "$.a.b", "$.a[0].b[0]", "$", "$.a.c"};
	char		pieces[20000] = "";
	char		record[40000];
	char	   *to = pieces;

	(void) state;
	for (int i = 0; i < 1000; i++)
		to = stpcpy(to, ",{},[]");
	sprintf(record, "{\"a\":{\"b\":[1%s],\"c\":1}}", pieces);
	for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++)
	{
		bool		is_small = p == 2 || p == 4;
		size_t		limit = 900000;

		for (int with_others = 0; with_others < 2; with_others++)
		{
			SpineFieldSpec specs[4];
			SpineField	fields[4];
			char		reason[REASON_SIZE];
			SpineDecodeOutcome outcome;

			forget_paths();
			specs[0] = spec_for(paths[p], true);
			specs[0].for_jsonb = true;
			specs[1] = spec_for("$.a.b[7]", true);
			specs[2] = spec_for("$.a.b.x", true);
			specs[3] = spec_for("$.a.b[0][0]", true);
			outcome = decode_limited(record, strlen(record), specs, with_others ? 4 : 1, limit, fields, reason);
			assert_int_equal(outcome, is_small ? SPINE_DECODED : SPINE_BEYOND_LIMIT);

			/* nor is it charged much more */
			assert_int_equal(decode_limited(record, strlen(record), specs, with_others ? 4 : 1, 2 * limit, fields, reason),
							 SPINE_DECODED);
		}
	}

	/* the record's key, as JSON and as text */
	for (int is_text = 0; is_text < 2; is_text++)
	{
		SpineFieldSpec spec;

		forget_paths();
		spec = spec_for("key:$", true);
		record_key = record + is_text;
		record_key_len = strlen(record_key);
		assert_int_equal(outcome_for(spec, "{}", 2, 10000), SPINE_DECODED);
		spec.for_jsonb = true;
		assert_int_equal(outcome_for(spec, "{}", 2, 20000), SPINE_BEYOND_LIMIT);
		assert_int_equal(outcome_for(spec, "{}", 2, 2000000), SPINE_DECODED);

		/* what was found before the key turned out not to be JSON does not count */
		spec = spec_for("key:$.a", true);
		spec.for_jsonb = true;
		record_key_len--;
		assert_int_equal(outcome_for(spec, "{}", 2, 10000), SPINE_DECODED);
		record_key = NULL;
		record_key_len = 0;
	}
}

/* The slowest that a hundred paths can be is not slower than a hundred decoders. */
static void
test_time(void **state)
{
	static const struct
	{
		const char *before;
		const char *piece;
		const char *after;
	}			shapes[] = {
		{"{\"a\":[1", ",{\"k1\":{\"x\":1}}", "]}"},
		{"{\"a\":[1", ",{\"k99\":{\"x\":1},\"k99\":{}}", "]}"},
		{"{\"a\":{\"k1\":{\"x\":1}}", ",\"a\":{\"k1\":{\"x\":1}}", "}"},
		{"{\"a\":[[1", ",[{}]", "]]}"},
		{"{\"a\":[{}", ",{}", "]}"},
		{"{\"a\":[1", ",1", "]}"},
	};
	SpineFieldSpec specs[MAX_SPECS];

	(void) state;
	forget_paths();
	for (int i = 0; i < MAX_SPECS; i++)
	{
		char		path[100];

		if (i % 4 == 3)
			sprintf(path, "$.a[%d].k%d.x", i * 1000, i);
		else
			sprintf(path, "$.a.k%d.x", i);
		specs[i] = spec_for(path, i % 2);
	}
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
	{
		size_t		len;
		char	   *bytes = repeated(shapes[s].before, shapes[s].piece, 1000000, shapes[s].after, &len);
		SpineDecoder *decoder = compile(specs, MAX_SPECS);
		SpineRecord record = {.value = bytes, .value_len = len};
		SpineEvent	event;
		char		reason[REASON_SIZE];
		clock_t		start = clock();

		assert_int_equal(spine_format_json.decode(decoder, &record, SIZE_MAX, &event, reason, sizeof(reason)),
						 SPINE_DECODED);
		print_message("%s%s...: %.2f s\n", shapes[s].before, shapes[s].piece,
					  (double) (clock() - start) / CLOCKS_PER_SEC);
		spine_format_json.free(decoder);
		free(bytes);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_not_an_object),
		cmocka_unit_test(test_paths_together),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_memory_below_paths),
		cmocka_unit_test(test_time),
	};

	return cmocka_run_group_tests(tests, NULL, free_last);
}

/*
 * test_format_json.c
 *		Every field that is asked for arrives, lasts until the reset, and takes no more
 *		memory than it may.
 *
 * What would break this: the wrong key, or the first of two equal keys; memory or a stack
 * that grows with a record's shape; a costly record that is not refused; fields that do
 * not last until the reset, or memory that lasts longer; a crash when memory runs out.
 */
#include "decoding.h"

#include <malloc.h>
#include <sys/resource.h>

#include "event/json_reader.h"
#include "scarce_memory.h"

static SpineDecodeOutcome
decode(SpineDecoder *decoder, const void *value, size_t len, SpineEvent *event, char *reason)
{
	static SpineRecord record;

	record = (SpineRecord) {.value = value, .value_len = len};
	return spine_format_json.decode(decoder, &record, SIZE_MAX, event, reason, REASON_SIZE);
}

static void
test_tombstone_and_lengths(void **state)
{
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a")};
	SpineDecoder *decoder = compile(&spec, 1);
	SpineRecord record = {.value = "[]", .value_len = 2};
	SpineEvent	event;
	char		reason[REASON_SIZE];

	(void) state;
	assert_int_equal(decode(decoder, NULL, 0, &event, reason), SPINE_NO_VALUE);
	assert_string_equal(reason, "tombstone");
	assert_int_equal(decode(decoder, "", 0, &event, reason), SPINE_MALFORMED);
	assert_string_equal(reason, "empty value");

	/* refused without reading it */
	assert_int_equal(decode(decoder, "{}", ((size_t) 1 << 30) + 1, &event, reason), SPINE_BEYOND_LIMIT);
	assert_string_equal(reason, "longer than 1 GB");
	assert_int_equal(decode(decoder, "{}", SIZE_MAX, &event, reason), SPINE_BEYOND_LIMIT);

	/* a reason is cut, not overrun */
	memset(reason, '#', sizeof(reason));
	assert_int_equal(spine_format_json.decode(decoder, &record, 0, &event, reason, 5), SPINE_MALFORMED);
	assert_memory_equal(reason, "not \0#", 6);
	spine_format_json.free(decoder);

	/* the record is checked even if no fields are asked for */
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
	const SpineFieldSpec specs[] = {{.path = SPINE_PATH_TO_KEY("n")}, {.path = SPINE_PATH_TO_KEY("text")}, {.path = SPINE_PATH_TO_KEY("b")}, {.path = SPINE_PATH_TO_KEY("none")}};
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
	const SpineFieldSpec specs[] = {{.path = SPINE_PATH_TO_KEY("a")}, {.path = SPINE_PATH_TO_KEY("b")}};
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
		assert_int_equal(live_allocations - before, 3);
	}
	spine_format_json.free(decoder);
	assert_int_equal(live_allocations, before);
}

/* Whichever allocation fails, the outcome says so, and the decoder keeps working. */
static void
test_no_memory(void **state)
{
	const SpineFieldSpec specs[] = {{.path = SPINE_PATH_TO_KEY("a")}, {.path = SPINE_PATH_TO_KEY("b"), .as_json = true}};
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

	/* one allocation for the fields, one for the string */
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

		/* a decoder that has allocated nothing yet */
		spine_format_json.free(decoder);
		decoder = compile(specs, 2);
	}
	assert_int_equal(nallocations, 2);
	assert_int_equal(event.fields[0].kind, SPINE_FIELD_TEXT);
	assert_int_equal(event.fields[0].len, sizeof(record) - 9);

	/* without more memory, a decoder can still use what it has */
	allocations_left = 0;
	assert_int_equal(decode(decoder, record, sizeof(record), &event, reason), SPINE_DECODE_NO_MEMORY);
	assert_int_equal(decode(decoder, BYTES("{\"a\":1}"), &event, reason), SPINE_DECODED);
	assert_int_equal(decode(decoder, BYTES("{\"a\":1"), &event, reason), SPINE_MALFORMED);
	allocations_left = -1;
	spine_format_json.free(decoder);
}

/* The same key wanted in both ways, beside others: all fields are valid together. */
static void
test_many_fields(void **state)
{
	SpineFieldSpec specs[] = {
		{.path = SPINE_PATH_TO_KEY("s")}, {.path = SPINE_PATH_TO_KEY("s"), .as_json = true}, {.path = SPINE_PATH_TO_KEY("n"), .as_json = true}, {.path = SPINE_PATH_TO_KEY("n")}, {.path = SPINE_PATH_TO_KEY("o")},
		{.path = SPINE_PATH_TO_KEY("o"), .as_json = true}, {.path = SPINE_PATH_TO_KEY("")}, {.path = SPINE_PATH_TO_KEY("b")}, {.path = SPINE_PATH_TO_KEY("none"), .as_json = true}, {.path = SPINE_PATH_TO_KEY("\xc3\xa9")}
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
 * Whatever the shape, decoding allocates nothing except for a string with escapes, and then
 * at most the string's length, until the reset.  The sanitizers allocate, so not with them.
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

	/* malloc maps a large piece by itself, so that free() gives it back */
	mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
	for (size_t i = 0; i < NSHAPES; i++)
	{
		SpineFieldSpec specs[] = {{.path = SPINE_PATH_TO_KEY("a")}, {.path = SPINE_PATH_TO_KEY("a")}, {.path = SPINE_PATH_TO_KEY("a"), .as_json = true, .for_jsonb = true}};
		SpineDecoder *decoder = compile(specs, 3);
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

		/* so that the decoder has the chunk that it always keeps */
		assert_int_equal(decode(decoder, BYTES("{}"), &event, reason), SPINE_DECODED);
		spine_format_json.reset(decoder);
		mapped = mapped_bytes();

		/* no other byte may be mapped, and no other page touched except a few of the stack */
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

/* The memory that jsonb would take is counted, and only where jsonb is made. */
static void
test_memory_limit(void **state)
{
	SpineFieldSpec text[] = {{.path = SPINE_PATH_TO_KEY("a")}, {.path = SPINE_PATH_TO_KEY("b"), .as_json = true, .for_jsonb = true}};
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
		text[0].as_json = text[0].for_jsonb = true;
		outcome = decode_limited(record, len, text, 2, limit, fields, reason);
		if (outcome != SPINE_BEYOND_LIMIT)
			fail_msg("%s%s... is taken", shapes[i].before, shapes[i].piece);
		assert_non_null(strstr(reason, "spine.max_record_memory"));
		text[0].as_json = text[0].for_jsonb = false;
		free(record);
	}

	/* realistic large records are taken */
	assert_int_equal(outcome_of("{\"a\":[0", ",{\"id\":12345,\"name\":\"a name\",\"tags\":[\"x\",\"y\"]}", 20000,
								"]}", limit, reason), SPINE_DECODED);
	assert_int_equal(outcome_of("{\"a\":\"", "text ", 3000000, "\"}", limit, reason), SPINE_DECODED);

	/* the memory of a text by itself */
	assert_true(spine_json_memory("[{},{}]", 7) > spine_json_memory("[{}]", 4));
	assert_true(spine_json_memory("[{},{}", 6) > spine_json_memory("[{}]", 4));
	assert_true(spine_json_memory("", 0) < 1000);
	record = repeated("", "[", 600, "", &len);
	assert_true(spine_json_memory(record, len) == SIZE_MAX);
	free(record);

	/* two fields add up */
	text[0].for_jsonb = true;
	assert_int_equal(decode_limited(BYTES("{\"a\":[1,1],\"b\":[[],{},\"x\"]}"), text, 2, 4000, fields, reason),
					 SPINE_DECODED);
	assert_int_equal(decode_limited(BYTES("{\"a\":[1,1],\"b\":[[],{},\"x\"]}"), text, 2, 1500, fields, reason),
					 SPINE_BEYOND_LIMIT);
	assert_int_equal(decode_limited(BYTES("{\"a\":[1,1],\"c\":[[],{},\"x\"]}"), text, 2, 1500, fields, reason),
					 SPINE_DECODED);
	assert_int_equal(decode_limited(BYTES("{\"c\":[[],{},\"x\"],\"a\":[1,1]}"), text, 2, 1500, fields, reason),
					 SPINE_DECODED);
}

static void
test_large_records(void **state)
{
	SpineFieldSpec specs[] = {{.path = SPINE_PATH_TO_KEY("a")}, {.path = SPINE_PATH_TO_KEY("a"), .as_json = true}};
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

	/* many equal keys: the last one counts */
	record = repeated("{", "\"a\":12345678901234567890,", 100000, "\"a\":\"last\"}", &len);
	assert_true(decode_exact(record, len, specs, 1, fields, reason));
	assert_memory_equal(fields[0].text, "last", 4);
	free(record);
}

/* Many specs in no order; the record has their keys in another order, some with escapes. */
static void
test_many_keys(void **state)
{
	SpineFieldSpec specs[MAX_SPECS];
	SpinePathStep steps[MAX_SPECS];
	SpineField	fields[MAX_SPECS];
	char		names[MAX_SPECS][16];
	char		record[MAX_SPECS * 40] = "{\"\":0";
	char		reason[REASON_SIZE];

	(void) state;
	for (int i = 0; i < MAX_SPECS; i++)
	{
		/* names that are prefixes of each other, and some names twice */
		sprintf(names[i], "%.*s%d", i % 3, "\xc3\xa9", i * 37 % 50);
		if (i % 3 == 1)
			names[i][0] = 'c';
		steps[i] = (SpinePathStep) {.member = names[i]};
		specs[i] = (SpineFieldSpec) {.path = {.root = SPINE_ROOT_VALUE, .nsteps = 1, .steps = &steps[i]}, .as_json = i % 2};
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

/* Strict paths find what the operators of jsonb do, also beside others of the same steps. */
static void
test_strict_paths(void **state)
{
	enum
	{
		NSPECS = 5
	};
	static const SpinePathStep a_b[] = {{.member = "a"}, {.member = "b"}};
	static const SpinePathStep a_0[] = {{.member = "a"}, {.element = 0}};
	static const SpinePathStep a[] = {{.member = "a"}};
	static const SpineFieldSpec specs[NSPECS] = {
		{.path = {.root = SPINE_ROOT_VALUE, .nsteps = 2, .steps = a_b}},
		{.path = {.root = SPINE_ROOT_VALUE, .nsteps = 2, .steps = a_b, .strict = true}},
		{.path = {.root = SPINE_ROOT_VALUE, .nsteps = 2, .steps = a_0}, .as_json = true},
		{.path = {.root = SPINE_ROOT_VALUE, .nsteps = 2, .steps = a_0, .strict = true}, .as_json = true},
		{.path = {.root = SPINE_ROOT_VALUE, .nsteps = 1, .steps = a, .strict = true}, .as_json = true}
	};
	static const struct
	{
		const char *json;
		const char *fields[NSPECS];	/* NULL: absent */
	}			cases[] = {
		{"{\"a\": {\"b\": 1}}", {"1", "1", "{\"b\": 1}", NULL, "{\"b\": 1}"}},
		{"{\"a\": [{\"b\": 1}]}", {"1", NULL, "{\"b\": 1}", "{\"b\": 1}", "[{\"b\": 1}]"}},
		{"{\"a\": 5}", {NULL, NULL, "5", "5", "5"}},
		{"{\"a\": {\"b\": 1}, \"a\": {}}", {NULL, NULL, "{}", NULL, "{}"}},
		{"{\"a\": []}", {NULL, NULL, NULL, NULL, "[]"}}
	};

	SpineDecoder *decoder = spine_format_json.compile(specs, NSPECS);

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		SpineRecord record = {.value = cases[i].json, .value_len = strlen(cases[i].json)};
		char		reason[REASON_SIZE];
		SpineEvent	event;

		assert_int_equal(spine_format_json.decode(decoder, &record, SIZE_MAX, &event, reason, sizeof(reason)),
						 SPINE_DECODED);
		for (size_t f = 0; f < NSPECS; f++)
		{
			const SpineField *field = &event.fields[f];
			const char *expected = cases[i].fields[f];

			assert_int_equal(field->kind == SPINE_FIELD_ABSENT, expected == NULL);
			assert_int_equal(field->len, expected ? strlen(expected) : 0);
			assert_memory_equal(field->text, expected ? expected : "", field->len);
		}
	}
	spine_format_json.free(decoder);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_strict_paths),
		cmocka_unit_test(test_tombstone_and_lengths),
		cmocka_unit_test(test_many_fields),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_memory_limit),
		cmocka_unit_test(test_large_records),
	};

	return cmocka_run_group_tests_name("format_json", tests, NULL, free_last);
}

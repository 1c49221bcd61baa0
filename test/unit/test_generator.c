/*
 * test_generator.c
 *		Synthetic events are valid, varied as promised, and safely bounded.
 *
 * What would break this: a tenant put into the JSON unescaped, off-by-one
 * bounds, weights that are not 5:4:3:1, a date that is wrong around leap days
 * or lacks its leading zeros, a uuid without version and variant or drawn
 * twice, or writing past a short buffer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "event/format.h"
#include "orders/generator.h"

#define SECOND	INT64_C(1000000)

enum
{
	EVENT_ID, TENANT, EVENT_TYPE, ORDER_ID, AMOUNT_CENTS, EVENT_TIME, NFIELDS
};

static const SpineFieldSpec specs[NFIELDS] = {
	{.path = SPINE_PATH_TO_KEY("event_id")}, {.path = SPINE_PATH_TO_KEY("tenant")}, {.path = SPINE_PATH_TO_KEY("event_type")},
	{.path = SPINE_PATH_TO_KEY("order_id")}, {.path = SPINE_PATH_TO_KEY("amount_cents")}, {.path = SPINE_PATH_TO_KEY("event_time")}
};

static SpineDecoder *decoder;

static int
setup(void **state)
{
	(void) state;
	decoder = spine_format_json.compile(specs, NFIELDS);
	return decoder == NULL;
}

static int
teardown(void **state)
{
	(void) state;
	spine_format_json.free(decoder);
	return 0;
}

/* One event, decoded; texts are good until the next. */
static void
make_event(SpineRandom *random, const char *literal,
		   int64_t unix_time_us, SpineField fields[NFIELDS])
{
	static char text[1024];
	char		reason[200];
	size_t		len = spine_generator_event(random, literal, unix_time_us, text, sizeof(text));
	SpineRecord record = {.value = text, .value_len = len};
	SpineEvent	event;

	assert_int_equal(len, strlen(text));
	spine_format_json.reset(decoder);
	if (spine_format_json.decode(decoder, &record, SIZE_MAX, &event, reason, sizeof(reason)) != SPINE_DECODED)
		fail_msg("%s: %s", text, reason);
	memcpy(fields, event.fields, NFIELDS * sizeof(SpineField));
	for (int i = 0; i < NFIELDS; i++)
		assert_int_equal(fields[i].kind,
						 i == AMOUNT_CENTS ? SPINE_FIELD_NUMERIC : SPINE_FIELD_TEXT);
}

static void
expect_text(const SpineField *field, const char *text, size_t len)
{
	if (field->len != len || memcmp(field->text, text, len) != 0)
		fail_msg("got \"%.*s\", expected \"%s\"", (int) field->len, field->text, text);
}

/* The number after a prefix of the field. */
static long
number_after(const SpineField *field, const char *prefix)
{
	char		text[32];
	char	   *end;
	long		number;
	size_t		prefix_len = strlen(prefix);

	assert_true(field->len > prefix_len && field->len < sizeof(text));
	memcpy(text, field->text, field->len);
	text[field->len] = '\0';
	assert_memory_equal(text, prefix, prefix_len);
	number = strtol(text + prefix_len, &end, 10);
	assert_int_equal(*end, '\0');
	return number;
}

/* The state consists of the first outputs that splitmix64 is known to have for the seed. */
static void
test_seed(void **state)
{
	SpineRandom random;

	(void) state;
	spine_generator_seed(&random, 1234567);
	assert_true(random.state[0] == UINT64_C(6457827717110365317));
	assert_true(random.state[1] == UINT64_C(3203168211198807973));
	assert_true(random.state[2] == UINT64_C(9817491932198370423));
	assert_true(random.state[3] == UINT64_C(4593380528125082431));
	spine_generator_seed(&random, 0);
	assert_true(random.state[0] != 0);
}

/* The same seed gives the same events, and another seed gives other events. */
static void
test_deterministic(void **state)
{
	SpineRandom a;
	SpineRandom b;
	SpineRandom c;
	char		event_a[1024];
	char		event_b[1024];
	char		event_c[1024];

	(void) state;
	spine_generator_seed(&a, 7);
	spine_generator_seed(&b, 7);
	spine_generator_seed(&c, 8);
	for (int i = 0; i < 100; i++)
	{
		spine_generator_event(&a, "\"t\"", i, event_a, sizeof(event_a));
		spine_generator_event(&b, "\"t\"", i, event_b, sizeof(event_b));
		spine_generator_event(&c, "\"t\"", i, event_c, sizeof(event_c));
		assert_string_equal(event_a, event_b);
		assert_string_not_equal(event_a, event_c);
	}
}

static void
test_tenants(void **state)
{
	static const struct
	{
		const char *tenant;
		size_t		len;
	}			tenants[] = {
		{"acme", 4}, {"", 0}, {"say \"hi\"", 8}, {"back\\slash/", 11},
		{"line\nbreak\ttab\r\x01\x1f\x7f", 18}, {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9},
		{"nul\0inside", 10}, {"%s%n%d", 6}, {"','x');--</script>", 18}
	};
	SpineRandom random;
	SpineField	fields[NFIELDS];

	(void) state;
	spine_generator_seed(&random, 1);
	for (size_t i = 0; i < sizeof(tenants) / sizeof(tenants[0]); i++)
	{
		char	   *literal = spine_generator_tenant_literal(tenants[i].tenant, tenants[i].len);

		assert_non_null(literal);
		make_event(&random, literal, 0, fields);
		expect_text(&fields[TENANT], tenants[i].tenant, tenants[i].len);
		free(literal);
	}

	/* a length that does not fit into an int is refused, not cut */
	assert_null(spine_generator_tenant_literal("x", (size_t) INT32_MAX + 1));
	assert_null(spine_generator_tenant_literal("x", (size_t) UINT32_MAX + 2));
}

static void
test_event_times(void **state)
{
	static const struct
	{
		int64_t		unix_time_us;
		const char *text;
	}			times[] = {
		{0, "1970-01-01T00:00:00.000000Z"},
		{1, "1970-01-01T00:00:00.000001Z"},
		{SECOND - 1, "1970-01-01T00:00:00.999999Z"},
		{86400 * SECOND - 1, "1970-01-01T23:59:59.999999Z"},
		{951782399 * SECOND, "2000-02-28T23:59:59.000000Z"},
		{951782400 * SECOND, "2000-02-29T00:00:00.000000Z"},
		{951868800 * SECOND, "2000-03-01T00:00:00.000000Z"},
		{INT64_C(1000000000000001), "2001-09-09T01:46:40.000001Z"},
		{INT64_C(1709164800) * SECOND, "2024-02-29T00:00:00.000000Z"},
		{INT64_C(2147483648) * SECOND, "2038-01-19T03:14:08.000000Z"},
		{INT64_C(4107542400) * SECOND, "2100-03-01T00:00:00.000000Z"},
		{INT64_C(253402300799) * SECOND + 999999, "9999-12-31T23:59:59.999999Z"}
	};
	SpineRandom random;
	SpineField	fields[NFIELDS];

	(void) state;
	/* the server's time zone has no influence */
	setenv("TZ", "NPT-5:45", 1);
	tzset();
	spine_generator_seed(&random, 1);
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
	{
		make_event(&random, "\"t\"", times[i].unix_time_us, fields);
		expect_text(&fields[EVENT_TIME], times[i].text, strlen(times[i].text));
	}
}

static int
compare_uuids(const void *a, const void *b)
{
	return memcmp(a, b, 36);
}

/* cmocka's own assertions on ranges change their names from version to version. */
static void
assert_between(double value, double lowest, double highest)
{
	if (value < lowest || value > highest)
		fail_msg("%g is not between %g and %g", value, lowest, highest);
}

/* Draws often enough to meet the rare ends of the ranges; the seed is fixed. */
static void
test_distribution(void **state)
{
	enum
	{
		DRAWS = 1300000, UUIDS = 130000
	};
	static const char *const types[] = {
		"order_placed", "order_paid", "order_shipped", "order_cancelled"
	};
	static const int weights[] = {5, 4, 3, 1};
	int			counts[4] = {0};
	int			variants[4] = {0};
	char		(*uuids)[36] = malloc(UUIDS * 36);
	long		min_order = 1000000, max_order = 0, low_orders = 0;
	long		min_amount = 1000000, max_amount = 0, low_amounts = 0;
	SpineRandom random;
	SpineField	fields[NFIELDS];

	(void) state;
	assert_non_null(uuids);
	spine_generator_seed(&random, 42);
	for (int i = 0; i < DRAWS; i++)
	{
		long		order;
		long		amount;
		const char *uuid;
		int			type = 0;

		make_event(&random, "\"t\"", i, fields);
		while (type < 4 && (strlen(types[type]) != fields[EVENT_TYPE].len ||
							memcmp(types[type], fields[EVENT_TYPE].text, strlen(types[type])) != 0))
			type++;
		assert_true(type < 4);
		counts[type]++;

		order = number_after(&fields[ORDER_ID], "ord-");
		amount = number_after(&fields[AMOUNT_CENTS], "");
		min_order = order < min_order ? order : min_order;
		max_order = order > max_order ? order : max_order;
		low_orders += order <= 50000;
		min_amount = amount < min_amount ? amount : min_amount;
		max_amount = amount > max_amount ? amount : max_amount;
		low_amounts += amount < 25250;

		assert_int_equal(fields[EVENT_ID].len, 36);
		uuid = fields[EVENT_ID].text;
		for (int j = 0; j < 36; j++)
		{
			if (j == 8 || j == 13 || j == 18 || j == 23)
				assert_int_equal(uuid[j], '-');
			else
				assert_non_null(memchr("0123456789abcdef", uuid[j], 16));
		}
		assert_int_equal(uuid[14], '4');
		assert_true(strchr("89ab", uuid[19]) != NULL);
		variants[strchr("89ab", uuid[19]) - "89ab"]++;
		if (i < UUIDS)
			memcpy(uuids[i], uuid, 36);
	}

	for (int type = 0; type < 4; type++)
	{
		int			expected = DRAWS / 13 * weights[type];

		print_message("%s: %d of %d, expected %d\n", types[type], counts[type], DRAWS, expected);
		assert_between(counts[type], expected * 0.98, expected * 1.02);
		assert_between(variants[type], DRAWS / 4 * 0.98, DRAWS / 4 * 1.02);
	}
	assert_int_equal(min_order, 1);
	assert_int_equal(max_order, 100000);
	assert_int_equal(min_amount, 500);
	assert_int_equal(max_amount, 50000);
	assert_between(low_orders, DRAWS * 0.49, DRAWS * 0.51);
	assert_between(low_amounts, DRAWS * 0.49, DRAWS * 0.51);

	qsort(uuids, UUIDS, 36, compare_uuids);
	for (int i = 1; i < UUIDS; i++)
		assert_memory_not_equal(uuids[i - 1], uuids[i], 36);
	free(uuids);
}

static void
test_short_buffer(void **state)
{
	SpineRandom random;
	SpineRandom again;
	char		whole[1024];
	size_t		len;

	(void) state;
	spine_generator_seed(&random, 3);
	again = random;
	len = spine_generator_event(&random, "\"t\"", 0, whole, sizeof(whole));
	for (size_t size = 0; size <= len + 1; size++)
	{
		char	   *buf = malloc(size + 1);

		memset(buf, '#', size + 1);
		random = again;
		assert_int_equal(spine_generator_event(&random, "\"t\"", 0, buf, size), len);
		assert_int_equal(buf[size], '#');
		if (size > 0)
		{
			assert_memory_equal(buf, whole, size - 1);
			assert_int_equal(buf[size - 1], '\0');
		}
		free(buf);
	}
	random = again;
	assert_int_equal(spine_generator_event(&random, "\"t\"", 0, NULL, 0), len);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seed),
		cmocka_unit_test(test_deterministic),
		cmocka_unit_test(test_tenants),
		cmocka_unit_test(test_event_times),
		cmocka_unit_test(test_distribution),
		cmocka_unit_test(test_short_buffer),
	};

	return cmocka_run_group_tests_name("generate", tests, setup, teardown);
}

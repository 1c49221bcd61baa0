/*
 * test_reduce.c
 *		Exactly the newest row of each key stays, in the order of the log.
 *
 * What would break this: comparing only a prefix of the keys or only their hash, taking
 * an empty key for no key, a search that ends at the wrong entry or leaves the table, an
 * earlier row that wins over a later one of equal version, or a result that is not in
 * ascending order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "event/reduce.h"

#define BYTES(literal)	{literal, sizeof(literal) - 1}

/* Lies around the memory that is lent to spine_reduce, and must survive. */
#define GUARD	0xDEADBEEF

typedef struct Versions
{
	const int  *version;
	size_t		ncalls;
} Versions;

static bool
is_newer(size_t candidate, size_t incumbent, void *arg)
{
	Versions   *versions = arg;

	assert_true(candidate > incumbent);
	versions->ncalls++;
	return versions->version[candidate] >= versions->version[incumbent];
}

/* Runs spine_reduce with exactly the memory that it may use. */
static size_t
reduce(const SpineReduceKey *keys, size_t n, const int *version, uint32_t *kept)
{
	size_t		size = spine_reduce_table_size(n);
	uint32_t   *table = malloc((size + 2) * sizeof(uint32_t));
	Versions	versions = {version, 0};
	size_t		nkept;

	assert_non_null(table);
	assert_true(size > n);
	assert_true((size & (size - 1)) == 0);
	for (size_t i = 0; i < size + 2; i++)
		table[i] = GUARD;
	kept[n] = GUARD;
	nkept = spine_reduce(keys, n, is_newer, &versions, table + 1, kept);
	assert_int_equal(table[0], GUARD);
	assert_int_equal(table[size + 1], GUARD);
	assert_int_equal(kept[n], GUARD);
	assert_true(versions.ncalls <= n);
	free(table);
	return nkept;
}

static void
expect_kept(const SpineReduceKey *keys, size_t n, const int *version,
			const uint32_t *expected, size_t nexpected)
{
	uint32_t	kept[100];

	assert_true(n < 100);
	assert_int_equal(reduce(keys, n, version, kept), nexpected);
	for (size_t i = 0; i < nexpected; i++)
		assert_int_equal(kept[i], expected[i]);
}

static void
test_nothing_and_one(void **state)
{
	SpineReduceKey key = BYTES("k");
	SpineReduceKey none = {NULL, 0};
	int			version = 1;
	uint32_t	first = 0;

	(void) state;
	expect_kept(NULL, 0, NULL, NULL, 0);
	expect_kept(&key, 1, &version, &first, 1);
	expect_kept(&none, 1, &version, &first, 1);
}

static void
test_newest_stays(void **state)
{
	SpineReduceKey keys[] = {
		BYTES("a"), BYTES("b"), BYTES("a"), BYTES("b"), BYTES("c"), BYTES("a"), BYTES("b")
	};

	(void) state;
	/* in order; out of order; the newest first, last and in between */
	expect_kept(keys, 7, (int[]) {1, 1, 2, 2, 1, 3, 3}, (uint32_t[]) {4, 5, 6}, 3);
	expect_kept(keys, 7, (int[]) {3, 3, 2, 2, 1, 1, 1}, (uint32_t[]) {0, 1, 4}, 3);
	expect_kept(keys, 7, (int[]) {1, 9, 3, 2, 1, 2, 3}, (uint32_t[]) {1, 2, 4}, 3);

	/* equal versions: the latest one wins, however many there are */
	expect_kept(keys, 7, (int[]) {5, 5, 5, 5, 5, 5, 5}, (uint32_t[]) {4, 5, 6}, 3);
	expect_kept(keys, 7, (int[]) {5, 5, 4, 5, 5, 5, 4}, (uint32_t[]) {3, 4, 5}, 3);
}

static void
test_rows_without_key_stay(void **state)
{
	SpineReduceKey keys[] = {
		{NULL, 0}, BYTES(""), {NULL, 0}, BYTES(""), {NULL, 5}, BYTES("a")
	};

	(void) state;
	expect_kept(keys, 6, (int[]) {1, 1, 1, 1, 1, 1}, (uint32_t[]) {0, 2, 3, 4, 5}, 5);
	expect_kept(keys, 6, (int[]) {3, 3, 2, 2, 1, 1}, (uint32_t[]) {0, 1, 2, 4, 5}, 5);
}

static void
test_similar_keys_are_different(void **state)
{
	SpineReduceKey keys[] = {
		BYTES(""), BYTES("\0"), BYTES("\0\0"), BYTES("a"), BYTES("a\0"), BYTES("ab"),
		BYTES("abcdefg"), BYTES("abcdefgh"), BYTES("abcdefgh\0"), BYTES("abcdefghi"),
		BYTES("abcdefgi"), BYTES("bbcdefgh"), BYTES("\0\0\0\0\0\0\0"), BYTES("\0\0\0\0\0\0\0\0"),
		BYTES("\xff"), BYTES("\xff\xff\xff\xff\xff\xff\xff\xff")
	};
	int			version[16] = {0};
	uint32_t	all[16];

	(void) state;
	for (uint32_t i = 0; i < 16; i++)
		all[i] = i;
	expect_kept(keys, 16, version, all, 16);
}

/* Keys are equal if their bytes are, wherever the bytes are and however aligned. */
static void
test_equal_keys_elsewhere(void **state)
{
	char		memory[16 * 40];
	SpineReduceKey keys[16];
	int			version[16];

	(void) state;
	for (int len = 0; len < 32; len++)
	{
		for (int i = 0; i < 16; i++)
		{
			keys[i].key = memory + 40 * i + i % 8;
			keys[i].len = len;
			memset(memory + 40 * i + i % 8, 'x', len);
			memory[40 * i + i % 8 + len] = (char) i;
			version[i] = i;
		}
		expect_kept(keys, 16, version, (uint32_t[]) {15}, 1);
	}
}

/* The model: a row stays if no row of its key is newer, or equally new and later. */
static size_t
reduce_naively(const SpineReduceKey *keys, size_t n, const int *version, uint32_t *kept)
{
	size_t		nkept = 0;

	for (size_t i = 0; i < n; i++)
	{
		bool		beaten = false;

		for (size_t j = 0; j < n && keys[i].key != NULL; j++)
		{
			if (keys[j].key != NULL && keys[j].len == keys[i].len &&
				memcmp(keys[j].key, keys[i].key, keys[i].len) == 0 &&
				(version[j] > version[i] || (version[j] == version[i] && j > i)))
				beaten = true;
		}
		if (!beaten)
			kept[nkept++] = i;
	}
	return nkept;
}

static void
test_random_batches(void **state)
{
	enum
	{
		MAX_ROWS = 300
	};
	static char texts[MAX_ROWS][24];
	SpineReduceKey keys[MAX_ROWS];
	int			version[MAX_ROWS];
	uint32_t	expected[MAX_ROWS];
	uint32_t	kept[MAX_ROWS + 1];

	(void) state;
	srand(1);
	for (int round = 0; round < 3000; round++)
	{
		size_t		n = rand() % MAX_ROWS;
		int			nkeys = 1 + rand() % (round % 3 == 0 ? 3 : 400);
		int			nversions = 1 + rand() % (round % 2 == 0 ? 3 : 1000);
		size_t		nkept;

		for (size_t i = 0; i < n; i++)
		{
			keys[i].key = texts[i];
			keys[i].len = snprintf(texts[i], sizeof(texts[i]), "%.*s%d",
								   round % 11, "tenant-tenant", rand() % nkeys);
			if (rand() % 50 == 0)
				keys[i].key = NULL;
			version[i] = rand() % nversions;
		}
		nkept = reduce(keys, n, version, kept);
		assert_int_equal(nkept, reduce_naively(keys, n, version, expected));
		assert_memory_equal(kept, expected, nkept * sizeof(uint32_t));
	}
}

/*
 * Many keys of many kinds.  Collisions in the table are certain; a hash that puts
 * everything in one place would make this take minutes.
 */
static void
test_many_keys(void **state)
{
	uint32_t	n = 200000;
	SpineReduceKey *keys = malloc(n * sizeof(SpineReduceKey));
	int		   *version = calloc(n, sizeof(int));
	uint64_t   *numbers = calloc(n, sizeof(uint64_t));
	uint32_t   *kept = malloc((n + 1) * sizeof(uint32_t));

	(void) state;
	for (int shift = 0; shift <= 44; shift += 11)
	{
		for (uint32_t i = 0; i < n; i++)
		{
			numbers[i] = (uint64_t) i << shift;
			keys[i].key = &numbers[i];
			keys[i].len = sizeof(uint64_t);
		}
		assert_int_equal(reduce(keys, n, version, kept), n);
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(kept[i], i);

		/* the first half's keys again: the later rows replace the earlier */
		for (uint32_t i = n / 2; i < n; i++)
			numbers[i] = numbers[i - n / 2];
		assert_int_equal(reduce(keys, n, version, kept), n / 2);
		for (uint32_t i = 0; i < n / 2; i++)
			assert_int_equal(kept[i], n / 2 + i);
	}
	free(keys);
	free(version);
	free(numbers);
	free(kept);
}

static jmp_buf after_error;

static bool
raise_error(size_t candidate, size_t incumbent, void *arg)
{
	(void) candidate;
	(void) incumbent;
	(void) arg;
	longjmp(after_error, 1);
}

/* An error in the comparison leaves nothing behind; the leak check watches. */
static void
test_comparison_raises(void **state)
{
	SpineReduceKey keys[] = {BYTES("a"), BYTES("a")};
	uint32_t	table[8];
	uint32_t	kept[2];

	(void) state;
	assert_true(spine_reduce_table_size(2) <= 8);
	if (setjmp(after_error) == 0)
	{
		spine_reduce(keys, 2, raise_error, NULL, table, kept);
		fail();
	}
	expect_kept(keys, 2, (int[]) {1, 1}, (uint32_t[]) {1}, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_and_one),
		cmocka_unit_test(test_newest_stays),
		cmocka_unit_test(test_rows_without_key_stay),
		cmocka_unit_test(test_similar_keys_are_different),
		cmocka_unit_test(test_equal_keys_elsewhere),
		cmocka_unit_test(test_random_batches),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_comparison_raises),
	};

	return cmocka_run_group_tests_name("reduce", tests, NULL, NULL);
}

/*
 * test_arena.c
 *		Pieces of an arena never overlap, and a reset takes all of them back.
 *
 * What would break this: a piece that reaches past its chunk or into its neighbour, a size
 * that overflows, a piece that is not aligned, memory that a reset keeps for ever, or a
 * failed malloc that damages what was given out before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "event/arena.h"
#include "scarce_memory.h"

#define MAX_PIECES	2000

typedef struct Piece
{
	unsigned char *bytes;
	size_t		size;
} Piece;

/* Takes a piece and fills it with what only this piece has. */
static Piece
take(SpineArena *arena, size_t size, int i)
{
	Piece		piece = {spine_arena_alloc(arena, size), size};

	assert_non_null(piece.bytes);
	assert_int_equal((uintptr_t) piece.bytes % 8, 0);
	memset(piece.bytes, i * 37 % 251, size);
	return piece;
}

static void
expect_untouched(const Piece *pieces, int n)
{
	for (int i = 0; i < n; i++)
	{
		for (size_t at = 0; at < pieces[i].size; at++)
		{
			if (pieces[i].bytes[at] != i * 37 % 251)
				fail_msg("byte %zu of piece %d, of %zu bytes, was overwritten", at, i, pieces[i].size);
		}
	}
}

static size_t
random_size(int round)
{
	switch (rand() % (round % 2 ? 40 : 4))
	{
		case 0:
			return rand() % 8;
		case 1:
			return rand() % 100000;
		default:
			return rand() % 300;
	}
}

static void
test_pieces(void **state)
{
	static Piece pieces[MAX_PIECES];
	SpineArena	arena = {0};

	(void) state;
	srand(1);
	for (int round = 0; round < 20; round++)
	{
		for (int i = 0; i < MAX_PIECES; i++)
			pieces[i] = take(&arena, random_size(round), i);
		expect_untouched(pieces, MAX_PIECES);
		spine_arena_reset(&arena);
	}
	spine_arena_free(&arena);
}

/* Every size, and every size after every other, around those where something changes. */
static void
test_sizes(void **state)
{
	static const size_t around[] = {0, 8, 16384, 32768, 65536, 131072};
	enum
	{
		NAROUND = sizeof(around) / sizeof(around[0]), NSIZES = NAROUND * 50
	};
	static Piece pieces[NSIZES * 2];
	SpineArena	arena = {0};

	(void) state;
	for (int first = 0; first < NSIZES; first++)
	{
		int			n = 0;

		for (int i = first; i < NSIZES; i += 7)
		{
			size_t		size = around[i % NAROUND] + i / NAROUND;

			pieces[n] = take(&arena, size < 24 ? 0 : size - 24, n);
			n++;
		}
		expect_untouched(pieces, n);
		spine_arena_reset(&arena);
	}
	spine_arena_free(&arena);
}

static void
test_impossible_sizes(void **state)
{
	SpineArena	arena = {0};
	Piece		piece;

	(void) state;
	assert_null(spine_arena_alloc(&arena, SIZE_MAX));
	piece = take(&arena, 100, 0);
	for (size_t less = 0; less < 100; less++)
		assert_null(spine_arena_alloc(&arena, SIZE_MAX - less));
	expect_untouched(&piece, 1);
	spine_arena_free(&arena);
}

/* A failed malloc leaves what there is, and later there may be memory again. */
static void
test_no_memory(void **state)
{
	SpineArena	arena = {0};
	Piece		pieces[MAX_PIECES];
	int			nrefused = 0;

	(void) state;
	allocations_left = 0;
	assert_null(spine_arena_alloc(&arena, 0));
	assert_null(spine_arena_alloc(&arena, 100000));
	allocations_left = -1;

	srand(2);
	for (int i = 0; i < MAX_PIECES; i++)
	{
		size_t		size = random_size(0);

		allocations_left = rand() % 2;
		if (spine_arena_alloc(&arena, size) == NULL)
			nrefused++;
		allocations_left = -1;
		pieces[i] = take(&arena, size, i);
	}
	assert_true(nrefused > 100);
	expect_untouched(pieces, MAX_PIECES);
	spine_arena_free(&arena);
}

/* One chunk stays, whatever was there, and it is used again. */
static void
test_reset(void **state)
{
	SpineArena	arena = {0};
	long		before = live_allocations;
	void	   *first = NULL;

	(void) state;
	spine_arena_reset(&arena);
	assert_int_equal(live_allocations, before);
	for (int round = 0; round < 5; round++)
	{
		void	   *again = spine_arena_alloc(&arena, 24);

		if (first)
			assert_ptr_equal(again, first);
		first = again;
		for (int i = 0; i < 1000 * round; i++)
			(void) take(&arena, 1000, i);
		for (int i = 0; i < 3 * round; i++)
			(void) take(&arena, 1000000, i);
		assert_true(live_allocations - before >= 1 + 18 * round);
		spine_arena_reset(&arena);
		assert_int_equal(live_allocations - before, 1);
	}

	/* a large piece alone is no reason to keep one */
	spine_arena_free(&arena);
	assert_int_equal(live_allocations, before);
	(void) take(&arena, 1000000, 0);
	spine_arena_reset(&arena);
	assert_int_equal(live_allocations, before);
	spine_arena_free(&arena);
}

/* A batch of a few records takes nothing from malloc. */
static void
test_small_batches(void **state)
{
	SpineArena	arena = {0};

	(void) state;
	(void) take(&arena, 1, 0);
	allocations_left = 0;
	for (int round = 0; round < 10; round++)
	{
		spine_arena_reset(&arena);
		for (int i = 0; i < 300; i++)
			(void) take(&arena, 150, i);
	}
	allocations_left = -1;
	spine_arena_free(&arena);
}

#ifdef SPINE_ARENA_GUARDS
/* AddressSanitizer knows what is given out. */
static void
test_guards(void **state)
{
	SpineArena	arena = {0};
	char	   *piece = spine_arena_alloc(&arena, 13);
	char	   *next = spine_arena_alloc(&arena, 1);

	(void) state;
	assert_false(__asan_address_is_poisoned(piece + 12));
	assert_true(__asan_address_is_poisoned(piece + 13));
	assert_true(__asan_address_is_poisoned(next - 1));
	assert_false(__asan_address_is_poisoned(next));
	assert_true(__asan_address_is_poisoned(next + 1));
	spine_arena_reset(&arena);
	assert_true(__asan_address_is_poisoned(piece));
	assert_true(__asan_address_is_poisoned(next));
	spine_arena_free(&arena);
}
#endif

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_impossible_sizes),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_small_batches),
#ifdef SPINE_ARENA_GUARDS
		cmocka_unit_test(test_guards),
#endif
	};

	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}

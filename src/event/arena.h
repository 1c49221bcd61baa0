/*
 * arena.h
 *		Memory that is given out piece by piece and taken back all at once.
 *
 * For the pure parts, which have no palloc.  All zeroes is a valid, empty arena.
 */
#ifndef SPINE_ARENA_H
#define SPINE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SPINE_ARENA_GUARDS
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SPINE_ARENA_GUARDS
#endif

/*
 * Tells AddressSanitizer what is given out, so that it reports any use of the bytes between
 * two pieces, and of a piece after the reset.
 */
#ifdef SPINE_ARENA_GUARDS
#include <sanitizer/asan_interface.h>
#define SPINE_ARENA_GUARD_BYTES	8
#else
#define SPINE_ARENA_GUARD_BYTES	0
#define ASAN_POISON_MEMORY_REGION(address, size)	((void) 0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size)	((void) 0)
#endif

typedef struct SpineArenaChunk SpineArenaChunk;

typedef struct SpineArena
{
	char	   *at;				/* free from here, aligned */
	char	   *end;
	SpineArenaChunk *kept;		/* stays over a reset */
	SpineArenaChunk *others;
} SpineArena;

/* For spine_arena_alloc, when the current chunk has no room left. */
extern void *spine_arena_grow(SpineArena *arena, size_t size);

/* Uninitialized memory, aligned to 8 bytes; NULL if there is none. */
static inline void *
spine_arena_alloc(SpineArena *arena, size_t size)
{
	char	   *piece = arena->at;
	size_t		room = (size_t) (arena->end - piece);

	/* a chunk never fills up, so that a size of 0 gets an address of its own, too */
	if (size >= room || room - size < 8 + SPINE_ARENA_GUARD_BYTES)
		return spine_arena_grow(arena, size);
	arena->at = piece + ((size + 7) & ~(size_t) 7) + SPINE_ARENA_GUARD_BYTES;
	ASAN_UNPOISON_MEMORY_REGION(piece, size);
	return piece;
}

/*
 * Takes everything back.  Keeps one chunk, which is enough for a batch of a few records, and
 * frees the others, so that a huge batch does not cost memory forever.
 */
extern void spine_arena_reset(SpineArena *arena);

/* Frees all that the arena has.  The arena is empty afterwards. */
extern void spine_arena_free(SpineArena *arena);

#endif							/* SPINE_ARENA_H */

/*
 * arena.c
 *		Memory that is given out piece by piece and taken back all at once.
 */
#include "event/arena.h"

#include <stdlib.h>

/* Bytes for small pieces.  The fuzzer sets its own size. */
#ifndef SPINE_ARENA_CHUNK
#define SPINE_ARENA_CHUNK	65536
#endif
#define CHUNK_SIZE		((size_t) SPINE_ARENA_CHUNK)

/* A larger piece gets a chunk of its own, so that it wastes nothing of a shared one. */
#define MAX_SHARED		(CHUNK_SIZE / 4)

struct SpineArenaChunk
{
	SpineArenaChunk *next;
	uint64_t	bytes[];
};

static SpineArenaChunk *
make_chunk(size_t size)
{
	SpineArenaChunk *chunk;

	if (size > SIZE_MAX - sizeof(SpineArenaChunk))
		return NULL;
	chunk = malloc(sizeof(SpineArenaChunk) + size);
	if (chunk)
		chunk->next = NULL;
	return chunk;
}

/* Small pieces come from this chunk from now on. */
static void
use_chunk(SpineArena *arena, SpineArenaChunk *chunk)
{
	arena->at = (char *) chunk->bytes;
	arena->end = arena->at + CHUNK_SIZE;
	ASAN_POISON_MEMORY_REGION(arena->at, CHUNK_SIZE);
}

static void
add_chunk(SpineArena *arena, SpineArenaChunk *chunk)
{
	chunk->next = arena->others;
	arena->others = chunk;
}

void *
spine_arena_grow(SpineArena *arena, size_t size)
{
	SpineArenaChunk *chunk = make_chunk(size > MAX_SHARED ? size : CHUNK_SIZE);

	if (chunk == NULL)
		return NULL;
	if (size > MAX_SHARED)
	{
		add_chunk(arena, chunk);
		return chunk->bytes;
	}
	if (arena->kept)
		add_chunk(arena, chunk);
	else
		arena->kept = chunk;
	use_chunk(arena, chunk);
	return spine_arena_alloc(arena, size);
}

void
spine_arena_reset(SpineArena *arena)
{
	while (arena->others)
	{
		SpineArenaChunk *chunk = arena->others;

		arena->others = chunk->next;
		free(chunk);
	}
	if (arena->kept)
		use_chunk(arena, arena->kept);
}

void
spine_arena_free(SpineArena *arena)
{
	spine_arena_reset(arena);
	free(arena->kept);
	*arena = (SpineArena) {0};
}

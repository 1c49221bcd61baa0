/*
 * scarce_memory.h
 *		malloc and calloc that fail when a test says so, and a count of what they gave.
 *
 * Needs the linker's --wrap for malloc, calloc and free: see SCARCE in unit.mk.  The
 * shared libraries keep the real ones.
 */
#ifndef SPINE_SCARCE_MEMORY_H
#define SPINE_SCARCE_MEMORY_H

#include <stdlib.h>

extern void *__real_malloc(size_t size);
extern void *__real_calloc(size_t n, size_t size);
extern void __real_free(void *pointer);
extern void *__wrap_malloc(size_t size);
extern void *__wrap_calloc(size_t n, size_t size);
extern void __wrap_free(void *pointer);

/* So many allocations succeed, and the next fails; negative: all succeed. */
static long allocations_left = -1;

/* Given and not freed yet. */
static long live_allocations = 0;

static void *
count_allocation(void *pointer)
{
	live_allocations += pointer != NULL;
	return pointer;
}

/* AddressSanitizer would end the program for a size that no machine has. */
static int
is_refused(size_t size)
{
	if (size > (size_t) 1 << 40)
		return 1;
	if (allocations_left > 0)
		allocations_left--;
	else if (allocations_left == 0)
		return 1;
	return 0;
}

void *
__wrap_malloc(size_t size)
{
	return is_refused(size) ? NULL : count_allocation(__real_malloc(size));
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return is_refused(size) ? NULL : count_allocation(__real_calloc(n, size));
}

void
__wrap_free(void *pointer)
{
	live_allocations -= pointer != NULL;
	__real_free(pointer);
}

#endif							/* SPINE_SCARCE_MEMORY_H */

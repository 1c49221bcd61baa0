/*
 * reduce.h
 *		The latest version per key within a batch.
 */
#ifndef SPINE_REDUCE_H
#define SPINE_REDUCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A row's key as bytes.  Two rows have the same key if these bytes are equal.
 * NULL: the row has no key that can be compared, and is always kept.
 */
typedef struct SpineReduceKey
{
	const void *key;
	size_t		len;
} SpineReduceKey;

/*
 * Is the version of row `candidate` at least as new as that of `incumbent`?
 * The candidate is always later in the log, so an equal version is newer.
 * It may longjmp out of spine_reduce, which owns nothing.
 */
typedef bool (*SpineIsNewer)(size_t candidate, size_t incumbent, void *arg);

/* How many table entries spine_reduce needs for n rows: a power of two. */
extern size_t spine_reduce_table_size(size_t n);

/*
 * Writes the indexes of the rows to keep to kept[], in ascending order, and returns
 * their number.  kept has room for n.  table is working memory of
 * spine_reduce_table_size(n) entries; what is in it does not matter, before or after.
 */
extern size_t spine_reduce(const SpineReduceKey *keys, size_t n,
						   SpineIsNewer is_newer, void *arg,
						   uint32_t *table, uint32_t *kept);

#endif							/* SPINE_REDUCE_H */

/*
 * reduce.h
 *		The latest version per key within a batch.
 */
#ifndef SPINE_REDUCE_H
#define SPINE_REDUCE_H

#include "event/record.h"

/*
 * A row's key as bytes: two rows are of one key when their bytes are equal.
 * key == NULL marks a row without a comparable key; it is always kept.
 */
typedef struct SpineReduceKey
{
	const void *key;
	size_t		len;
} SpineReduceKey;

/*
 * Is the version of row `candidate` at least as new as that of `incumbent`?
 * candidate always stands later in the log, so that an equal version is newer.
 * May raise an error (longjmp): spine_reduce holds nothing that would leak.
 */
typedef bool (*SpineIsNewer) (size_t candidate, size_t incumbent, void *arg);

/* Entries the caller provides as working memory for n rows: a power of two. */
extern size_t spine_reduce_table_size(size_t n);

/*
 * Writes the indexes of the rows to keep to kept[] (room for n), in ascending
 * order, and returns how many.  table: spine_reduce_table_size(n) entries of
 * working memory, contents undefined before and after.
 */
extern size_t spine_reduce(const SpineReduceKey *keys, size_t n,
						   SpineIsNewer is_newer, void *arg,
						   uint32_t *table, uint32_t *kept);

#endif							/* SPINE_REDUCE_H */

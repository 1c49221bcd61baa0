/*
 * reduce.c
 *		The latest version per key within a batch, so that the database writes
 *		each key once.
 *
 * An open-addressing hash table in the caller's memory holds the index of the
 * newest row so far of each key.  What a key or a version consists of is the
 * caller's affair.
 */
#include "event/reduce.h"

#include <string.h>

#include "event/key_hash.h"

#define EMPTY	UINT32_MAX

size_t
spine_reduce_table_size(size_t n)
{
	size_t		size = 2;

	/* at most half full, so that a search is short and ends at an empty entry */
	while (size < n * 2)
		size *= 2;
	return size;
}

/* The entry of this key, or the empty entry where the key belongs. */
static uint32_t *
find_entry(const SpineReduceKey *keys, const SpineReduceKey *key,
		   const SpineKeySecret *secret, uint32_t *table, size_t mask)
{
	size_t		slot = spine_key_hash(secret, key->key, key->len) & mask;

	while (table[slot] != EMPTY)
	{
		const SpineReduceKey *other = &keys[table[slot]];

		if (other->len == key->len && memcmp(other->key, key->key, key->len) == 0)
			break;
		slot = (slot + 1) & mask;
	}
	return &table[slot];
}

size_t
spine_reduce(const SpineReduceKey *keys, size_t n, SpineIsNewer is_newer,
			 void *arg, uint32_t *table, uint32_t *kept)
{
	size_t		size = spine_reduce_table_size(n);
	SpineKeySecret secret = spine_key_secret();
	size_t		nkept = 0;

	memset(table, 0xff, size * sizeof(table[0]));

	/*
	 * In this loop kept[row] is a flag: no newer row of its key was found.  The next loop
	 * turns the flags into indexes.
	 */
	for (size_t row = 0; row < n; row++)
	{
		uint32_t   *entry;

		kept[row] = true;
		if (keys[row].key == NULL)
			continue;
		entry = find_entry(keys, &keys[row], &secret, table, size - 1);
		if (*entry != EMPTY)
		{
			if (!is_newer(row, *entry, arg))
			{
				kept[row] = false;
				continue;
			}
			kept[*entry] = false;
		}
		*entry = (uint32_t) row;
	}

	for (size_t row = 0; row < n; row++)
	{
		if (kept[row])
			kept[nkept++] = (uint32_t) row;
	}
	return nkept;
}

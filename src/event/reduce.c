/*
 * reduce.c
 *		The latest version per key within a batch, so that the database writes
 *		each key once.
 *
 * An open-addressing hash table in the caller's memory holds the index of the
 * newest row so far of each key.  What a key or a version consists of is the
 * caller's affair.
 */
#include <string.h>
#include <unistd.h>

#include "event/reduce.h"

#define EMPTY	UINT32_MAX

#define ROTATE_LEFT(x, n)	(((x) << (n)) | ((x) >> (64 - (n))))

static void
sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = ROTATE_LEFT(v[1], 13) ^ v[0];
	v[0] = ROTATE_LEFT(v[0], 32);
	v[2] += v[3];
	v[3] = ROTATE_LEFT(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = ROTATE_LEFT(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = ROTATE_LEFT(v[1], 17) ^ v[2];
	v[2] = ROTATE_LEFT(v[2], 32);
}

/*
 * SipHash-1-3 (Aumasson and Bernstein, https://github.com/veorq/SipHash, CC0).
 * Everyone who may write to the topic chooses keys.  Without a secret in the hash,
 * they could choose keys that collide, and each search would visit all of them.
 */
static uint64_t
hash_bytes(const uint64_t secret[2], const unsigned char *bytes, size_t len)
{
	uint64_t	v[4] = {
		secret[0] ^ UINT64_C(0x736f6d6570736575),
		secret[1] ^ UINT64_C(0x646f72616e646f6d),
		secret[0] ^ UINT64_C(0x6c7967656e657261),
		secret[1] ^ UINT64_C(0x7465646279746573)
	};
	uint64_t	word;

	for (size_t left = len; left >= 8; left -= 8, bytes += 8)
	{
		memcpy(&word, bytes, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}

	/* the last word: the remaining bytes, and the length in its highest byte */
	word = (uint64_t) len << 56;
	for (size_t i = 0; i < len % 8; i++)
		word |= (uint64_t) bytes[i] << (8 * i);
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;

	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

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
		   const uint64_t secret[2], uint32_t *table, size_t mask)
{
	size_t		slot = hash_bytes(secret, key->key, key->len) & mask;

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
	uint64_t	secret[2] = {0, 0};
	size_t		nkept = 0;

	/* if the system has no randomness to give, only the secrecy is lost */
	(void) !getentropy(secret, sizeof(secret));
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
		entry = find_entry(keys, &keys[row], secret, table, size - 1);
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

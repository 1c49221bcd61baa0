/*
 * key_hash.h
 *		A hash of keys that those who choose the keys cannot foresee.
 */
#ifndef SPINE_KEY_HASH_H
#define SPINE_KEY_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Of one hash table. */
typedef struct SpineKeySecret
{
	uint64_t	words[2];
} SpineKeySecret;

extern SpineKeySecret spine_key_secret(void);
extern uint64_t spine_key_hash(const SpineKeySecret *secret, const void *key, size_t len);

#endif							/* SPINE_KEY_HASH_H */

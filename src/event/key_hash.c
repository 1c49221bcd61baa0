/*
 * key_hash.c
 *		A hash of keys that those who choose the keys cannot foresee.
 */
#include "event/key_hash.h"

#include <string.h>
#include <unistd.h>

SpineKeySecret
spine_key_secret(void)
{
	SpineKeySecret secret = {{0, 0}};

	/* if the system has no randomness to give, only the secrecy is lost */
	(void) !getentropy(&secret, sizeof(secret));
	return secret;
}

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
uint64_t
spine_key_hash(const SpineKeySecret *secret, const void *key, size_t len)
{
	const unsigned char *bytes = key;
	uint64_t	v[4] = {
		secret->words[0] ^ UINT64_C(0x736f6d6570736575),
		secret->words[1] ^ UINT64_C(0x646f72616e646f6d),
		secret->words[0] ^ UINT64_C(0x6c7967656e657261),
		secret->words[1] ^ UINT64_C(0x7465646279746573)
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

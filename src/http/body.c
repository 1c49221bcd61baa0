/*
 * body.c
 *		Counted references, and counted bytes.
 */
#include "body.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"

#define MIN_COMPRESSED		1000	/* a shorter body fits into a packet anyway */
#define SMALL				4096	/* such bodies are always made: errors, /readyz */

struct Body
{
	atomic_uint holders;
	bool		was_compressed;	/* or at least tried */
	Body	   *compressed;
	size_t		len;
	char		data[];
};

static size_t limit = SIZE_MAX;
static atomic_size_t taken;

void
memory_init(size_t bytes)
{
	limit = bytes;
}

bool
memory_reserve(size_t bytes)
{
	if (atomic_fetch_add(&taken, bytes) + bytes <= limit)
		return true;
	memory_release(bytes);
	return false;
}

void
memory_release(size_t bytes)
{
	atomic_fetch_sub(&taken, bytes);
}

bool
memory_is_short(void)
{
	return atomic_load(&taken) > limit / 2;
}

bool
memory_could_be(size_t bytes)
{
	return bytes <= limit;
}

Body *
body_create(const void *data, size_t len)
{
	Body	   *body;

	if (!memory_reserve(len))
	{
		if (len > SMALL)
			return NULL;
		atomic_fetch_add(&taken, len);
	}
	body = malloc(sizeof(Body) + len);
	if (body == NULL)
	{
		memory_release(len);
		return NULL;
	}
	atomic_init(&body->holders, 1);
	body->was_compressed = false;
	body->compressed = NULL;
	body->len = len;
	memcpy(body->data, data, len);
	return body;
}

const void *
body_data(const Body *body)
{
	return body->data;
}

size_t
body_len(const Body *body)
{
	return body->len;
}

Body *
body_share(Body *body)
{
	if (body)
		atomic_fetch_add(&body->holders, 1);
	return body;
}

void
body_let_go(void *shared)
{
	Body	   *body = shared;

	if (body == NULL || atomic_fetch_sub(&body->holders, 1) > 1)
		return;
	body_let_go(body->compressed);
	memory_release(body->len);
	free(body);
}

Body *
body_compressed(Body *body)
{
	if (!body->was_compressed && body->len >= MIN_COMPRESSED && memory_reserve(body->len))
	{
		size_t		len;
		void	   *data = gzip_compress(body->data, body->len, &len);

		if (data)
			body->compressed = body_create(data, len);
		free(data);
		memory_release(body->len);
		body->was_compressed = true;
	}
	return body->compressed;
}

/*
 * reply.h
 *		What is sent back: status, headers, body.
 */
#ifndef SPINE_HTTP_REPLY_H
#define SPINE_HTTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "body.h"
#include "etag.h"

#define CONTENT_JSON		"application/json"

/* With a 503: the database may be back soon. */
#define RETRY_AFTER_S		1

typedef struct Reply
{
	unsigned	status;
	const char *content_type;	/* a literal, like the next two */
	const char *cache_control;
	const char *allow;			/* NULL: no such header */
	int			retry_after_s;	/* 0: no such header */
	char		etag[ETAG_SIZE];	/* with its quotes; "": none */
	bool		is_gzip;
	bool		is_page;		/* add what a browser is to be told */
	Body	   *body;			/* the reply's, or NULL */
	const void *static_body;	/* instead of body: one that stays, */
	size_t		static_len;		/* and its length */
} Reply;

/*
 * Makes the reply an error, with a text for people and, if it is the fault of
 * one, the name of the parameter.
 */
extern void reply_error(Reply *reply, unsigned status, const char *parameter,
						const char *format,...) __attribute__((format(printf, 4, 5)));

/* Makes it a 503: there is no memory for an answer now. */
extern void reply_no_room(Reply *reply);

/* Compresses the body, if there is one, if that makes it smaller. */
extern void reply_compress(Reply *reply);

/* The length of either body. */
extern size_t reply_len(const Reply *reply);

/* Compressed data, malloc'd; NULL: out of memory, or it would not be smaller. */
extern void *gzip_compress(const void *data, size_t len, size_t *compressed_len);

/* Does an Accept-Encoding header (or NULL) take gzip? */
extern bool accepts_gzip(const char *accept_encoding);

#endif							/* SPINE_HTTP_REPLY_H */

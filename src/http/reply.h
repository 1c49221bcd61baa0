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

/* Sent with a 503, as the database may be back soon. */
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
	bool		is_page;		/* add the headers that restrict the page */
	Body	   *body;			/* belongs to the reply; may be NULL */
	const void *static_body;	/* instead of body: static data, or NULL */
	size_t		static_len;
} Reply;

/*
 * Makes the reply an error, with a text for people and, if a parameter is wrong, its
 * name.  parameter may be NULL.
 */
extern void reply_error(Reply *reply, unsigned status, const char *parameter,
						const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Makes the reply a 503: there is no memory for an answer now. */
extern void reply_no_room(Reply *reply);

/* Compresses the body, if there is one and compression makes it smaller. */
extern void reply_compress(Reply *reply);

/* The length of the body, whichever it is. */
extern size_t reply_len(const Reply *reply);

/* The data compressed, malloc'd.  NULL: out of memory, or it would not be smaller. */
extern void *gzip_compress(const void *data, size_t len, size_t *compressed_len);

/* Does an Accept-Encoding header, which may be NULL, allow gzip? */
extern bool accepts_gzip(const char *accept_encoding);

#endif							/* SPINE_HTTP_REPLY_H */

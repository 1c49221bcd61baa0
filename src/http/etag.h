/*
 * etag.h
 *		Entity tags: https://www.rfc-editor.org/rfc/rfc9110#name-etag
 */
#ifndef SPINE_HTTP_ETAG_H
#define SPINE_HTTP_ETAG_H

#include <stdbool.h>
#include <string.h>

#define ETAG_SIZE		24		/* 64 bits in hex, quotes, NUL, and to spare */

/*
 * Does an If-None-Match header (or NULL) name this tag, which has its quotes, or
 * is "" for none?  No quote can be inside of a tag, and whether one is weak makes
 * no difference here.
 */
static inline bool
etag_matches(const char *if_none_match, const char *etag)
{
	return if_none_match && etag[0] &&
		(strcmp(if_none_match, "*") == 0 || strstr(if_none_match, etag) != NULL);
}

#endif							/* SPINE_HTTP_ETAG_H */

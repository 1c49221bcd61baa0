/*
 * etag.h
 *		Entity tags: https://www.rfc-editor.org/rfc/rfc9110#name-etag
 */
#ifndef SPINE_HTTP_ETAG_H
#define SPINE_HTTP_ETAG_H

#include <stdbool.h>
#include <string.h>

#define ETAG_SIZE		24		/* more than 64 bits in hex, quotes and NUL */

/*
 * Does an If-None-Match header name this tag?  The header may be NULL; the tag has
 * its quotes, or is "" for none.  A tag cannot contain a quote, so a search for the
 * text is enough.  Weak or strong makes no difference here.
 */
static inline bool
etag_matches(const char *if_none_match, const char *etag)
{
	return if_none_match && etag[0] &&
		(strcmp(if_none_match, "*") == 0 || strstr(if_none_match, etag) != NULL);
}

#endif							/* SPINE_HTTP_ETAG_H */

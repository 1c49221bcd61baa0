/*
 * json_scan.h
 *		A look at every token of a record before json-c gets it.
 */
#ifndef SPINE_JSON_SCAN_H
#define SPINE_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Shorter integers fit json-c's int64, longer ones may not. */
#define SPINE_MAX_INT64_DIGITS	18

/* A record's bytes, and what was found of them.  Start with zeroes. */
typedef struct SpineJsonScan
{
	const unsigned char *start;
	const unsigned char *at;
	const unsigned char *end;
	const char *complaint;		/* about the byte at `at`; NULL with a false
								 * result: out of memory */
	size_t		tree_cost;		/* what json-c will allocate, about */
	bool		nul_in_string;	/* the last string had a \u0000 */
	bool		after_comma;	/* the last token was a comma */

	/*
	 * The record with e0 after each long integer, which makes json-c keep it
	 * as text; NULL while there is none.  malloc'ed, the caller frees it.
	 * Source bytes before `copied` are in it.
	 */
	char	   *copy;
	size_t		copy_len;
	const unsigned char *copied;
} SpineJsonScan;

/*
 * Scans the bytes of one JSON object.  True: every token is valid (RFC 8259),
 * and json-c keeps each exactly, from `copy` if there is one.
 */
extern bool spine_json_scan(SpineJsonScan *scan, const void *bytes, size_t len);

/* Bytes of the UTF-8 sequence, of two or more, that starts at `at`; 0: it is none. */
extern int	spine_utf8_length(const unsigned char *at, const unsigned char *end);

#endif							/* SPINE_JSON_SCAN_H */

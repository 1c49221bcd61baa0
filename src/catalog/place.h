/*
 * place.h
 *		Where in a record a value is: a key, a path, or "$partition" and the like.
 */
#ifndef SPINE_PLACE_H
#define SPINE_PLACE_H

#include "compat.h"

#include "event/path.h"

typedef enum SpinePlaceKind
{
	SPINE_PLACE_PATH,			/* a part of the record's value or key */
	SPINE_PLACE_JSONPATH,		/* the same, but only PostgreSQL's jsonpath finds it */
	SPINE_PLACE_TOPIC,
	SPINE_PLACE_PARTITION,
	SPINE_PLACE_OFFSET,
	SPINE_PLACE_TIMESTAMP,
	SPINE_PLACE_KEY,			/* all of it */
	SPINE_PLACE_VALUE,			/* all of it */
	SPINE_PLACE_HEADER,
	SPINE_PLACE_HEADERS			/* all of them */
} SpinePlaceKind;

typedef struct SpinePlace
{
	SpinePlaceKind kind;
	SpinePath	path;			/* of a path or jsonpath; of the latter, only the root */
	char	   *jsonpath;		/* in the server's encoding */
	char	   *header;			/* its name, in UTF-8 */
} SpinePlace;

/*
 * Reads a place, in the current memory context.  Raises an error that names the column
 * when there is no such place, or the path is not one.  In a transaction.
 */
extern void spine_place_parse(const char *text, const char *column, SpinePlace *place);

/* The place of a key of the record's value, whatever the key is. */
extern char *spine_place_of_key(const char *key);

#endif							/* SPINE_PLACE_H */

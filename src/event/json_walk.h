/*
 * json_walk.h
 *		Takes the fields of all paths out of JSON, in one pass.
 *
 * A path finds what PostgreSQL's jsonb_path_query_first finds in lax mode:
 *	- of equal keys of an object, the last one counts, with everything below it;
 *	- a step to a member of an array goes to that member of its elements, but not to those of
 *	  arrays among them, and the first value that the whole path finds counts;
 *	- element 0 of what is not an array is the thing itself.
 * A strict path finds what the operator -> of jsonb finds: members only of objects, and
 * elements only of arrays and scalars.
 *
 * So a value may be at the end of several paths, and a path may meet several values.  The
 * nodes whose value is being read are the active ones.  The values of a node do not overlap.
 * So while a value is read, each node is active at most once in what is around it, and no
 * byte is read for a node twice.
 */
#ifndef SPINE_JSON_WALK_H
#define SPINE_JSON_WALK_H

#include "event/arena.h"
#include "event/format.h"
#include "event/json_paths.h"
#include "event/json_reader.h"

/* The reading of one record. */
typedef struct SpineJsonWalk
{
	SpineJsonReader reader;
	SpineArena *arena;
	const SpineJsonSpec *specs;
	SpineJsonActive *active;	/* nactive of them */
	size_t		nactive;
	const SpineJsonNode *record;	/* the first of the value's roots, if it can only be an object */
	uint64_t	start;			/* of the record, in the decoder's time */
	uint64_t	now;
	SpineField *fields;
	size_t		memory;			/* what jsonb of the fields takes; of equal keys, each counts */
} SpineJsonWalk;

static const SpineField spine_json_absent = {SPINE_FIELD_ABSENT, 0, {.text = ""}};

/*
 * Reads the JSON that is all of the bytes, for the paths of a root, also the strict ones.
 * only_object: anything but an object is malformed.  The fields must have been absent.
 * SPINE_MALFORMED: the reader has a complaint, and some fields may have been taken.
 */
extern SpineDecodeOutcome spine_json_walk(SpineJsonWalk *walk, SpineJsonNode *root,
										  const void *bytes, size_t len, bool only_object);

/* Makes the fields of a node, and of those below it, absent if they were taken since then. */
extern void spine_json_forget(SpineJsonWalk *walk, SpineJsonNode *node, uint64_t since);

#endif							/* SPINE_JSON_WALK_H */

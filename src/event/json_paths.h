/*
 * json_paths.h
 *		The paths of all fields of a decoder, as one tree.
 *
 * A node of the tree stands for the values at the end of one path.  Its children are the
 * paths that are longer by a step.  A path that several fields ask for has one node.
 */
#ifndef SPINE_JSON_PATHS_H
#define SPINE_JSON_PATHS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "event/format.h"
#include "event/json_reader.h"

typedef struct SpineJsonNode SpineJsonNode;

struct SpineJsonNode
{
	SpineJsonNode *parent;		/* NULL: a root */
	const char *name;			/* of a member; NULL: a root or an element */
	size_t		len;
	uint32_t	element;
	int			nsteps;			/* from the root */
	bool		is_strict;		/* its paths are */
	int			spec;			/* one of those that end here, or -1 */
	SpineJsonNode *next;		/* of a member: the one after it, in a circle */
	bool		has_children;
	int			nmembers;
	int			nelements;
	SpineJsonNode *members;		/* in the order of the specs */
	SpineJsonNode *elements;
	SpineJsonNode **by_name;	/* the same in the order of names */
	SpineJsonNode **by_element;

	/* when a value was last taken for this node, and for any node below it */
	uint64_t	taken;
	uint64_t	taken_below;
};

/* What is asked for at the end of a path. */
typedef struct SpineJsonSpec
{
	bool		as_json;
	bool		for_jsonb;
	int			same_path;		/* the next spec of the same path, in a circle */
	SpineJsonNode *node;
} SpineJsonSpec;

/* A node whose value begins, or one whose members may be in an element of its array. */
typedef struct SpineJsonActive
{
	SpineJsonNode *node;
	SpineJsonNode *guess;		/* the member that comes next, probably */
	bool		is_unwrapped;
} SpineJsonActive;

typedef struct SpineJsonPaths
{
	SpineJsonSpec *specs;
	SpineJsonActive *active;	/* room for two of each node */
	int			nnodes;
	SpineJsonNode nodes[];		/* first the roots, in the order of SpineRoot, then those of
								 * strict paths, in the same order */
} SpineJsonPaths;

/* How many roots a record has.  The root of strict paths is as many nodes behind the other. */
#define SPINE_JSON_ROOTS		2

/* Copies the specs; NULL: no memory.  The caller frees the tree with free(). */
extern SpineJsonPaths *spine_json_paths_make(const SpineFieldSpec *specs, int nspecs);

/* The child for this element, or NULL. */
extern SpineJsonNode *spine_json_find_element(const SpineJsonNode *node, uint32_t element);

/*
 * The child for the member of this name, or NULL.  The guess is one of the members; records
 * mostly have their keys in the order of the specs.
 */
static inline SpineJsonNode *
spine_json_find_member(const SpineJsonNode *node, SpineJsonNode *guess, const SpineJsonValue *name)
{
	int			low = 0;
	int			high = node->nmembers;

	if (high == 0)
		return NULL;
	if (name->len == guess->len && !name->has_escapes && memcmp(name->text, guess->name, name->len) == 0)
		return guess;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		SpineJsonNode *member = node->by_name[middle];
		int			order = spine_json_compare(name, member->name, member->len);

		if (order == 0)
			return member;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

#endif							/* SPINE_JSON_PATHS_H */

/*
 * path.h
 *		Paths into a JSON value: members and elements, as PostgreSQL's jsonpath has them.
 */
#ifndef SPINE_PATH_H
#define SPINE_PATH_H

#include <stdbool.h>
#include <stdint.h>

/* Which part of a record a path starts from. */
typedef enum SpineRoot
{
	SPINE_ROOT_VALUE,
	SPINE_ROOT_KEY
} SpineRoot;

typedef struct SpinePathStep
{
	const char *member;			/* UTF-8, NUL-terminated; NULL: the step is to an element */
	uint32_t	element;		/* counted from 0 */
} SpinePathStep;

/* No steps: all of the root. */
typedef struct SpinePath
{
	SpineRoot	root;
	int			nsteps;
	const SpinePathStep *steps;
	bool		strict;			/* as the operators -> and ->> of jsonb, not as jsonpath */
} SpinePath;

/* A path to a key of the value, as an initializer outside of functions or of a local variable. */
#define SPINE_PATH_TO_KEY(key) \
	{.root = SPINE_ROOT_VALUE, .nsteps = 1, .steps = (const SpinePathStep[]) {{.member = (key)}}}

/*
 * Parses the text of a jsonpath in UTF-8 that has only these parts:
 *
 *		$			the root, perhaps with the word lax before it
 *		.name		a member; ."name" may have any of jsonpath's escapes
 *		[n]			an element, from 0 to 2147483647
 *
 * with white space where jsonpath allows it.  Returns the number of steps, or -1 for anything
 * else: another jsonpath, or none at all.  The type jsonpath tells these two apart.
 *
 * The caller gives room for strlen(text) / 2 steps, and strlen(text) bytes for the names of
 * the members, which the steps point to.
 */
extern int	spine_path_parse(const char *text, SpinePathStep *steps, char *names);

#endif							/* SPINE_PATH_H */

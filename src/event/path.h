/*
 * path.h
 *		Paths into a JSON value: members and elements, as PostgreSQL's jsonpath has them.
 */
#ifndef SPINE_PATH_H
#define SPINE_PATH_H

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
} SpinePath;

/* A path to a key of the value, as an initializer. */
#define SPINE_PATH_TO_KEY(key) {SPINE_ROOT_VALUE, 1, (const SpinePathStep[]) {{.member = (key)}}}

#endif							/* SPINE_PATH_H */

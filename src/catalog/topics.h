/*
 * topics.h
 *		The topics that a pipeline's topic stands for: one, a list with commas, or all that
 *		match a regular expression, which begins with "^".
 */
#ifndef SPINE_TOPICS_H
#define SPINE_TOPICS_H

#include "compat.h"

/* Is it one topic by name? */
extern bool spine_topics_is_one(const char *topics);

/*
 * The names of a list, in the order of strcmp, each once; palloc'ed.  NULL: it is a
 * regular expression.
 */
extern char **spine_topics_names(const char *topics, int *n);

/*
 * Is this topic one of them?  The expression is one of PostgreSQL's, in the collation
 * "C"; it leaves out topics that begin with "__", Kafka's own, unless it begins with "^__"
 * itself.  Raises an error if it is not a valid one.  In a transaction or not.
 */
extern bool spine_topics_match(const char *topics, const char *name);

#endif							/* SPINE_TOPICS_H */

/*
 * option_list.h
 *		The setting spine.kafka_options as a text: its syntax, and which options of
 *		librdkafka may be in it.  Pure: neither PostgreSQL nor librdkafka.
 */
#ifndef SPINE_OPTION_LIST_H
#define SPINE_OPTION_LIST_H

#include <stdbool.h>

/* A list that is being read.  `rest` is the caller's copy of it, which is written to. */
typedef struct SpineOptionList
{
	char	   *rest;			/* what is not read yet */
	const char *key;			/* of the last option read, in the copy */
	const char *value;
	const char *secret;			/* the last option read whose value is a secret, or NULL */
	char		reason[256];	/* why the list is refused; "": it is not */
} SpineOptionList;

extern void spine_option_list_begin(SpineOptionList *list, char *copy);

/*
 * Reads the next option.  False: there is none, or the list is refused, with a reason.
 * The reason names the option.  It contains no part of any value, and no name that may
 * be a piece of a secret whose quotes are missing.
 */
extern bool spine_option_list_next(SpineOptionList *list);

/* May the option be set?  If not, *reason says why; NULL: spine does not know it. */
extern bool spine_option_list_allows(const char *name, const char **reason);

#endif							/* SPINE_OPTION_LIST_H */

/*
 * option_list.h
 *		The setting spine.kafka_options as a text: its syntax, and which options of
 *		librdkafka may be in it, or in a server.  Pure: neither PostgreSQL nor librdkafka.
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

/* The name of an option that may be set, counted from 0; NULL: there are no more. */
extern const char *spine_option_list_name(int i);

/* Where an option is set when CREATE SERVER declares the cluster. */
typedef enum SpineOptionPlace
{
	SPINE_OPTION_OF_SERVER,
	SPINE_OPTION_OF_USER,		/* in the user mapping alone: it is secret, or a name */
	SPINE_OPTION_OF_EITHER,		/* it is a part of what a user logs in with */
	SPINE_OPTION_OF_NEITHER		/* only a superuser may set it, in spine.kafka_options */
} SpineOptionPlace;

extern SpineOptionPlace spine_option_list_place(const char *name);

/* Is the value a secret? */
extern bool spine_option_list_is_secret(const char *name);

/* Does the value name a file, which the server would read? */
extern bool spine_option_list_names_file(const char *name);

#endif							/* SPINE_OPTION_LIST_H */

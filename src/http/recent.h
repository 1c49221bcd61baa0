/*
 * recent.h
 *		What a session answered lately, and the state that the database was in.
 *
 * While that state is the same, so is the answer, and need not be made again.  A
 * small table of fixed size: a question that falls on the place of another takes
 * it.
 */
#ifndef SPINE_HTTP_RECENT_H
#define SPINE_HTTP_RECENT_H

#include <stddef.h>

#include "etag.h"

#define RECENT_ANSWERS		64
#define RECENT_MAX_BODY		(256 * 1024)	/* longer ones are not kept */

typedef struct RecentAnswer
{
	char	   *question;		/* NULL: none */
	char	   *state;
	char		etag[ETAG_SIZE];
	char	   *body;
	size_t		len;
} RecentAnswer;

typedef struct RecentAnswers
{
	RecentAnswer places[RECENT_ANSWERS];
} RecentAnswers;

/* NULL: not asked lately. */
extern const RecentAnswer *recent_find(const RecentAnswers *recent, const char *question);

/* Copies its arguments. */
extern void recent_put(RecentAnswers *recent, const char *question, const char *state,
					   const char *etag, const char *body, size_t len);

extern void recent_clear(RecentAnswers *recent);

#endif							/* SPINE_HTTP_RECENT_H */

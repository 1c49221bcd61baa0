/*
 * recent.h
 *		What a session answered, and the state that the database was in.
 *
 * While that state is the same, so is the answer, and need not be made again; once
 * it is another, all of it is forgotten.  A small table of fixed size: a question
 * that falls on the place of another takes it.
 */
#ifndef SPINE_HTTP_RECENT_H
#define SPINE_HTTP_RECENT_H

#include <stddef.h>

#include "body.h"
#include "etag.h"

#define RECENT_ANSWERS		64
#define RECENT_MAX_BODY		(256 * 1024)	/* longer ones are not kept, */
#define RECENT_MAX_BYTES	(1024 * 1024)	/* nor more than this, */
#define RECENT_MAX_QUESTION	1024	/* nor long questions */

typedef struct RecentAnswer
{
	char	   *question;		/* NULL: none */
	char		etag[ETAG_SIZE];
	Body	   *body;
} RecentAnswer;

typedef struct RecentAnswers
{
	char	   *state;			/* NULL: nothing is kept */
	size_t		bytes;			/* of all bodies */
	RecentAnswer places[RECENT_ANSWERS];
} RecentAnswers;

/* NULL: not asked since the state is this one.  Forgets what was asked before. */
extern const RecentAnswer *recent_find(RecentAnswers *recent, const char *question,
									   const char *state);

/* After recent_find, for the same state.  Copies its arguments, and shares the body. */
extern void recent_put(RecentAnswers *recent, const char *question, const char *etag,
					   Body *body);

extern void recent_clear(RecentAnswers *recent);

#endif							/* SPINE_HTTP_RECENT_H */

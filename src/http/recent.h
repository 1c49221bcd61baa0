/*
 * recent.h
 *		The recent answers of a session, and the state of the database they are from.
 *
 * While the state is the same, an answer is the same and need not be made again.  When
 * the state changes, all answers are forgotten.  The table is small and its size is
 * fixed: a question with the same place as another takes that place.
 */
#ifndef SPINE_HTTP_RECENT_H
#define SPINE_HTTP_RECENT_H

#include <stddef.h>

#include "body.h"
#include "etag.h"

#define RECENT_ANSWERS		64
#define RECENT_MAX_BODY		(256 * 1024)	/* of one answer that is kept */
#define RECENT_MAX_BYTES	(1024 * 1024)	/* of all answers that are kept */
#define RECENT_MAX_QUESTION	1024	/* of a question whose answer is kept */

typedef struct RecentAnswer
{
	char	   *question;		/* NULL: this place is free */
	char		etag[ETAG_SIZE];
	Body	   *body;
} RecentAnswer;

typedef struct RecentAnswers
{
	char	   *state;			/* NULL: nothing is kept */
	size_t		bytes;			/* of all bodies */
	RecentAnswer places[RECENT_ANSWERS];
} RecentAnswers;

/*
 * The answer, until the next call with the same table.  NULL: there is none for this
 * state.  Forgets the answers of any other state.
 */
extern const RecentAnswer *recent_find(RecentAnswers *recent, const char *question,
									   const char *state);

/*
 * Called after recent_find, for the same state.  Copies the texts and shares the body.
 * Does nothing if the answer is too long to keep.
 */
extern void recent_put(RecentAnswers *recent, const char *question, const char *etag,
					   Body *body);

extern void recent_clear(RecentAnswers *recent);

#endif							/* SPINE_HTTP_RECENT_H */

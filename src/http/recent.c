/*
 * recent.c
 *		A hash table from question to answer, where a newer entry replaces an older.
 */
#include "recent.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/ */
static unsigned
place_of(const char *question)
{
	uint32_t	hash = 2166136261u;

	for (const char *p = question; *p; p++)
		hash = (hash ^ (unsigned char) *p) * 16777619u;
	return hash % RECENT_ANSWERS;
}

static void
clear_place(RecentAnswers *recent, RecentAnswer *place)
{
	if (place->body)
		recent->bytes -= body_len(place->body);
	body_let_go(place->body);
	free(place->question);
	memset(place, 0, sizeof(*place));
}

const RecentAnswer *
recent_find(RecentAnswers *recent, const char *question, const char *state)
{
	const RecentAnswer *place = &recent->places[place_of(question)];

	if (recent->state == NULL || strcmp(recent->state, state) != 0)
	{
		recent_clear(recent);
		recent->state = strdup(state);
		return NULL;
	}
	return place->question && strcmp(place->question, question) == 0 ? place : NULL;
}

void
recent_put(RecentAnswers *recent, const char *question, const char *etag, Body *body)
{
	RecentAnswer *place = &recent->places[place_of(question)];

	clear_place(recent, place);
	if (memory_is_short())
		recent_clear(recent);
	if (recent->state == NULL || strlen(question) > RECENT_MAX_QUESTION ||
		body_len(body) > RECENT_MAX_BODY || recent->bytes + body_len(body) > RECENT_MAX_BYTES)
		return;
	place->question = strdup(question);
	if (place->question == NULL)
		return;
	snprintf(place->etag, sizeof(place->etag), "%s", etag);
	place->body = body_share(body);
	recent->bytes += body_len(body);
}

void
recent_clear(RecentAnswers *recent)
{
	for (int i = 0; i < RECENT_ANSWERS; i++)
		clear_place(recent, &recent->places[i]);
	free(recent->state);
	recent->state = NULL;
}

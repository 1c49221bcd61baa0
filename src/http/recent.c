/*
 * recent.c
 *		A table from question to answer, in which the newer replaces the older.
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
clear_place(RecentAnswer *place)
{
	free(place->question);
	free(place->state);
	free(place->body);
	memset(place, 0, sizeof(*place));
}

const RecentAnswer *
recent_find(const RecentAnswers *recent, const char *question)
{
	const RecentAnswer *place = &recent->places[place_of(question)];

	return place->question && strcmp(place->question, question) == 0 ? place : NULL;
}

void
recent_put(RecentAnswers *recent, const char *question, const char *state,
		   const char *etag, const char *body, size_t len)
{
	RecentAnswer *place = &recent->places[place_of(question)];

	clear_place(place);
	if (len > RECENT_MAX_BODY)
		return;
	place->question = strdup(question);
	place->state = strdup(state);
	snprintf(place->etag, sizeof(place->etag), "%s", etag);
	place->body = malloc(len + 1);
	place->len = len;
	if (place->question && place->state && place->body)
		memcpy(place->body, body, len + 1);
	else
		clear_place(place);
}

void
recent_clear(RecentAnswers *recent)
{
	for (int i = 0; i < RECENT_ANSWERS; i++)
		clear_place(&recent->places[i]);
}

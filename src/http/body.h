/*
 * body.h
 *		Bodies of answers, shared by those who are sent the same, and the memory that
 *		they and all else that clients can make grow may take together.
 */
#ifndef SPINE_HTTP_BODY_H
#define SPINE_HTTP_BODY_H

#include <stdbool.h>
#include <stddef.h>

/* Is freed when the last who has it lets go of it.  Never changes. */
typedef struct Body Body;

/* How many bytes there may be in all; before anything else here. */
extern void memory_init(size_t bytes);

/* False: there is no room. */
extern bool memory_reserve(size_t bytes);
extern void memory_release(size_t bytes);

/* Is more than half of it taken? */
extern bool memory_is_short(void);

/* Could so many bytes ever be reserved? */
extern bool memory_could_be(size_t bytes);

/* A copy, which is the caller's; NULL: there is no room. */
extern Body *body_create(const void *data, size_t len);

extern const void *body_data(const Body *body);
extern size_t body_len(const Body *body);

/* For one more to have it.  Any thread, as letting go; NULL is fine for both. */
extern Body *body_share(Body *body);
extern void body_let_go(void *body);

/*
 * The same compressed, which is made once and is the body's; NULL: it would not be
 * smaller, or there is no room.  Of the thread that answers with this body.
 */
extern Body *body_compressed(Body *body);

#endif							/* SPINE_HTTP_BODY_H */

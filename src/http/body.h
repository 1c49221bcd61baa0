/*
 * body.h
 *		Bodies of answers, which replies share, and a limit on the memory for bodies
 *		and for everything else that clients can make grow.
 */
#ifndef SPINE_HTTP_BODY_H
#define SPINE_HTTP_BODY_H

#include <stdbool.h>
#include <stddef.h>

/* Freed when its last holder lets go of it.  Never changes. */
typedef struct Body Body;

/* Sets the limit.  Called before everything else here. */
extern void memory_init(size_t bytes);

/* Counts bytes against the limit.  False: there is no room. */
extern bool memory_reserve(size_t bytes);
extern void memory_release(size_t bytes);

/* Is more than half of the memory reserved? */
extern bool memory_is_short(void);

/* Could so many bytes ever be reserved? */
extern bool memory_could_be(size_t bytes);

/* A body with a copy of the data, for the caller to let go of.  NULL: there is no room. */
extern Body *body_create(const void *data, size_t len);

extern const void *body_data(const Body *body);
extern size_t body_len(const Body *body);

/* Adds and removes a holder.  Any thread; NULL is fine. */
extern Body *body_share(Body *body);
extern void body_let_go(void *body);

/*
 * The same data compressed.  It is made once and lives as long as the body.  NULL: it
 * would not be smaller, or there is no room.  Only for the thread that answers with
 * this body.
 */
extern Body *body_compressed(Body *body);

#endif							/* SPINE_HTTP_BODY_H */

/*
 * pool.h
 *		The threads that talk to the database, each over a session of its own.
 *
 * The thread that serves HTTP never waits for the database: it hands the
 * request over, and goes on with the others.
 */
#ifndef SPINE_HTTP_POOL_H
#define SPINE_HTTP_POOL_H

#include <stdbool.h>

#include "db.h"

/* Does a job, on a thread of the pool. */
typedef void (*PoolWork) (void *job, DbSession *session);

/* False, with errno: could not start all threads. */
extern bool pool_start(int threads, const DbOptions *options, PoolWork work);

/* False: too many are waiting already, or the pool is stopped. */
extern bool pool_submit(void *job);

/* Does what was submitted, and ends the threads. */
extern void pool_stop(void);

#endif							/* SPINE_HTTP_POOL_H */

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

/* The first member of what is to be done. */
typedef struct PoolJob
{
	struct PoolJob *next;		/* the pool's, and then the worker's */
} PoolJob;

/* May a job be done along with one that has waited for longer? */
typedef bool (*PoolMayJoin) (const PoolJob *job, const PoolJob *first);

/*
 * Does a job, and some of those that wait behind it and may join it, on a thread of
 * the pool.  They are a list, of which the first has waited longest.
 */
typedef void (*PoolWork) (PoolJob *jobs, DbSession *session);

/* False, with errno: could not start all threads. */
extern bool pool_start(int threads, const DbOptions *options, PoolMayJoin may_join, PoolWork work);

/* False: too many are waiting already, or the pool is stopped. */
extern bool pool_submit(PoolJob *job);

/* Does what was submitted, and ends the threads. */
extern void pool_stop(void);

#endif							/* SPINE_HTTP_POOL_H */

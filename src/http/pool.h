/*
 * pool.h
 *		The threads that talk to the database, each with a session of its own.
 *
 * The thread that serves HTTP never waits for the database.  It hands the request to
 * the pool and goes on with other requests.
 */
#ifndef SPINE_HTTP_POOL_H
#define SPINE_HTTP_POOL_H

#include <stdbool.h>

#include "db.h"

/* Something to do; the first member of a larger struct. */
typedef struct PoolJob
{
	struct PoolJob *next;		/* for the pool, and then for the PoolWork */
} PoolJob;

/* May the job be done together with first, which has waited longer? */
typedef bool (*PoolMayJoin)(const PoolJob *job, const PoolJob *first);

/*
 * Does a list of jobs on a thread of the pool.  The first job has waited longest, and
 * the others may join it.
 */
typedef void (*PoolWork)(PoolJob *jobs, DbSession *session);

/* False, with errno: not all threads could be started. */
extern bool pool_start(int threads, const DbOptions *options, PoolMayJoin may_join, PoolWork work);

/* False: too many jobs are waiting already, or the pool is stopped. */
extern bool pool_submit(PoolJob *job);

/* Does the jobs that were submitted, then ends the threads. */
extern void pool_stop(void);

#endif							/* SPINE_HTTP_POOL_H */

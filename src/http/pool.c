/*
 * pool.c
 *		A bounded queue, and threads that empty it.
 */
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define MAX_WAITING		1024
#define MAX_TOGETHER	16		/* jobs that one thread takes at a time */

static pthread_t *threads;
static int	nthreads;
static PoolMayJoin may_join;
static PoolWork do_work;

/* Guards what follows. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t submitted = PTHREAD_COND_INITIALIZER;
static PoolJob *waiting;		/* the first has waited longest */
static PoolJob **waiting_end = &waiting;
static unsigned nwaiting;
static bool stopping;

/* Moves the job at *place from the queue to the end of a list.  Returns the new end. */
static PoolJob **
take(PoolJob **place, PoolJob **end)
{
	PoolJob    *job = *place;

	*place = job->next;
	if (waiting_end == &job->next)
		waiting_end = place;
	nwaiting--;
	job->next = NULL;
	*end = job;
	return &job->next;
}

/* Waits for jobs, and takes some.  NULL: there will be no more. */
static PoolJob *
take_jobs(void)
{
	PoolJob    *jobs = NULL;

	pthread_mutex_lock(&mutex);
	while (waiting == NULL && !stopping)
		pthread_cond_wait(&submitted, &mutex);
	if (waiting)
	{
		PoolJob   **end = take(&waiting, &jobs);
		PoolJob   **place = &waiting;
		int			taken = 1;

		while (*place && taken < MAX_TOGETHER)
		{
			if (may_join(*place, jobs))
			{
				end = take(place, end);
				taken++;
			}
			else
				place = &(*place)->next;
		}
	}
	pthread_mutex_unlock(&mutex);
	return jobs;
}

static void *
run_thread(void *session)
{
	PoolJob    *jobs;

	while ((jobs = take_jobs()) != NULL)
		do_work(jobs, session);
	db_session_destroy(session);
	return NULL;
}

bool
pool_start(int n, const DbOptions *options, PoolMayJoin may_join_jobs, PoolWork work)
{
	threads = calloc(n, sizeof(pthread_t));
	may_join = may_join_jobs;
	do_work = work;
	while (threads && nthreads < n)
	{
		DbSession  *session = db_session_create(options);

		if (session == NULL)
			return false;
		errno = pthread_create(&threads[nthreads], NULL, run_thread, session);
		if (errno != 0)
		{
			db_session_destroy(session);
			return false;
		}
		nthreads++;
	}
	return threads != NULL;
}

bool
pool_submit(PoolJob *job)
{
	bool		has_room;

	pthread_mutex_lock(&mutex);
	has_room = nwaiting < MAX_WAITING && !stopping;
	if (has_room)
	{
		job->next = NULL;
		*waiting_end = job;
		waiting_end = &job->next;
		nwaiting++;
		pthread_cond_signal(&submitted);
	}
	pthread_mutex_unlock(&mutex);
	return has_room;
}

void
pool_stop(void)
{
	pthread_mutex_lock(&mutex);
	stopping = true;
	pthread_cond_broadcast(&submitted);
	pthread_mutex_unlock(&mutex);

	for (int i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	threads = NULL;
	nthreads = 0;
}

/*
 * pool.c
 *		A bounded queue, and threads that empty it.
 */
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define MAX_WAITING		1024

static pthread_t *threads;
static int	nthreads;
static PoolWork do_work;

/* Guards what follows. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t submitted = PTHREAD_COND_INITIALIZER;
static void *waiting[MAX_WAITING];
static unsigned first;
static unsigned nwaiting;
static bool stopping;

/* Waits for a job; NULL: there will be no more. */
static void *
take_job(void)
{
	void	   *job = NULL;

	pthread_mutex_lock(&mutex);
	while (nwaiting == 0 && !stopping)
		pthread_cond_wait(&submitted, &mutex);
	if (nwaiting > 0)
	{
		job = waiting[first];
		first = (first + 1) % MAX_WAITING;
		nwaiting--;
	}
	pthread_mutex_unlock(&mutex);
	return job;
}

static void *
run_thread(void *session)
{
	void	   *job;

	while ((job = take_job()) != NULL)
		do_work(job, session);
	db_session_destroy(session);
	return NULL;
}

bool
pool_start(int n, const DbOptions *options, PoolWork work)
{
	threads = calloc(n, sizeof(pthread_t));
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
pool_submit(void *job)
{
	bool		has_room;

	pthread_mutex_lock(&mutex);
	has_room = nwaiting < MAX_WAITING && !stopping;
	if (has_room)
	{
		waiting[(first + nwaiting) % MAX_WAITING] = job;
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

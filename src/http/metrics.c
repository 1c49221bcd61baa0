/*
 * metrics.c
 *		Requests by endpoint and status, and how long they took.
 */
#include "metrics.h"

#include <pthread.h>
#include <stdint.h>

static const double bounds[] = {
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5
};

#define NBOUNDS		((int) (sizeof(bounds) / sizeof(bounds[0])))
#define MAX_STATUS	600

typedef struct EndpointCounters
{
	uint64_t	by_status[MAX_STATUS];
	uint64_t	buckets[NBOUNDS + 1];	/* not cumulative; the last one has no bound */
	uint64_t	requests;
	double		seconds;
} EndpointCounters;

/* Guards the counters, so that the sum and the count of a histogram match. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static EndpointCounters counters[METRICS_MAX_ENDPOINTS];

void
metrics_count_request(int endpoint, unsigned status, double seconds)
{
	EndpointCounters *c = &counters[endpoint];
	int			bucket = 0;

	while (bucket < NBOUNDS && seconds > bounds[bucket])
		bucket++;

	pthread_mutex_lock(&mutex);
	c->by_status[status < MAX_STATUS ? status : 0]++;
	c->buckets[bucket]++;
	c->requests++;
	c->seconds += seconds;
	pthread_mutex_unlock(&mutex);
}

static void
write_histogram(FILE *out, const char *name, const EndpointCounters *c)
{
	uint64_t	total = 0;

	for (int b = 0; b < NBOUNDS; b++)
		fprintf(out, "spine_http_request_duration_seconds_bucket{endpoint=\"%s\",le=\"%g\"} %llu\n",
				name, bounds[b], (unsigned long long) (total += c->buckets[b]));
	fprintf(out, "spine_http_request_duration_seconds_bucket{endpoint=\"%s\",le=\"+Inf\"} %llu\n"
			"spine_http_request_duration_seconds_count{endpoint=\"%s\"} %llu\n"
			"spine_http_request_duration_seconds_sum{endpoint=\"%s\"} %.6f\n",
			name, (unsigned long long) c->requests, name, (unsigned long long) c->requests,
			name, c->seconds);
}

void
metrics_write(FILE *out, const char *const *names, int n)
{
	pthread_mutex_lock(&mutex);
	fputs("# HELP spine_http_requests_total Requests answered.\n"
		  "# TYPE spine_http_requests_total counter\n", out);
	for (int i = 0; i < n; i++)
	{
		for (int status = 0; status < MAX_STATUS; status++)
		{
			if (counters[i].by_status[status] > 0)
				fprintf(out, "spine_http_requests_total{endpoint=\"%s\",status=\"%d\"} %llu\n",
						names[i], status, (unsigned long long) counters[i].by_status[status]);
		}
	}
	fputs("# HELP spine_http_request_duration_seconds Time from the request to its answer.\n"
		  "# TYPE spine_http_request_duration_seconds histogram\n", out);
	for (int i = 0; i < n; i++)
	{
		if (counters[i].requests > 0)
			write_histogram(out, names[i], &counters[i]);
	}
	pthread_mutex_unlock(&mutex);
}

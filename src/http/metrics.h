/*
 * metrics.h
 *		What this program itself counts, for /metrics.
 */
#ifndef SPINE_HTTP_METRICS_H
#define SPINE_HTTP_METRICS_H

#include <stdio.h>

#define METRICS_MAX_ENDPOINTS	8

/* endpoint: a number below METRICS_MAX_ENDPOINTS.  Any thread. */
extern void metrics_count_request(int endpoint, unsigned status, double seconds);

/* Writes them in Prometheus' text format; names: of the endpoints, n of them. */
extern void metrics_write(FILE *out, const char *const *names, int n);

#endif							/* SPINE_HTTP_METRICS_H */

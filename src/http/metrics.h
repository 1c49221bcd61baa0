/*
 * metrics.h
 *		What spine-http itself counts, for /metrics.
 */
#ifndef SPINE_HTTP_METRICS_H
#define SPINE_HTTP_METRICS_H

#include <stdio.h>

#define METRICS_MAX_ENDPOINTS	8

/* endpoint is a number below METRICS_MAX_ENDPOINTS.  Any thread. */
extern void metrics_count_request(int endpoint, unsigned status, double seconds);

/* Writes the metrics in Prometheus' text format, with the names of the n endpoints. */
extern void metrics_write(FILE *out, const char *const *names, int n);

#endif							/* SPINE_HTTP_METRICS_H */

/*
 * log.h
 *		The log: messages, and a line for each request.
 */
#ifndef SPINE_HTTP_LOG_H
#define SPINE_HTTP_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum LogFormat
{
	LOG_TEXT,
	LOG_JSON,
	LOG_NO_REQUESTS				/* messages only, as text */
} LogFormat;

/* file: NULL for standard error.  False, with errno: it cannot be opened. */
extern bool log_open(const char *file, LogFormat format);

/* Opens the file again, after it was moved away. */
extern bool log_reopen(void);

/* Any thread, for this one and the next; a line break at the end is left out. */
extern void log_message(const char *format,...) __attribute__((format(printf, 1, 2)));

extern void log_request(const char *client, const char *method, const char *target,
						unsigned status, uint64_t bytes, double seconds);

#endif							/* SPINE_HTTP_LOG_H */

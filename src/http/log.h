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
	LOG_NO_REQUESTS				/* text, without lines for requests */
} LogFormat;

/* file may be NULL, for standard error.  False, with errno: it cannot be opened. */
extern bool log_open(const char *file, LogFormat format);

/* Opens the file again, for when it was moved away.  Returns what log_open does. */
extern bool log_reopen(void);

/* Any thread may call the next two.  Only the first line of a message is logged. */
extern void log_message(const char *format, ...) __attribute__((format(printf, 1, 2)));

extern void log_request(const char *client, const char *method, const char *target,
						unsigned status, uint64_t bytes, double seconds);

#endif							/* SPINE_HTTP_LOG_H */

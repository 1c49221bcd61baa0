/*
 * log.c
 *		Writes lines to standard error or a file.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *log_file;
static LogFormat log_format = LOG_TEXT;
static int	log_fd = STDERR_FILENO;

/* Guards log_fd, so that each line is written whole, and to an open file. */
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;

bool
log_open(const char *file, LogFormat format)
{
	log_file = file;
	log_format = format;
	return log_reopen();
}

bool
log_reopen(void)
{
	int			fd;

	if (log_file == NULL)
		return true;
	fd = open(log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd < 0)
		return false;

	pthread_mutex_lock(&log_mutex);
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
	pthread_mutex_unlock(&log_mutex);
	return true;
}

static void
write_line(const char *line, size_t len)
{
	pthread_mutex_lock(&log_mutex);
	while (len > 0)
	{
		ssize_t		written = write(log_fd, line, len);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			break;				/* there is no one to tell */
		line += written;
		len -= written;
	}
	pthread_mutex_unlock(&log_mutex);
}

/* ISO 8601, UTC, with milliseconds. */
static void
format_time(char *buffer, size_t size)
{
	struct timespec now;
	struct tm	parts;
	size_t		len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	len = strftime(buffer, size, "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(buffer + len, size - len, ".%03dZ", (int) (now.tv_nsec / 1000000) % 1000);
}

/* Adds the time, writes the object as a line, and frees it. */
static void
write_json(struct json_object *object)
{
	char		time[32];
	size_t		len;
	const char *text;
	char		line[4096];

	format_time(time, sizeof(time));
	json_object_object_add(object, "time", json_object_new_string(time));
	text = json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	if (text && len < sizeof(line) - 1)
	{
		memcpy(line, text, len);
		line[len] = '\n';
		write_line(line, len + 1);
	}
	json_object_put(object);
}

/* With control characters, somebody could forge lines of the log. */
static void
make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *) text; *p; p++)
	{
		if (*p < ' ' || *p == 0x7f)
			*p = ' ';
	}
}

/*
 * What a client sent, cut if it is long.  Everything that does not belong in a URL
 * becomes %XX, so the text cannot end the quotes around it or be invalid UTF-8.
 */
static void
escape(char *buffer, size_t size, const char *text)
{
	char	   *out = buffer;

	for (const unsigned char *p = (const unsigned char *) text; *p && out + 4 < buffer + size; p++)
	{
		if (*p > ' ' && *p < 0x7f && *p != '"' && *p != '\\')
			*out++ = *p;
		else
			out += sprintf(out, "%%%02X", *p);
	}
	*out = '\0';
}

void
log_message(const char *format, ...)
{
	char		text[1024];
	char		time[32];
	char		line[1100];
	va_list		arguments;
	int			len;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	text[strcspn(text, "\n")] = '\0';
	make_printable(text);

	if (log_format == LOG_JSON)
	{
		struct json_object *object = json_object_new_object();

		json_object_object_add(object, "message", json_object_new_string(text));
		write_json(object);
		return;
	}
	format_time(time, sizeof(time));
	len = snprintf(line, sizeof(line), "%s spine-http: %s\n", time, text);
	write_line(line, len);
}

void
log_request(const char *client, const char *method, const char *target,
			unsigned status, uint64_t bytes, double seconds)
{
	char		shown_target[512];
	char		shown_method[32];
	char		time[32];
	char		line[1024];
	int			len;

	if (log_format == LOG_NO_REQUESTS)
		return;
	escape(shown_target, sizeof(shown_target), target);
	escape(shown_method, sizeof(shown_method), method);

	if (log_format == LOG_JSON)
	{
		struct json_object *object = json_object_new_object();

		json_object_object_add(object, "client", json_object_new_string(client));
		json_object_object_add(object, "method", json_object_new_string(shown_method));
		json_object_object_add(object, "target", json_object_new_string(shown_target));
		json_object_object_add(object, "status", json_object_new_int((int) status));
		json_object_object_add(object, "bytes", json_object_new_int64((int64_t) bytes));
		snprintf(line, sizeof(line), "%.6f", seconds);
		json_object_object_add(object, "seconds", json_object_new_double_s(seconds, line));
		write_json(object);
		return;
	}
	format_time(time, sizeof(time));
	len = snprintf(line, sizeof(line), "%s %s \"%s %s\" %u %llu %.6f\n",
				   time, client, shown_method, shown_target, status, (unsigned long long) bytes, seconds);
	write_line(line, len);
}

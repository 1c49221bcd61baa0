/*
 * reply.c
 *		Errors as JSON, and compression.
 */
#include "reply.h"

#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

void
reply_error(Reply *reply, unsigned status, const char *parameter, const char *format, ...)
{
	struct json_object *object = json_object_new_object();
	const char *json;
	char		text[512];
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);

	json_object_object_add(object, "error", json_object_new_string(text));
	if (parameter)
		json_object_object_add(object, "parameter", json_object_new_string(parameter));

	body_let_go(reply->body);
	memset(reply, 0, sizeof(*reply));
	reply->status = status;
	reply->content_type = CONTENT_JSON;
	reply->cache_control = "no-store";
	json = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	reply->body = body_create(json, strlen(json));
	json_object_put(object);
}

void
reply_no_room(Reply *reply)
{
	reply_error(reply, 503, NULL, "too many answers are being sent");
	reply->retry_after_s = RETRY_AFTER_S;
}

void *
gzip_compress(const void *data, size_t len, size_t *compressed_len)
{
	z_stream	stream = {0};
	unsigned char *out;

	/* 15 + 16: the largest window, and gzip's header instead of zlib's */
	if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return NULL;
	out = malloc(len);
	if (out)
	{
		stream.next_in = (unsigned char *) data;
		stream.avail_in = len;
		stream.next_out = out;
		stream.avail_out = len;
		if (deflate(&stream, Z_FINISH) == Z_STREAM_END)
			*compressed_len = stream.total_out;
		else
		{
			free(out);
			out = NULL;
		}
	}
	deflateEnd(&stream);
	return out;
}

void
reply_compress(Reply *reply)
{
	Body	   *compressed = reply->body ? body_share(body_compressed(reply->body)) : NULL;

	if (compressed == NULL)
		return;
	body_let_go(reply->body);
	reply->body = compressed;
	reply->is_gzip = true;
}

size_t
reply_len(const Reply *reply)
{
	return reply->static_body ? reply->static_len : reply->body ? body_len(reply->body) : 0;
}

bool
accepts_gzip(const char *accept_encoding)
{
	double		gzip = -1;		/* weight of "gzip"; -1: the header does not name it */
	double		any = -1;		/* weight of "*" */
	const char *p = accept_encoding ? accept_encoding : "";

	while (*(p += strspn(p, " \t,")))
	{
		size_t		len = strcspn(p, " \t;,");
		const char *end = p + strcspn(p, ",");
		const char *q = memchr(p, ';', end - p);
		double		weight = 1;

		if (q)
		{
			q += 1 + strspn(q + 1, " \t");
			if (strncasecmp(q, "q=", 2) == 0)
				weight = strtod(q + 2, NULL);
		}
		if (len == 4 && strncasecmp(p, "gzip", len) == 0)
			gzip = weight;
		else if (len == 1 && *p == '*')
			any = weight;
		p = end;
	}
	return gzip >= 0 ? gzip > 0 : any > 0;
}

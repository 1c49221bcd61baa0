/*
 * endpoints.c
 *		The table of endpoints, their parameters, and the way from answer to reply.
 *
 * The extension makes the answers.  Here they only become HTTP.
 */
#include "endpoints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "page.inc"				/* made from page.html by embed-page.sh */

#define MAX_LIMIT			1000
#define DEFAULT_LIMIT		"100"

/* "no-cache" lets a browser keep the answer if it asks each time whether it is current. */
static const Endpoint endpoint_page = {
	"/", "the live page", NULL, "text/html; charset=utf-8", "no-cache", 0, {{0}}
};

static const DbStatement metrics_statement = {
	"metrics", DB_BOUNDED("spine_metrics_text(), NULL", "ready", "$1"), 0, false, 64 * 1024
};
static const Endpoint endpoint_metrics = {
	"/metrics", "for Prometheus", &metrics_statement,
	"text/plain; version=0.0.4; charset=utf-8", "no-store", 0, {{0}}
};

static const DbStatement readiness_statement = {
	"readiness", DB_BOUNDED("report::text, ready::text FROM spine_readiness()", "ready", "$1"),
	0, false, 16 * 1024
};
static const Endpoint endpoint_readiness = {
	"/readyz", "200 while the database answers and no pipeline has failed", &readiness_statement,
	CONTENT_JSON, "no-store", 0, {{0}}
};

static const Endpoint endpoint_health = {
	"/healthz", "200 while the process lives", NULL, CONTENT_JSON, "no-store", 0, {{0}}
};

/* Stands for every path that does not exist. */
static const Endpoint endpoint_other = {
	"other", NULL, NULL, CONTENT_JSON, "no-store", 0, {{0}}
};

static const Endpoint *const endpoints[] = {
	&endpoint_page, &endpoint_rows, &endpoint_totals, &endpoint_metrics,
	&endpoint_health, &endpoint_readiness, &endpoint_other
};

#define NENDPOINTS		((int) (sizeof(endpoints) / sizeof(endpoints[0])))
#define OTHER			(NENDPOINTS - 1)

_Static_assert(NENDPOINTS <= METRICS_MAX_ENDPOINTS, "metrics.h has room for fewer endpoints");
_Static_assert(NENDPOINTS <= DB_MAX_STATEMENTS, "db.h has room for fewer statements");

static const char page[] = PAGE_HTML;
static const char health[] = "{\"status\":\"ok\"}";
static void *page_gzip;			/* NULL: the page is sent uncompressed */
static size_t page_gzip_len;

void
endpoints_init(void)
{
	page_gzip = gzip_compress(page, sizeof(page) - 1, &page_gzip_len);
}

void
endpoints_write_help(FILE *out)
{
	for (int i = 0; i < OTHER; i++)
		fprintf(out, "  %-22s %s\n", endpoints[i]->path, endpoints[i]->help);
}

const Endpoint *
endpoint_find(const char *path)
{
	int			i = 0;

	while (i < OTHER && strcmp(endpoints[i]->path, path) != 0)
		i++;
	return endpoints[i];
}

bool
endpoint_exists(const Endpoint *endpoint)
{
	return endpoint != &endpoint_other;
}

int
endpoint_number(const Endpoint *endpoint)
{
	int			i = 0;

	while (endpoints[i] != endpoint)
		i++;
	return i;
}

/* RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF. */
static bool
is_utf8(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *) text;
	const unsigned char *end = p + len;

	while (p < end)
	{
		int			following = *p < 0x80 ? 0 : *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;

		if ((*p >= 0x80 && *p < 0xc2) || *p > 0xf4 || end - p <= following)
			return false;
		if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
			(*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
			return false;
		for (p++; following > 0; following--, p++)
		{
			if ((*p & 0xc0) != 0x80)
				return false;
		}
	}
	return true;
}

static bool
is_limit(const char *text)
{
	char	   *end;
	long		n;

	if (strspn(text, "0123456789") != strlen(text))
		return false;
	errno = 0;
	n = strtol(text, &end, 10);
	return errno == 0 && n >= 1 && n <= MAX_LIMIT;
}

bool
query_add(Query *query, const char *name, size_t name_len,
		  const char *value, size_t value_len, Reply *reply)
{
	const Endpoint *endpoint = query->endpoint;
	int			i = 0;

	if (endpoint == &endpoint_page)
		return true;			/* the filter, which the page's script reads */
	while (i < endpoint->nparameters && strcmp(endpoint->parameters[i].name, name) != 0)
		i++;
	if (strlen(name) != name_len || !is_utf8(name, name_len))
		reply_error(reply, 400, NULL, "the name of a parameter is not valid UTF-8, or contains a NUL");
	else if (i == endpoint->nparameters)
		reply_error(reply, 400, name, "%s has no such parameter", endpoint->path);
	else if (value == NULL || value_len == 0)
		return true;			/* counts as not given */
	else if (query->values[i])
		reply_error(reply, 400, name, "%s is given more than once", name);
	else if (strlen(value) != value_len)
		reply_error(reply, 400, name, "%s contains a NUL", name);
	else if (!is_utf8(value, value_len))
		reply_error(reply, 400, name, "%s is not valid UTF-8", name);
	else if (endpoint->parameters[i].kind == PARAMETER_LIMIT && !is_limit(value))
		reply_error(reply, 400, name, "%s must be a whole number from 1 to %d", name, MAX_LIMIT);
	else
	{
		query->values[i] = strdup(value);
		if (query->values[i])
			return true;
		reply_error(reply, 500, NULL, "out of memory");
	}
	return false;
}

void
query_clear(Query *query)
{
	for (int i = 0; i < DB_MAX_VALUES; i++)
		free(query->values[i]);
	free(query->if_none_match);
	memset(query, 0, sizeof(*query));
}

static void
start_reply(const Endpoint *endpoint, Reply *reply)
{
	reply->status = 200;
	reply->content_type = endpoint->content_type;
	reply->cache_control = endpoint->cache_control;
}

static void
send_page(const Query *query, Reply *reply)
{
	reply->is_page = true;
	snprintf(reply->etag, sizeof(reply->etag), "\"%s\"", PAGE_ETAG);
	if (etag_matches(query->if_none_match, reply->etag))
		reply->status = 304;
	else if (query->accepts_gzip && page_gzip)
	{
		reply->static_body = page_gzip;
		reply->static_len = page_gzip_len;
		reply->is_gzip = true;
	}
	else
	{
		reply->static_body = page;
		reply->static_len = sizeof(page) - 1;
	}
}

static void
send_not_found(Reply *reply)
{
	char		paths[256] = "";
	size_t		len = 0;

	for (int i = 0; i < OTHER; i++)
		len += snprintf(paths + len, sizeof(paths) - len, "%s%s", i > 0 ? ", " : "", endpoints[i]->path);
	reply_error(reply, 404, NULL, "there is nothing here; see %s", paths);
}

bool
query_answer_at_once(const Query *query, Reply *reply)
{
	const Endpoint *endpoint = query->endpoint;

	if (endpoint->statement)
		return false;

	start_reply(endpoint, reply);
	if (endpoint == &endpoint_page)
		send_page(query, reply);
	else if (endpoint == &endpoint_other)
		send_not_found(reply);
	else
	{
		reply->static_body = health;
		reply->static_len = sizeof(health) - 1;
	}
	return true;
}

/*
 * Works without an answer from the database as well: the metrics must show an outage,
 * and what this program counts must not be lost to it.
 */
static void
send_metrics(const DbAnswer *answer, Reply *reply)
{
	const char *names[NENDPOINTS];
	char	   *text = NULL;
	size_t		len;
	FILE	   *out = open_memstream(&text, &len);

	if (out == NULL)
	{
		reply_error(reply, 500, NULL, "out of memory");
		return;
	}
	for (int i = 0; i < NENDPOINTS; i++)
		names[i] = endpoints[i]->path;

	if (answer->body)
		fwrite(body_data(answer->body), 1, body_len(answer->body), out);
	fprintf(out, "# HELP spine_database_up Whether the database answered.\n"
			"# TYPE spine_database_up gauge\n"
			"spine_database_up %d\n", answer->outcome == DB_ANSWERED);
	metrics_write(out, names, NENDPOINTS);
	if (fclose(out) != 0)
		reply_error(reply, 500, NULL, "out of memory");
	else if ((reply->body = body_create(text, len)) == NULL)
		reply_no_room(reply);
	free(text);
}

/* The database refused a value but does not say which. */
static void
send_bad_value(const Query *query, Reply *reply)
{
	const Endpoint *endpoint = query->endpoint;
	char		names[128] = "";
	size_t		len = 0;
	int			n = 0;

	for (int i = 0; i < endpoint->nparameters; i++)
	{
		if (query->values[i] && endpoint->parameters[i].kind == PARAMETER_TEXT)
			len += snprintf(names + len, sizeof(names) - len, "%s%s", n++ > 0 ? " or " : "", endpoint->parameters[i].name);
	}
	reply_error(reply, 400, n == 1 ? names : NULL, "%s has a character that does not exist in the encoding of this database", names);
}

static void
send_body(const Query *query, const DbAnswer *answer, Reply *reply)
{
	memcpy(reply->etag, answer->etag, sizeof(reply->etag));
	if (etag_matches(query->if_none_match, answer->etag))
	{
		reply->status = 304;
		return;
	}
	if (query->endpoint == &endpoint_readiness && !answer->ready)
	{
		reply->status = 503;
		reply->retry_after_s = RETRY_AFTER_S;
	}
	reply->body = body_share(answer->body);
}

static void
send_answer(const Query *query, const DbAnswer *answer, Reply *reply)
{
	switch (answer->outcome)
	{
		case DB_ANSWERED:
			send_body(query, answer, reply);
			break;
		case DB_AWAY:
			reply_error(reply, 503, NULL, "the database is away or did not answer in time");
			reply->retry_after_s = RETRY_AFTER_S;
			break;
		case DB_BAD_VALUE:
			send_bad_value(query, reply);
			break;
		case DB_NO_ROOM:
			reply_no_room(reply);
			break;
		case DB_TOO_LONG:
			reply_error(reply, 500, NULL, "the answer is too long for the memory of spine-http; ask for less");
			break;
		case DB_FAILED:
			reply_error(reply, 500, NULL, "the database refused the query; the log of spine-http says why");
			break;
	}
}

bool
query_is_same(const Query *a, const Query *b)
{
	if (a->endpoint != b->endpoint)
		return false;
	for (int i = 0; i < a->endpoint->nparameters; i++)
	{
		if (!a->values[i] != !b->values[i] ||
			(a->values[i] && strcmp(a->values[i], b->values[i]) != 0))
			return false;
	}
	return true;
}

void
query_ask(const Query *query, DbSession *session, DbAnswer *answer)
{
	const Endpoint *endpoint = query->endpoint;
	const char *values[DB_MAX_VALUES] = {NULL};

	for (int i = 0; i < endpoint->nparameters; i++)
	{
		values[i] = query->values[i];
		if (values[i] == NULL && endpoint->parameters[i].kind == PARAMETER_LIMIT)
			values[i] = DEFAULT_LIMIT;
	}
	db_query(session, endpoint->statement, values, query->asked_ms, answer);
}

void
query_reply(const Query *query, const DbAnswer *answer, Reply *reply)
{
	start_reply(query->endpoint, reply);
	if (query->endpoint == &endpoint_metrics && answer->outcome != DB_NO_ROOM)
		send_metrics(answer, reply);
	else
		send_answer(query, answer, reply);
	if (query->accepts_gzip)
		reply_compress(reply);
}

/*
 * endpoints.c
 *		The table of endpoints, their parameters, and from answer to reply.
 *
 * What is asked and answered is the extension's business (db.c has the
 * statements); here is only what HTTP makes of it.
 */
#include "endpoints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "page.inc"				/* made of page.html by embed-page.sh */

#define MAX_LIMIT			1000
#define DEFAULT_LIMIT		"100"

typedef enum ParameterKind
{
	PARAMETER_TEXT,
	PARAMETER_LIMIT				/* a number from 1 to MAX_LIMIT */
} ParameterKind;

typedef struct Parameter
{
	const char *name;
	ParameterKind kind;
} Parameter;

struct Endpoint
{
	const char *path;
	DbStatement statement;		/* DB_STATEMENTS: none */
	const char *content_type;
	const char *cache_control;
	int			nparameters;
	Parameter	parameters[DB_MAX_VALUES];	/* in the order of the statement's */
};

/* no-cache: keep it, and ask each time whether it is still good */
static const Endpoint endpoints[] = {
	{"/", DB_STATEMENTS, "text/html; charset=utf-8", "no-cache", 0, {{0}}},
	{"/orders", DB_ORDERS, CONTENT_JSON, "no-cache", 3, {
		{"tenant", PARAMETER_TEXT}, {"status", PARAMETER_TEXT}, {"limit", PARAMETER_LIMIT}
	}},
	{"/stats", DB_STATS, CONTENT_JSON, "no-cache", 1, {{"tenant", PARAMETER_TEXT}}},
	{"/metrics", DB_METRICS, "text/plain; version=0.0.4; charset=utf-8", "no-store", 0, {{0}}},
	{"/readyz", DB_READINESS, CONTENT_JSON, "no-store", 0, {{0}}},
	{"/healthz", DB_STATEMENTS, CONTENT_JSON, "no-store", 0, {{0}}},
	/* the last stands for all that is not there */
	{"other", DB_STATEMENTS, CONTENT_JSON, "no-store", 0, {{0}}},
};

#define NENDPOINTS		((int) (sizeof(endpoints) / sizeof(endpoints[0])))
#define ENDPOINT_PAGE	(&endpoints[0])
#define ENDPOINT_OTHER	(&endpoints[NENDPOINTS - 1])

_Static_assert(NENDPOINTS <= METRICS_MAX_ENDPOINTS, "metrics.h has room for fewer endpoints");

static const char page[] = PAGE_HTML;
static const char health[] = "{\"status\":\"ok\"}";
static void *page_gzip;			/* NULL: sent as it is */
static size_t page_gzip_len;

void
endpoints_init(void)
{
	page_gzip = gzip_compress(page, sizeof(page) - 1, &page_gzip_len);
}

const Endpoint *
endpoint_find(const char *path)
{
	const Endpoint *endpoint = endpoints;

	while (endpoint < ENDPOINT_OTHER && strcmp(endpoint->path, path) != 0)
		endpoint++;
	return endpoint;
}

bool
endpoint_exists(const Endpoint *endpoint)
{
	return endpoint != ENDPOINT_OTHER;
}

int
endpoint_number(const Endpoint *endpoint)
{
	return endpoint - endpoints;
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

	if (endpoint == ENDPOINT_PAGE)
		return true;			/* its script reads them: the filter */
	while (i < endpoint->nparameters && strcmp(endpoint->parameters[i].name, name) != 0)
		i++;
	if (strlen(name) != name_len || !is_utf8(name, name_len))
		reply_error(reply, 400, NULL, "the name of a parameter is not valid UTF-8, or contains a NUL");
	else if (i == endpoint->nparameters)
		reply_error(reply, 400, name, "%s has no such parameter", endpoint->path);
	else if (value == NULL || value_len == 0)
		return true;			/* as good as not there */
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

bool
query_answer_at_once(const Query *query, Reply *reply)
{
	const Endpoint *endpoint = query->endpoint;

	if (endpoint->statement != DB_STATEMENTS)
		return false;

	start_reply(endpoint, reply);
	if (endpoint == ENDPOINT_PAGE)
		send_page(query, reply);
	else if (endpoint == ENDPOINT_OTHER)
		reply_error(reply, 404, NULL, "there is nothing here; see /, /orders, /stats, /metrics, /healthz, /readyz");
	else
	{
		reply->static_body = health;
		reply->static_len = sizeof(health) - 1;
	}
	return true;
}

/*
 * The database's part may be missing: that it is away is worth knowing, too, and
 * what this program counts is not lost meanwhile.
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
		names[i] = endpoints[i].path;

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

/* The parameter with a text, when there is but one. */
static const char *
only_text(const Query *query)
{
	const char *name = NULL;

	for (int i = 0; i < query->endpoint->nparameters; i++)
	{
		if (query->values[i] == NULL || query->endpoint->parameters[i].kind != PARAMETER_TEXT)
			continue;
		if (name)
			return NULL;
		name = query->endpoint->parameters[i].name;
	}
	return name;
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
	if (query->endpoint->statement == DB_READINESS && !answer->ready)
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
			reply_error(reply, 503, NULL, "the database is away, or did not answer in time");
			reply->retry_after_s = RETRY_AFTER_S;
			break;
		case DB_BAD_VALUE:
			reply_error(reply, 400, only_text(query), "%s has a character that this database cannot have",
						only_text(query) ? only_text(query) : "tenant or status");
			break;
		case DB_NO_ROOM:
			reply_no_room(reply);
			break;
		case DB_TOO_LONG:
			reply_error(reply, 500, NULL, "the answer is too long for the memory of spine-http; ask for less of it");
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
	if (query->endpoint->statement == DB_METRICS && answer->outcome != DB_NO_ROOM)
		send_metrics(answer, reply);
	else
		send_answer(query, answer, reply);
	if (query->accepts_gzip)
		reply_compress(reply);
}

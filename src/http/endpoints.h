/*
 * endpoints.h
 *		What a client can ask for, and how it is answered.
 */
#ifndef SPINE_HTTP_ENDPOINTS_H
#define SPINE_HTTP_ENDPOINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "db.h"
#include "reply.h"

typedef enum ParameterKind
{
	PARAMETER_TEXT,
	PARAMETER_LIMIT				/* a whole number: how many rows at most */
} ParameterKind;

typedef struct Parameter
{
	const char *name;
	ParameterKind kind;
} Parameter;

typedef struct Endpoint
{
	const char *path;
	const char *help;			/* for --help */
	const DbStatement *statement;	/* NULL: answered without the database */
	const char *content_type;
	const char *cache_control;
	int			nparameters;
	Parameter	parameters[DB_MAX_VALUES];	/* in the order of the statement's values */
} Endpoint;

/*
 * What the page shows: the newest rows and their totals.  The file that knows what the
 * rows are defines them.
 */
extern const Endpoint endpoint_rows;
extern const Endpoint endpoint_totals;

/* What a request asks of an endpoint. */
typedef struct Query
{
	const Endpoint *endpoint;
	int64_t		asked_ms;		/* clock_ms() when the request came */
	char	   *values[DB_MAX_VALUES];	/* of the parameters; malloc'd or NULL */
	char	   *if_none_match;	/* malloc'd or NULL */
	bool		accepts_gzip;
} Query;

/* Prepares the page for sending. */
extern void endpoints_init(void);

/* Writes a line for each endpoint, for --help. */
extern void endpoints_write_help(FILE *out);

/* Never NULL: for a path that does not exist, an endpoint that says so. */
extern const Endpoint *endpoint_find(const char *path);

/* False: the endpoint stands for paths that do not exist. */
extern bool endpoint_exists(const Endpoint *endpoint);

/* The endpoint's number, for metrics_count_request. */
extern int	endpoint_number(const Endpoint *endpoint);

/*
 * Adds a parameter of the URL.  value is NULL if there is no "="; name and value may
 * contain NUL bytes.  False: something is wrong with it, and *reply says what.
 */
extern bool query_add(Query *query, const char *name, size_t name_len,
					  const char *value, size_t value_len, Reply *reply);

/* Frees what the query holds. */
extern void query_clear(Query *query);

/* True: the query needs no database, and *reply is the answer. */
extern bool query_answer_at_once(const Query *query, Reply *reply);

/* Is one answer right for both? */
extern bool query_is_same(const Query *a, const Query *b);

/* Asks the database.  Called on a thread of the pool. */
extern void query_ask(const Query *query, DbSession *session, DbAnswer *answer);

/* Makes the reply from the answer to this query or to one that is the same. */
extern void query_reply(const Query *query, const DbAnswer *answer, Reply *reply);

#endif							/* SPINE_HTTP_ENDPOINTS_H */

/*
 * endpoints.h
 *		What there is to ask for, and how each is answered.
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
	PARAMETER_LIMIT				/* how many rows at most: a whole number */
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
 * What the page shows: its newest rows, and their totals.  Defined by the file that
 * knows what the rows are.
 */
extern const Endpoint endpoint_rows;
extern const Endpoint endpoint_totals;

/* A question to an endpoint. */
typedef struct Query
{
	const Endpoint *endpoint;
	int64_t		asked_ms;		/* clock_ms() when it came */
	char	   *values[DB_MAX_VALUES];	/* of its parameters; malloc'd or NULL */
	char	   *if_none_match;	/* malloc'd or NULL */
	bool		accepts_gzip;
} Query;

/* Makes the page ready to be sent. */
extern void endpoints_init(void);

/* Writes a line for each endpoint, for --help. */
extern void endpoints_write_help(FILE *out);

/* Never NULL: a path that is not there leads to an endpoint that says so. */
extern const Endpoint *endpoint_find(const char *path);

/* Is it a real one? */
extern bool endpoint_exists(const Endpoint *endpoint);

/* Its number, for metrics_count_request. */
extern int	endpoint_number(const Endpoint *endpoint);

/*
 * Takes a parameter of the URL (value NULL: without "="; both may contain NUL
 * bytes).  False: there is something wrong with it, and *reply says what.
 */
extern bool query_add(Query *query, const char *name, size_t name_len,
					  const char *value, size_t value_len, Reply *reply);

/* Frees what the query holds. */
extern void query_clear(Query *query);

/* Can the query be answered without the database?  Then *reply is the answer. */
extern bool query_answer_at_once(const Query *query, Reply *reply);

/* Would one answer be right for both? */
extern bool query_is_same(const Query *a, const Query *b);

/* Asks the database; on a thread of the pool. */
extern void query_ask(const Query *query, DbSession *session, DbAnswer *answer);

/* Makes the reply of the answer to this query or the same. */
extern void query_reply(const Query *query, const DbAnswer *answer, Reply *reply);

#endif							/* SPINE_HTTP_ENDPOINTS_H */

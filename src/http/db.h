/*
 * db.h
 *		A session with the database, and what a statement is.
 *
 * A session belongs to one thread.  It connects when it is first asked, and
 * reconnects when it has to.
 */
#ifndef SPINE_HTTP_DB_H
#define SPINE_HTTP_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "body.h"
#include "etag.h"

#define DB_MAX_STATEMENTS	8
#define DB_MAX_VALUES		3

/*
 * Each of these is static, as a session remembers a statement by its address.  There
 * are DB_MAX_STATEMENTS at most.
 */
typedef struct DbStatement
{
	const char *name;
	const char *sql;			/* made with one of the next two */
	int			nvalues;
	bool		has_etag;
	size_t		usual_len;		/* of a body; a longer body takes a second question */
} DbStatement;

/*
 * SQL that returns one row: the body, NULL if it is too long; its entity tag, or
 * else whether the answer means "ready"; and the body's length.  The last parameter
 * of the statement, after its values, is how long the body may be.
 */
#define DB_BOUNDED(query, second, limit) \
	"SELECT CASE WHEN octet_length(body) <= " limit "::integer THEN body END, " second ", octet_length(body)" \
	" FROM (SELECT " query ") q (body, ready)"
#define DB_WITH_ETAG(body, source, limit) \
	DB_BOUNDED(body ", NULL FROM " source, "to_hex(hashtextextended(body, 0))", limit)

typedef enum DbOutcome
{
	DB_ANSWERED,				/* the body is the answer */
	DB_AWAY,					/* no connection, or no answer in time */
	DB_BAD_VALUE,				/* a value that does not exist in the database's encoding */
	DB_NO_ROOM,					/* not enough memory now */
	DB_TOO_LONG,				/* more than all the memory there is for answers */
	DB_FAILED					/* the database refused the query; the log says why */
} DbOutcome;

typedef struct DbAnswer
{
	DbOutcome	outcome;
	Body	   *body;			/* belongs to the caller; NULL: none */
	char		etag[ETAG_SIZE];	/* with its quotes; "": none */
	bool		ready;			/* of a statement without an entity tag */
} DbAnswer;

typedef struct DbOptions
{
	const char *conninfo;		/* for libpq; may be "" */
	int			timeout_s;		/* for an answer, and for connecting */
} DbOptions;

typedef struct DbSession DbSession;

/* Does not connect.  NULL: out of memory. */
extern DbSession *db_session_create(const DbOptions *options);

extern void db_session_destroy(DbSession *session);

/*
 * Runs a statement with its values as text; NULL: the value is not given.  asked_ms
 * is when the client asked (clock_ms): after the time for an answer is over, the
 * statement is not tried.
 */
extern void db_query(DbSession *session, const DbStatement *statement, const char *const *values,
					 int64_t asked_ms, DbAnswer *answer);

/* Makes every session reconnect before its next statement.  Any thread. */
extern void db_reconnect_all(void);

#endif							/* SPINE_HTTP_DB_H */

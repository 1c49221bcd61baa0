/*
 * db.h
 *		A session with the database, and what a statement is.
 *
 * A session belongs to one thread.  It connects when it is first asked, and
 * again whenever it has to.
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
	size_t		usual_len;		/* of a body; a longer one takes a second question */
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
	DB_ANSWERED,				/* body is what there is to send */
	DB_AWAY,					/* no connection, or no answer in time */
	DB_BAD_VALUE,				/* a value that this database cannot have */
	DB_NO_ROOM,					/* too much memory is taken already */
	DB_TOO_LONG,				/* there will never be room for it */
	DB_FAILED					/* a mistake in the set-up; the log says which */
} DbOutcome;

typedef struct DbAnswer
{
	DbOutcome	outcome;
	Body	   *body;			/* the caller's; NULL: there is none */
	char		etag[ETAG_SIZE];	/* with its quotes; "": none */
	bool		ready;			/* of a statement without an entity tag */
} DbAnswer;

typedef struct DbOptions
{
	const char *conninfo;		/* libpq's; may be "" */
	int			timeout_s;		/* for an answer, and for connecting */
} DbOptions;

typedef struct DbSession DbSession;

/* Does not connect yet.  NULL: out of memory. */
extern DbSession *db_session_create(const DbOptions *options);

extern void db_session_destroy(DbSession *session);

/*
 * Runs a statement with its values as text, NULL for those that are not given.
 * asked_ms: when the client did (clock_ms); once the time for an answer is over, it
 * is not tried any more.
 */
extern void db_query(DbSession *session, const DbStatement *statement, const char *const *values,
					 int64_t asked_ms, DbAnswer *answer);

/* Makes every session connect anew before its next statement.  Any thread. */
extern void db_reconnect_all(void);

#endif							/* SPINE_HTTP_DB_H */

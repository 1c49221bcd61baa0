/*
 * db.h
 *		A session with the database, and every statement there is.
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

typedef enum DbStatement
{
	DB_ORDERS,					/* tenant, status, limit */
	DB_STATS,					/* tenant */
	DB_METRICS,
	DB_READINESS,
	DB_STATEMENTS
} DbStatement;

#define DB_MAX_VALUES		3

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
	bool		ready;			/* of DB_READINESS */
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
extern void db_query(DbSession *session, DbStatement statement, const char *const *values,
					 int64_t asked_ms, DbAnswer *answer);

/* Makes every session connect anew before its next statement.  Any thread. */
extern void db_reconnect_all(void);

#endif							/* SPINE_HTTP_DB_H */

/*
 * db.c
 *		Sessions: connecting, asking, and telling apart what may go wrong.
 *
 * Statements are run without blocking in libpq, so that a server that does not
 * answer any more costs a request its deadline and no more.
 */
#include "db.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "recent.h"

#define RETRY_MS			1000	/* between attempts to connect */
#define SERVER_FIRST_MS		1000

struct DbSession
{
	const DbOptions *options;
	PGconn	   *conn;			/* NULL: not connected */
	bool		prepared[DB_STATEMENTS];
	unsigned	generation;		/* of reconnect_requests when it connected */
	int64_t		connect_at_ms;	/* do not try to connect before, */
	unsigned	recoveries;		/* unless another did since we tried */
	int64_t		renew_at_ms;	/* nor for a failed statement's sake */
	int64_t		deadline_ms;	/* of what is asked now */
	RecentAnswers recent;
};

#define WITH_ETAG(query) \
	"SELECT body, to_hex(hashtextextended(body, 0)) FROM (SELECT " query ") q (body)"

/* One row each: the body; its entity tag, or of DB_READINESS whether it is. */
static const struct
{
	const char *name;
	const char *sql;
	int			nvalues;
	bool		has_etag;
}			statements[DB_STATEMENTS] = {
	[DB_ORDERS] = {
		"orders", WITH_ETAG("coalesce(json_agg(o), '[]')::text FROM spine_orders($1::text, $2::text, $3::integer) o"),
		3, true
	},
	[DB_STATS] = {
		"stats", WITH_ETAG("coalesce(json_agg(s), '[]')::text FROM spine_stats($1::text) s"),
		1, true
	},
	[DB_METRICS] = {
		"metrics", "SELECT spine_metrics_text(), NULL",
		0, false
	},
	[DB_READINESS] = {
		"readiness", "SELECT report::text, ready::text FROM spine_readiness()",
		0, false
	},
};

/*
 * The state of the server as its snapshot has it: it stays the same as long as
 * no transaction that writes has ended.  A standby's snapshot does not list what runs,
 * but nothing changes there unless something is replayed.
 */
#define STATE_STATEMENT		"state"
#define PREPARE_STATE \
	"PREPARE " STATE_STATEMENT " AS SELECT pg_catalog.pg_current_snapshot()::text ||" \
	" coalesce(pg_catalog.pg_last_wal_replay_lsn()::text, '')"

static atomic_uint reconnect_requests;
static atomic_bool is_away;		/* as the session that tried last found it */
static atomic_uint recoveries;	/* how often it was back */

DbSession *
db_session_create(const DbOptions *options)
{
	DbSession  *session = calloc(1, sizeof(DbSession));

	if (session)
		session->options = options;
	return session;
}

/* What was remembered goes too: the next server may have another history. */
static void
disconnect(DbSession *session)
{
	PQfinish(session->conn);
	session->conn = NULL;
	memset(session->prepared, 0, sizeof(session->prepared));
	recent_clear(&session->recent);
}

void
db_session_destroy(DbSession *session)
{
	if (session == NULL)
		return;
	disconnect(session);
	free(session);
}

void
db_reconnect_all(void)
{
	atomic_fetch_add(&reconnect_requests, 1);
}

/* Says once that the database is away, and once that it is back. */
static void
say_away(const char *why)
{
	if (!atomic_exchange(&is_away, true))
		log_message("database away: %s", why);
}

/* Waits for the socket; false: the deadline has passed. */
static bool
wait_socket(const DbSession *session, short events)
{
	struct pollfd fd = {PQsocket(session->conn), events, 0};
	int64_t		left = session->deadline_ms - clock_ms();

	return left > 0 && fd.fd >= 0 && poll(&fd, 1, (int) left) != 0;
}

/*
 * The last result of what was sent, or NULL when the connection is lost or the
 * deadline has passed.
 */
static PGresult *
get_result(DbSession *session)
{
	PGconn	   *conn = session->conn;
	PGresult   *last = NULL;

	for (;;)
	{
		int			unsent = PQflush(conn);
		PGresult   *result;

		if (unsent < 0)
			break;
		if (unsent || PQisBusy(conn))
		{
			if (!wait_socket(session, unsent ? POLLIN | POLLOUT : POLLIN) ||
				!PQconsumeInput(conn))
				break;
			continue;
		}
		result = PQgetResult(conn);
		if (result == NULL)
			return last;
		PQclear(last);
		last = result;
	}
	PQclear(last);
	return NULL;
}

/* Runs a statement of the set-up; true: it did what it should. */
static bool
set_up(DbSession *session, const char *sql)
{
	PGresult   *result = PQsendQuery(session->conn, sql) ? get_result(session) : NULL;
	ExecStatusType status = PQresultStatus(result);
	bool		done = status == PGRES_COMMAND_OK ||
		(status == PGRES_TUPLES_OK && PQntuples(result) == 1);

	PQclear(result);
	return done;
}

/*
 * Nothing here can write, run for long, or find what is not spine's.  SET rather
 * than start-up options, which a connection pooler would not take.
 */
static bool
set_up_session(DbSession *session)
{
	char		sql[256];

	snprintf(sql, sizeof(sql),
			 "SET default_transaction_read_only = on; SET statement_timeout = %d;"
			 " SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET jit = off;"
			 " SET standard_conforming_strings = on",
			 1000 * session->options->timeout_s);
	if (!set_up(session, sql))
		return false;

	if (!set_up(session,
				"SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident(n.nspname) || ', pg_temp', false)"
				" FROM pg_catalog.pg_extension e"
				" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
				" WHERE e.extname OPERATOR(pg_catalog.=) 'spine'"))
	{
		if (PQstatus(session->conn) == CONNECTION_OK)
			say_away("the extension spine is not in this database, or was not found in time");
		return false;
	}

	return set_up(session, PREPARE_STATE);
}

/* What the server says beside its answers: libpq would write it to standard error. */
static void
log_notice(void *arg, const char *message)
{
	(void) arg;
	log_message("database: %s", message);
}

/* Blocks, by host for as long as connect_timeout says. */
static bool
connect_session(DbSession *session)
{
	/* dbname may be a whole connection string, which overrides what is before it */
	const char *const keywords[] = {"fallback_application_name", "connect_timeout", "dbname", "client_encoding", NULL};
	char		timeout[16];
	const char *const values[] = {"spine-http", timeout, session->options->conninfo, "UTF8", NULL};

	if (clock_ms() < session->connect_at_ms && session->recoveries == atomic_load(&recoveries))
		return false;
	session->recoveries = atomic_load(&recoveries);

	snprintf(timeout, sizeof(timeout), "%d", session->options->timeout_s);
	session->generation = atomic_load(&reconnect_requests);
	session->conn = PQconnectdbParams(keywords, values, 1);
	PQsetNoticeProcessor(session->conn, log_notice, NULL);
	session->deadline_ms = clock_ms() + 1000 * session->options->timeout_s;
	if (PQstatus(session->conn) == CONNECTION_OK &&
		PQsetnonblocking(session->conn, 1) == 0 && set_up_session(session))
	{
		session->connect_at_ms = 0;
		if (atomic_exchange(&is_away, false))
		{
			atomic_fetch_add(&recoveries, 1);
			log_message("database is back");
		}
		return true;
	}

	say_away(session->conn && *PQerrorMessage(session->conn) ?
			 PQerrorMessage(session->conn) : "no answer in time");
	disconnect(session);
	session->connect_at_ms = clock_ms() + RETRY_MS;
	return false;
}

/* Asks, and prepares before that if need be; NULL: no answer. */
static PGresult *
ask(DbSession *session, DbStatement statement, const char *const *values)
{
	if (!session->prepared[statement])
	{
		PGresult   *result = NULL;

		if (PQsendPrepare(session->conn, statements[statement].name,
						  statements[statement].sql, 0, NULL))
			result = get_result(session);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			return result;
		PQclear(result);
		session->prepared[statement] = true;
	}
	if (!PQsendQueryPrepared(session->conn, statements[statement].name,
							 statements[statement].nvalues, values, NULL, NULL, 0))
		return NULL;
	return get_result(session);
}

/* A statement and its values as one string, or NULL. */
static char *
question_of(DbStatement statement, const char *const *values)
{
	char	   *question = NULL;
	size_t		len;
	FILE	   *stream = open_memstream(&question, &len);

	if (stream == NULL)
		return NULL;
	fputs(statements[statement].name, stream);
	for (int i = 0; i < statements[statement].nvalues; i++)
	{
		if (values[i])
			fprintf(stream, " %zu:%s", strlen(values[i]), values[i]);
		else
			fputs(" -", stream);
	}
	if (fclose(stream) == 0)
		return question;
	free(question);
	return NULL;
}

/* A copy for the answer; DB_FAILED: out of memory. */
static DbOutcome
put_body(DbAnswer *answer, const char *body, size_t len)
{
	answer->body = malloc(len + 1);
	if (answer->body == NULL)
		return DB_FAILED;
	memcpy(answer->body, body, len + 1);
	answer->len = len;
	return DB_ANSWERED;
}

/* Answers from what was answered before, if that is still current. */
static DbOutcome
answer_again(const RecentAnswer *recent, const char *state, DbAnswer *answer)
{
	if (recent == NULL || strcmp(recent->state, state) != 0)
		return DB_FAILED;
	memcpy(answer->etag, recent->etag, sizeof(answer->etag));
	return put_body(answer, recent->body, recent->len);
}

/* What an error means for the request. */
static DbOutcome
classify(const char *sqlstate)
{
	/* the text cannot be in this database's encoding */
	if (strcmp(sqlstate, "22021") == 0 || strcmp(sqlstate, "22P05") == 0)
		return DB_BAD_VALUE;
	/* too slow (statement_timeout, locks), no connection, no resources, shutting down */
	if (strncmp(sqlstate, "57", 2) == 0 || strncmp(sqlstate, "08", 2) == 0 ||
		strncmp(sqlstate, "53", 2) == 0 || strncmp(sqlstate, "58", 2) == 0 ||
		strncmp(sqlstate, "55", 2) == 0 || strncmp(sqlstate, "40", 2) == 0)
		return DB_AWAY;
	return DB_FAILED;
}

/*
 * What did not succeed.  Without a result the connection is lost, or in the
 * middle of an answer.
 */
static DbOutcome
fail(DbSession *session, DbStatement statement, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	DbOutcome	outcome = sqlstate ? classify(sqlstate) : DB_AWAY;

	if (outcome != DB_BAD_VALUE)
		log_message("%s: %s", statements[statement].name,
					result ? PQresultErrorMessage(result) :
					*PQerrorMessage(session->conn) ? PQerrorMessage(session->conn) :
					"no answer in time");
	if (result == NULL || PQstatus(session->conn) != CONNECTION_OK)
		disconnect(session);
	return outcome;
}

/* One attempt at a statement whose answers have no entity tag. */
static DbOutcome
try_plain(DbSession *session, DbStatement statement, const char *const *values, DbAnswer *answer)
{
	PGresult   *result = ask(session, statement, values);
	DbOutcome	outcome;

	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
	{
		answer->ready = strcmp(PQgetvalue(result, 0, 1), "true") == 0;
		outcome = put_body(answer, PQgetvalue(result, 0, 0), PQgetlength(result, 0, 0));
	}
	else
		outcome = fail(session, statement, result);
	PQclear(result);
	return outcome;
}

/*
 * One attempt at a statement whose answer depends on the state of the database.
 * That is read first: should it change before the answer is made, the answer
 * counts for older than it is, and is soon made again.
 */
static DbOutcome
try_remembering(DbSession *session, DbStatement statement, const char *const *values,
				const char *question, DbAnswer *answer)
{
	PGresult   *state = NULL;
	PGresult   *result = NULL;
	DbOutcome	outcome = DB_FAILED;

	if (PQsendQueryPrepared(session->conn, STATE_STATEMENT, 0, NULL, NULL, NULL, 0))
		state = get_result(session);
	if (PQresultStatus(state) == PGRES_TUPLES_OK)
	{
		const char *state_text = PQgetvalue(state, 0, 0);

		outcome = answer_again(recent_find(&session->recent, question), state_text, answer);
		if (outcome != DB_FAILED)
		{
			PQclear(state);
			return outcome;
		}
		result = ask(session, statement, values);
		if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
		{
			const char *body = PQgetvalue(result, 0, 0);
			size_t		len = PQgetlength(result, 0, 0);

			snprintf(answer->etag, sizeof(answer->etag), "\"%s\"", PQgetvalue(result, 0, 1));
			recent_put(&session->recent, question, state_text, answer->etag, body, len);
			outcome = put_body(answer, body, len);
		}
		else
			outcome = fail(session, statement, result);
	}
	else
		outcome = fail(session, statement, state);
	PQclear(state);
	PQclear(result);
	return outcome;
}

/* One attempt. */
static DbOutcome
try_query(DbSession *session, DbStatement statement, const char *const *values,
		  DbAnswer *answer)
{
	char	   *question;
	DbOutcome	outcome = DB_FAILED;

	if (!statements[statement].has_etag)
		return try_plain(session, statement, values, answer);

	question = question_of(statement, values);
	if (question)
		outcome = try_remembering(session, statement, values, question, answer);
	free(question);
	return outcome;
}

void
db_query(DbSession *session, DbStatement statement, const char *const *values,
		 int64_t asked_ms, DbAnswer *answer)
{
	/* the server keeps the limit first, unless it is not there to keep it */
	int64_t		deadline_ms = asked_ms + 1000 * session->options->timeout_s + SERVER_FIRST_MS;

	memset(answer, 0, sizeof(*answer));
	answer->outcome = DB_AWAY;
	if (clock_ms() >= deadline_ms)
		return;

	if (session->conn && session->generation != atomic_load(&reconnect_requests))
		disconnect(session);

	if (session->conn)
	{
		session->deadline_ms = deadline_ms;
		answer->outcome = try_query(session, statement, values, answer);

		/*
		 * A connection that was idle may have been lost long ago, and what is
		 * prepared on it may be of an extension that has since been altered or
		 * made anew.  Nothing writes, so try again on a new one.
		 */
		if (answer->outcome == DB_FAILED && clock_ms() >= session->renew_at_ms)
		{
			session->renew_at_ms = clock_ms() + RETRY_MS;
			disconnect(session);
		}
		if (session->conn || clock_ms() >= deadline_ms)
			return;
		answer->outcome = DB_AWAY;
	}
	if (connect_session(session))
	{
		session->deadline_ms = deadline_ms;
		answer->outcome = try_query(session, statement, values, answer);
	}
}

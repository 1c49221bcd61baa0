/*
 * db.c
 *		Sessions: connecting, asking, and classifying failures.
 *
 * Statements run without blocking in libpq, so a server that stops answering costs
 * a request no more than its deadline.
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

/* While an answer is read it takes this many times its length, libpq's copies included. */
#define WHILE_READ			4
#define LONG_BODY			(1024 * 1024)	/* libpq keeps the buffer that such a body needed */

/* What a session knows of a statement. */
typedef struct KnownStatement
{
	const DbStatement *statement;	/* NULL: none yet */
	bool		is_prepared;
	size_t		expected_len;	/* of a body; 0: not known */
} KnownStatement;

struct DbSession
{
	const DbOptions *options;
	PGconn	   *conn;			/* NULL: not connected */
	KnownStatement known[DB_MAX_STATEMENTS];
	unsigned	generation;		/* value of reconnect_requests when it connected */
	int64_t		connect_at_ms;	/* do not try to connect before this time, */
	unsigned	recoveries;		/* unless the database has come back since */
	int64_t		renew_at_ms;	/* do not reconnect after a failed statement before this */
	int64_t		deadline_ms;	/* of the current question */
	bool		has_long_buffer;
	RecentAnswers recent;
};

/*
 * The state of the server, as its snapshot shows it: the state stays the same until
 * a writing transaction ends.  A standby's snapshot does not list the running
 * transactions, but nothing changes on a standby unless WAL is replayed.
 */
#define STATE_STATEMENT		"state"
#define PREPARE_STATE \
	"PREPARE " STATE_STATEMENT " AS SELECT pg_catalog.pg_current_snapshot()::text ||" \
	" coalesce(pg_catalog.pg_last_wal_replay_lsn()::text, '')"

static atomic_uint reconnect_requests;
static atomic_bool is_away;		/* what the last attempt to connect found */
static atomic_uint recoveries;	/* how often the database has come back */

DbSession *
db_session_create(const DbOptions *options)
{
	DbSession  *session = calloc(1, sizeof(DbSession));

	if (session)
		session->options = options;
	return session;
}

/* Forgets the answers too: the next server may have another history. */
static void
disconnect(DbSession *session)
{
	PQfinish(session->conn);
	session->conn = NULL;
	session->has_long_buffer = false;
	for (int i = 0; i < DB_MAX_STATEMENTS; i++)
		session->known[i].is_prepared = false;
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

/* Waits for the socket.  False: the deadline has passed. */
static bool
wait_socket(const DbSession *session, short events)
{
	struct pollfd fd = {PQsocket(session->conn), events, 0};
	int64_t		left = session->deadline_ms - clock_ms();

	return left > 0 && fd.fd >= 0 && poll(&fd, 1, (int) left) != 0;
}

/*
 * The last result of the command that was sent.  NULL: the connection is lost, or the
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

/* Runs a set-up statement.  True: it succeeded and, if a query, returned one row. */
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
 * After this the session cannot write, run for long, or find objects that are not
 * spine's.  SET is used because a connection pooler would not accept start-up options.
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

/* Logs a notice from the server, which libpq would write to standard error. */
static void
log_notice(void *arg, const char *message)
{
	(void) arg;
	log_message("database: %s", message);
}

/*
 * Blocks for up to connect_timeout for each host.  If the host goes away without a word,
 * keepalives end a connection that waits for it, and tcp_user_timeout (in ms) one that
 * has sent something: both after about 15 seconds.
 */
static bool
connect_session(DbSession *session)
{
	/* dbname may be a whole connection string, which overrides the values before it */
	const char *const keywords[] = {
		"fallback_application_name", "connect_timeout",
		"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
		"dbname", "client_encoding", NULL
	};
	char		timeout[16];
	const char *const values[] = {
		"spine-http", timeout,
		"5", "5", "2", "15000",
		session->options->conninfo, "UTF8", NULL
	};

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

static KnownStatement *
known_statement(DbSession *session, const DbStatement *statement)
{
	KnownStatement *known = session->known;

	while (known->statement && known->statement != statement)
		known++;
	known->statement = statement;
	return known;
}

/* Runs a statement, which it first prepares if necessary.  NULL: no answer. */
static PGresult *
ask(DbSession *session, const DbStatement *statement, const char *const *values, size_t limit)
{
	KnownStatement *known = known_statement(session, statement);
	int			nvalues = statement->nvalues;
	const char *all_values[DB_MAX_VALUES + 1];
	char		limit_text[24];

	memcpy(all_values, values, nvalues * sizeof(char *));
	snprintf(limit_text, sizeof(limit_text), "%zu", limit);
	all_values[nvalues] = limit_text;
	if (!known->is_prepared)
	{
		PGresult   *result = NULL;

		if (PQsendPrepare(session->conn, statement->name, statement->sql, 0, NULL))
			result = get_result(session);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			return result;
		PQclear(result);
		known->is_prepared = true;
	}
	if (!PQsendQueryPrepared(session->conn, statement->name, nvalues + 1, all_values, NULL, NULL, 0))
		return NULL;
	return get_result(session);
}

/* A statement and its values as one malloc'd string.  NULL: out of memory. */
static char *
question_of(const DbStatement *statement, const char *const *values)
{
	char	   *question = NULL;
	size_t		len;
	FILE	   *stream = open_memstream(&question, &len);

	if (stream == NULL)
		return NULL;
	fputs(statement->name, stream);
	for (int i = 0; i < statement->nvalues; i++)
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

/* Gives a remembered answer again, if there is one. */
static bool
answer_again(const RecentAnswer *recent, DbAnswer *answer)
{
	if (recent == NULL)
		return false;
	memcpy(answer->etag, recent->etag, sizeof(answer->etag));
	answer->body = body_share(recent->body);
	return true;
}

/* What a SQLSTATE means for the request. */
static DbOutcome
classify(const char *sqlstate)
{
	/* the text does not exist in this database's encoding */
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
 * Logs a failed statement and classifies it.  Without a result, the connection is
 * lost or still in the middle of an answer, and is closed.
 */
static DbOutcome
fail(DbSession *session, const DbStatement *statement, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	DbOutcome	outcome = sqlstate ? classify(sqlstate) : DB_AWAY;

	if (outcome != DB_BAD_VALUE)
		log_message("%s: %s", statement->name,
					result ? PQresultErrorMessage(result) :
					*PQerrorMessage(session->conn) ? PQerrorMessage(session->conn) :
					"no answer in time");
	if (result == NULL || PQstatus(session->conn) != CONNECTION_OK)
		disconnect(session);
	return outcome;
}

/*
 * Asks for the body and its second column.  Memory must be reserved before the body
 * is read, so the database is told how long the body may be.  If the body is longer,
 * the database is asked again with more room.  The next body is expected to be about
 * as long as the last.
 */
static DbOutcome
ask_for_body(DbSession *session, const DbStatement *statement, const char *const *values,
			 DbAnswer *answer, char *second, size_t second_size)
{
	KnownStatement *known = known_statement(session, statement);
	size_t		usual = statement->usual_len;
	size_t		limit = known->expected_len;

	for (;;)
	{
		size_t		room;
		size_t		len = 0;
		PGresult   *result;
		DbOutcome	outcome = DB_FAILED;

		limit = limit > usual ? limit : usual;
		room = WHILE_READ * limit;
		known->expected_len = 0;
		if (!memory_reserve(room))
			return memory_could_be(room) ? DB_NO_ROOM : DB_TOO_LONG;

		result = ask(session, statement, values, limit);
		if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
			outcome = fail(session, statement, result);
		else if ((len = strtoul(PQgetvalue(result, 0, 2), NULL, 10)) <= limit)
		{
			snprintf(second, second_size, "%s", PQgetvalue(result, 0, 1));
			answer->body = body_create(PQgetvalue(result, 0, 0), PQgetlength(result, 0, 0));
			outcome = answer->body ? DB_ANSWERED : DB_NO_ROOM;
		}
		PQclear(result);
		memory_release(room);
		if (len <= limit)
		{
			known->expected_len = len + len / 4;
			session->has_long_buffer |= limit > LONG_BODY;
			return outcome;
		}
		limit = len + len / 4;
	}
}

/* Tries once to run a statement whose answers have no entity tag. */
static DbOutcome
try_plain(DbSession *session, const DbStatement *statement, const char *const *values, DbAnswer *answer)
{
	char		ready[8] = "";
	DbOutcome	outcome = ask_for_body(session, statement, values, answer, ready, sizeof(ready));

	answer->ready = strcmp(ready, "true") == 0;
	return outcome;
}

/*
 * Tries once to run a statement whose answer depends on the state of the database.
 * The state is read first.  If the state changes before the answer is made, the
 * answer is remembered under the older state and is soon made again.
 */
static DbOutcome
try_remembering(DbSession *session, const DbStatement *statement, const char *const *values,
				const char *question, DbAnswer *answer)
{
	PGresult   *state = NULL;
	DbOutcome	outcome = DB_ANSWERED;

	if (PQsendQueryPrepared(session->conn, STATE_STATEMENT, 0, NULL, NULL, NULL, 0))
		state = get_result(session);
	if (PQresultStatus(state) != PGRES_TUPLES_OK)
		outcome = fail(session, statement, state);
	else if (!answer_again(recent_find(&session->recent, question, PQgetvalue(state, 0, 0)), answer))
	{
		char		hash[ETAG_SIZE - 2];

		outcome = ask_for_body(session, statement, values, answer, hash, sizeof(hash));
		if (outcome == DB_ANSWERED)
		{
			snprintf(answer->etag, sizeof(answer->etag), "\"%s\"", hash);
			recent_put(&session->recent, question, answer->etag, answer->body);
		}
	}
	PQclear(state);
	return outcome;
}

/* Tries once to run a statement. */
static DbOutcome
try_query(DbSession *session, const DbStatement *statement, const char *const *values,
		  DbAnswer *answer)
{
	char	   *question;
	DbOutcome	outcome = DB_FAILED;

	if (!statement->has_etag)
		return try_plain(session, statement, values, answer);

	question = question_of(statement, values);
	if (question)
		outcome = try_remembering(session, statement, values, question, answer);
	free(question);
	return outcome;
}

static void
query(DbSession *session, const DbStatement *statement, const char *const *values,
	  int64_t asked_ms, DbAnswer *answer)
{
	/* later than statement_timeout, so that a live server ends the statement first */
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
		 * An idle connection may have been lost long ago, and its prepared
		 * statements may belong to an extension that has since been altered or
		 * recreated.  No statement writes, so it is safe to try again on a new
		 * connection.
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

void
db_query(DbSession *session, const DbStatement *statement, const char *const *values,
		 int64_t asked_ms, DbAnswer *answer)
{
	query(session, statement, values, asked_ms, answer);
	if (answer->outcome == DB_TOO_LONG)
		log_message("%s: the answer is too long for --memory", statement->name);
	if (session->has_long_buffer)
		disconnect(session);
}

/*
 * server.c
 *		From HTTP request to query, and from reply to HTTP response.
 *
 * One thread of libmicrohttpd does all of this.  A request that needs the database
 * is suspended: libmicrohttpd leaves it alone until a thread of the pool has the
 * answer and resumes it.
 */
#include "server.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "connections.h"
#include "endpoints.h"
#include "log.h"
#include "metrics.h"
#include "page.inc"

#define MAX_CONNECTIONS		1500
#define CROWDED				(MAX_CONNECTIONS * 3 / 4)	/* from here on, slow ones are cut off */
#define CONNECTION_MEMORY	(16 * 1024)	/* request line, headers, write buffer */
#define IDLE_TIMEOUT_S		30
#define BACKLOG				1024
#define SMALL_TARGET		1024	/* not worth counting */
#define MAX_IF_NONE_MATCH	1024	/* a longer header counts as not given */
#define SHARE_MS			500		/* requests that came within this time may share an answer */

/*
 * One request, from its first line until the last byte is sent.  It belongs to one
 * thread at a time: to that of libmicrohttpd or, while suspended, to one of the pool.
 */
typedef struct Request
{
	PoolJob		job;			/* must be the first */
	struct MHD_Connection *connection;
	char	   *target;			/* as the client sent it, for the log */
	size_t		counted;		/* bytes reserved for its texts */
	char		method[16];		/* "": the headers are not complete yet */
	Query		query;
	Reply		reply;			/* status 0: none yet */
	int64_t		started_us;		/* when the headers were complete */
	int64_t		answered_us;
} Request;

static struct MHD_Daemon *http_daemon;
static int	listen_fd = -1;		/* used by the daemon until it is stopped */

/* Guards what follows. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t request_over = PTHREAD_COND_INITIALIZER;
static int	open_requests;
static bool draining;

static void
count_open(int change)
{
	pthread_mutex_lock(&mutex);
	open_requests += change;
	if (open_requests == 0)
		pthread_cond_broadcast(&request_over);
	pthread_mutex_unlock(&mutex);
}

static bool
is_draining(void)
{
	bool		answer;

	pthread_mutex_lock(&mutex);
	answer = draining;
	pthread_mutex_unlock(&mutex);
	return answer;
}

static Connection *
watched(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* A connection begins or ends. */
static void
watch_connection(void *cls, struct MHD_Connection *connection, void **context,
				 enum MHD_ConnectionNotificationCode what)
{
	(void) cls;
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
	{
		*context = connection_open(MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
		connections_cut_askers(CROWDED);
	}
	else
		connection_close(*context);
}

/*
 * The first line of a request has come.  libmicrohttpd keeps what is returned with the
 * request.  No target: there was no room for it.
 */
static void *
begin_request(void *cls, const char *target, struct MHD_Connection *connection)
{
	Request    *request = calloc(1, sizeof(Request));
	size_t		copies = 2 * strlen(target);	/* the target, and the values in it */

	(void) cls;
	if (copies <= SMALL_TARGET)
		copies = 0;
	if (request)
	{
		request->connection = connection;
		if (memory_reserve(copies))
		{
			request->counted = copies;
			request->target = strdup(target);
		}
	}
	return request;
}

static void
client_address(struct MHD_Connection *connection, char *buffer, size_t size)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	socklen_t	len = info && info->client_addr->sa_family == AF_INET6 ?
		sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);

	if (info == NULL ||
		getnameinfo(info->client_addr, len, buffer, size, NULL, 0, NI_NUMERICHOST) != 0)
		buffer[0] = '\0';
}

/* The response is sent, or the client has gone. */
static void
end_request(void *cls, struct MHD_Connection *connection, void **context,
			enum MHD_RequestTerminationCode how)
{
	Request    *request = *context;

	(void) cls;
	(void) how;
	if (request == NULL)
		return;
	if (request->method[0])
	{
		char		client[64];
		double		seconds;

		if (request->answered_us == 0)	/* the client left before the answer */
			request->answered_us = clock_us();
		seconds = (request->answered_us - request->started_us) / 1e6;
		client_address(connection, client, sizeof(client));
		metrics_count_request(endpoint_number(request->query.endpoint), request->reply.status, seconds);
		log_request(client, request->method, request->target ? request->target : "",
					request->reply.status, reply_len(&request->reply), seconds);
		count_open(-1);
	}
	connection_set_state(watched(connection), CONNECTION_ASKS);
	query_clear(&request->query);
	body_let_go(request->reply.body);
	free(request->target);
	memory_release(request->counted);
	free(request);
	*context = NULL;
}

static void
add_headers(struct MHD_Response *response, const Reply *reply)
{
	char		number[16];
	char		etag[ETAG_SIZE + 2];

	MHD_add_response_header(response, "Content-Type", reply->content_type);
	MHD_add_response_header(response, "Cache-Control", reply->cache_control);
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "Vary", "Accept-Encoding");
	if (reply->is_gzip)
		MHD_add_response_header(response, "Content-Encoding", "gzip");
	if (reply->allow)
		MHD_add_response_header(response, "Allow", reply->allow);
	if (reply->retry_after_s > 0)
	{
		snprintf(number, sizeof(number), "%d", reply->retry_after_s);
		MHD_add_response_header(response, "Retry-After", number);
	}
	if (reply->etag[0])
	{
		/* weak, as the tag is the same with and without gzip */
		snprintf(etag, sizeof(etag), "W/%s", reply->etag);
		MHD_add_response_header(response, "ETag", etag);
	}
	if (reply->is_page)
	{
		MHD_add_response_header(response, "Content-Security-Policy",
								"default-src 'none'; script-src '" PAGE_SCRIPT_HASH "'; style-src '" PAGE_STYLE_HASH "';"
								" connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
								" frame-ancestors 'none'");
		MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
	}
	if (is_draining())
		MHD_add_response_header(response, "Connection", "close");
}

static enum MHD_Result
send_reply(Request *request)
{
	Reply	   *reply = &request->reply;
	struct MHD_Response *response;
	enum MHD_Result queued;

	request->answered_us = clock_us();
	connection_set_state(watched(request->connection), CONNECTION_TAKES);
	if (memory_is_short())
		connections_cut_takers();
	if (reply->body)
		response = MHD_create_response_from_buffer_with_free_callback_cls(body_len(reply->body), (void *) body_data(reply->body),
																		  body_let_go, body_share(reply->body));
	else
		response = MHD_create_response_from_buffer(reply->static_len, (void *) reply->static_body, MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
	{
		body_let_go(reply->body);
		return MHD_NO;
	}
	add_headers(response, reply);
	queued = MHD_queue_response(request->connection, reply->status, response);
	MHD_destroy_response(response);
	return queued;
}

/* Adds a parameter of the URL to the query, or makes the reply say what is wrong. */
static enum MHD_Result
take_parameter(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_len,
			   const char *value, size_t value_len)
{
	Request    *request = cls;

	(void) kind;
	return query_add(&request->query, name, name_len, value, value_len, &request->reply) ? MHD_YES : MHD_NO;
}

static const char *
header(const Request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

/* Looks at one header, and ends the search if it announces a body. */
static enum MHD_Result
look_for_body(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	bool	   *found = cls;

	(void) kind;
	*found = strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0 ||
		(strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0 && strcmp(value, "0") != 0);
	return *found ? MHD_NO : MHD_YES;
}

static bool
has_body(const Request *request)
{
	bool		found = false;

	MHD_get_connection_values(request->connection, MHD_HEADER_KIND, look_for_body, &found);
	return found;
}

/* The path of a URL.  The URL may have a scheme and a host, as if sent to a proxy. */
static const char *
path_of(const char *url)
{
	const char *slash;

	if (strncasecmp(url, "http://", 7) != 0)
		return url;
	slash = strchr(url + 7, '/');
	return slash ? slash : "/";
}

/* Is there a NUL in the path?  libmicrohttpd hands the path on as a C string, cut there. */
static bool
path_has_nul(const char *target)
{
	const char *nul = strstr(target, "%00");

	return nul && nul < target + strcspn(target, "?");
}

/* Reads the request.  If something is wrong with it, there is a reply afterwards. */
static void
read_request(Request *request, const char *path)
{
	Query	   *query = &request->query;
	const char *if_none_match = header(request, MHD_HTTP_HEADER_IF_NONE_MATCH);

	query->endpoint = endpoint_find(request->target == NULL || path_has_nul(request->target) ? "" : path_of(path));
	query->asked_ms = request->started_us / 1000;
	if (request->target == NULL)
	{
		reply_no_room(&request->reply);
		return;
	}
	query->accepts_gzip = accepts_gzip(header(request, MHD_HTTP_HEADER_ACCEPT_ENCODING));
	if (if_none_match && strlen(if_none_match) <= MAX_IF_NONE_MATCH)
		query->if_none_match = strdup(if_none_match);

	if (!endpoint_exists(query->endpoint))
		(void) query_answer_at_once(query, &request->reply);
	else if (strcmp(request->method, MHD_HTTP_METHOD_GET) != 0 &&
			 strcmp(request->method, MHD_HTTP_METHOD_HEAD) != 0)
	{
		reply_error(&request->reply, 405, NULL, "only GET and HEAD are allowed here");
		request->reply.allow = "GET, HEAD";
	}
	else if (has_body(request))
		reply_error(&request->reply, 413, NULL, "nothing here takes a request body");
	else
		MHD_get_connection_values_n(request->connection, MHD_GET_ARGUMENT_KIND,
									take_parameter, request);
}

/*
 * The database is asked after both requests have come, so one answer is right for
 * both.  But the first request sets the deadline, so the second must not be much
 * younger.
 */
bool
server_may_share(const PoolJob *request, const PoolJob *first)
{
	const Query *query = &((const Request *) request)->query;
	const Query *first_query = &((const Request *) first)->query;

	return query->asked_ms - first_query->asked_ms < SHARE_MS && query_is_same(query, first_query);
}

void
server_answer(PoolJob *requests, DbSession *session)
{
	DbAnswer	answer;

	query_ask(&((Request *) requests)->query, session, &answer);
	while (requests)
	{
		Request    *request = (Request *) requests;

		requests = requests->next;	/* a resumed request may be freed at once */
		query_reply(&request->query, &answer, &request->reply);
		MHD_resume_connection(request->connection);
	}
	body_let_go(answer.body);
}

/*
 * libmicrohttpd calls this when the headers of a request are complete, when the
 * request is complete, and after it was resumed.  A reply to the first call makes
 * libmicrohttpd close the connection afterwards.  That is done for requests with a
 * body, which nobody reads.
 */
static enum MHD_Result
handle_request(void *cls, struct MHD_Connection *connection, const char *path,
			   const char *method, const char *version,
			   const char *upload, size_t *upload_size, void **context)
{
	Request    *request = *context;

	(void) cls;
	(void) version;
	(void) upload;
	*upload_size = 0;
	if (request == NULL)
		return MHD_NO;

	if (request->method[0] == '\0')
	{
		snprintf(request->method, sizeof(request->method), "%s", method);
		request->started_us = clock_us();
		connection_set_state(watched(connection), CONNECTION_WAITS);
		count_open(+1);
		read_request(request, path);
		return has_body(request) ? send_reply(request) : MHD_YES;
	}
	if (request->reply.status == 0 && !query_answer_at_once(&request->query, &request->reply))
	{
		MHD_suspend_connection(connection);
		if (pool_submit(&request->job))
			return MHD_YES;
		reply_error(&request->reply, 503, NULL, "too many requests are waiting for the database");
		request->reply.retry_after_s = RETRY_AFTER_S;
		MHD_resume_connection(connection);
		return MHD_YES;
	}
	return send_reply(request);
}

static void
log_library(void *cls, const char *format, va_list arguments)
{
	char		text[512];

	(void) cls;
	vsnprintf(text, sizeof(text), format, arguments);
	log_message("%s", text);
}

/* A socket that listens on the address, or -1 with errno. */
static int
listen_to(const struct addrinfo *address)
{
	int			fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
							address->ai_protocol);
	int			on = 1;
	int			off = 0;
	int			error;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (address->ai_family == AF_INET6)	/* so that [::] takes IPv4 as well */
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* A listening socket, or -1 after logging why. */
static int
listen_at(const ServerOptions *options)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	bool		all = strcmp(options->address, "*") == 0;
	int			error = getaddrinfo(all ? NULL : options->address, options->port, &hints, &found);
	int			fd = -1;

	if (error != 0)
	{
		log_message("cannot listen on %s port %s: %s", options->address, options->port, gai_strerror(error));
		return -1;
	}
	/* for all addresses IPv6 is tried first, as it takes IPv4 as well */
	for (struct addrinfo *a = found; all && a && fd < 0; a = a->ai_next)
		fd = a->ai_family == AF_INET6 ? listen_to(a) : -1;
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
		fd = listen_to(a);
	if (fd < 0)
		log_message("cannot listen on %s port %s: %s", options->address, options->port, strerror(errno));
	freeaddrinfo(found);
	return fd;
}

static void
say_where(int fd)
{
	struct sockaddr_storage address;
	socklen_t	len = sizeof(address);
	char		host[64];
	char		port[8];

	if (getsockname(fd, (struct sockaddr *) &address, &len) == 0 &&
		getnameinfo((struct sockaddr *) &address, len, host, sizeof(host), port, sizeof(port),
					NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		log_message("serving http://%s%s%s:%s/", strchr(host, ':') ? "[" : "", host,
					strchr(host, ':') ? "]" : "", port);
}

bool
server_start(const ServerOptions *options)
{
	listen_fd = listen_at(options);
	if (listen_fd < 0)
		return false;
	http_daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG,
								   0, NULL, NULL, handle_request, NULL,
								   MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
								   MHD_OPTION_LISTEN_SOCKET, listen_fd,
								   MHD_OPTION_CONNECTION_LIMIT, (unsigned) MAX_CONNECTIONS,
								   MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_MEMORY,
								   MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) IDLE_TIMEOUT_S,
								   MHD_OPTION_URI_LOG_CALLBACK, begin_request, NULL,
								   MHD_OPTION_NOTIFY_COMPLETED, end_request, NULL,
								   MHD_OPTION_NOTIFY_CONNECTION, watch_connection, NULL,
								   MHD_OPTION_END);
	if (http_daemon == NULL)
	{
		log_message("cannot start serving HTTP");
		return false;
	}
	say_where(listen_fd);
	return true;
}

void
server_drain(int timeout_s)
{
	struct timespec deadline;

	/* refuses new clients at once; the library may still use the socket, so it stays open */
	MHD_quiesce_daemon(http_daemon);
	shutdown(listen_fd, SHUT_RDWR);
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += timeout_s;

	pthread_mutex_lock(&mutex);
	draining = true;
	while (open_requests > 0 &&
		   pthread_cond_timedwait(&request_over, &mutex, &deadline) != ETIMEDOUT)
		continue;
	pthread_mutex_unlock(&mutex);
}

void
server_stop(void)
{
	MHD_stop_daemon(http_daemon);
	http_daemon = NULL;
	close(listen_fd);
	listen_fd = -1;
}

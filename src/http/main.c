/*
 * main.c
 *		spine-http: shows over HTTP what the extension spine has to show.
 *		Options, and the life of the process.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "body.h"
#include "db.h"
#include "endpoints.h"
#include "log.h"
#include "pool.h"
#include "server.h"

#define MAX_THREADS			64
#define MAX_MEMORY_MB		65536
#define DRAIN_TIMEOUT_S		30

typedef struct Options
{
	ServerOptions server;
	DbOptions	db;
	int			threads;
	int			memory_mb;
	LogFormat	log_format;
	const char *log_file;
} Options;

static const char usage_options[] =
"spine-http serves a live page, and what is on it as JSON, straight from a PostgreSQL\n"
"database that has the extension spine.\n"
"\n"
"Usage:\n"
"  spine-http [OPTION]...\n"
"\n"
"Options:\n"
"  -d, --dbname=CONNSTR   the database: a name, or a connection string or URI for\n"
"                         libpq. PGHOST, PGUSER, PGSERVICE and the like work, too.\n"
"                         Keep a password in ~/.pgpass, where ps cannot see it\n"
"  -l, --listen=ADDRESS   where to listen: a host name or address, or * for all\n"
"                         (default: 127.0.0.1)\n"
"  -p, --port=PORT        TCP port to listen on; 0 for any free port (default: 8000)\n"
"  -t, --threads=N        connections to the database, each with its own thread,\n"
"                         1 to 64 (default: 4)\n"
"      --timeout=SECONDS  the longest that the database may take for an answer\n"
"                         (default: 5)\n"
"      --memory=MB        memory for all answers together, while they are made, kept and\n"
"                         sent; when it is full, requests get a 503 (default: 20)\n"
"      --log-format=FORMAT  text, json, or quiet, which leaves out the lines for requests\n"
"                         (default: text)\n"
"      --log-file=FILE    append the log to a file (default: standard error)\n"
"  -V, --version          print the version and exit\n"
"  -h, --help             print this help and exit\n"
"\n"
"Endpoints:\n";

static const char usage_signals[] =
"\n"
"Signals:\n"
"  SIGTERM, SIGINT        answer the open requests, then end\n"
"  SIGHUP                 reopen the log file and reconnect to the database\n";

static void
fail(const char *text, const char *what)
{
	fprintf(stderr, "spine-http: %s: %s\nTry \"spine-http --help\".\n", text, what);
	exit(2);
}

/* A whole number from min to max; anything else ends the program. */
static int
parse_number(const char *text, int min, int max, const char *option)
{
	char		problem[128];
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || n < min || n > max)
	{
		snprintf(problem, sizeof(problem), "%s takes a whole number from %d to %d, not", option, min, max);
		fail(problem, text);
	}
	return n;
}

static LogFormat
parse_log_format(const char *text)
{
	if (strcmp(text, "text") == 0)
		return LOG_TEXT;
	if (strcmp(text, "json") == 0)
		return LOG_JSON;
	if (strcmp(text, "quiet") != 0)
		fail("--log-format takes text, json or quiet, not", text);
	return LOG_NO_REQUESTS;
}

static void
parse_options(int argc, char **argv, Options *options)
{
	enum
	{
		OPTION_TIMEOUT = 256, OPTION_MEMORY, OPTION_LOG_FORMAT, OPTION_LOG_FILE
	};
	static const struct option long_options[] = {
		{"dbname", required_argument, NULL, 'd'},
		{"listen", required_argument, NULL, 'l'},
		{"port", required_argument, NULL, 'p'},
		{"threads", required_argument, NULL, 't'},
		{"timeout", required_argument, NULL, OPTION_TIMEOUT},
		{"memory", required_argument, NULL, OPTION_MEMORY},
		{"log-format", required_argument, NULL, OPTION_LOG_FORMAT},
		{"log-file", required_argument, NULL, OPTION_LOG_FILE},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}
	};
	int			option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":d:l:p:t:Vh", long_options, NULL)) != -1)
	{
		switch (option)
		{
			case 'd':
				options->db.conninfo = optarg;
				break;
			case 'l':
				options->server.address = optarg;
				break;
			case 'p':
				(void) parse_number(optarg, 0, 65535, "--port");
				options->server.port = optarg;
				break;
			case 't':
				options->threads = parse_number(optarg, 1, MAX_THREADS, "--threads");
				break;
			case OPTION_TIMEOUT:
				options->db.timeout_s = parse_number(optarg, 1, 3600, "--timeout");
				break;
			case OPTION_MEMORY:
				options->memory_mb = parse_number(optarg, 4, MAX_MEMORY_MB, "--memory");
				break;
			case OPTION_LOG_FORMAT:
				options->log_format = parse_log_format(optarg);
				break;
			case OPTION_LOG_FILE:
				options->log_file = optarg;
				break;
			case 'V':
				puts("spine-http (spine) " SPINE_VERSION);
				exit(0);
			case ':':
				fail("this option needs a value", argv[optind - 1]);
				break;
			case 'h':
				fputs(usage_options, stdout);
				endpoints_write_help(stdout);
				fputs(usage_signals, stdout);
				exit(0);
			default:
				fail("unknown option", argv[optind - 1]);
		}
	}
	if (optind < argc)
		fail("too many arguments; the first is", argv[optind]);
}

/* Each client takes a descriptor, and the usual limit is 1024. */
static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
	{
		limit.rlim_cur = limit.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Makes malloc return freed memory to the system, rather than keep it between live blocks. */
static void
keep_memory_small(void)
{
	mallopt(M_MMAP_THRESHOLD, 64 * 1024);
	mallopt(M_TRIM_THRESHOLD, 256 * 1024);
	mallopt(M_ARENA_MAX, 2);
}

int
main(int argc, char **argv)
{
	/* static: the sessions keep a pointer to them */
	static Options options = {
		.server = {.address = "127.0.0.1", .port = "8000"},
		.db = {.conninfo = "", .timeout_s = 5},
		.threads = 4,
		.memory_mb = 20,
	};
	sigset_t	signals;
	int			signal_number = 0;

	parse_options(argc, argv, &options);
	if (!log_open(options.log_file, options.log_format))
		fail(options.log_file, strerror(errno));
	raise_descriptor_limit();
	keep_memory_small();
	memory_init((size_t) options.memory_mb * 1024 * 1024);
	signal(SIGPIPE, SIG_IGN);

	/* before any thread is started, so that only sigwait below gets them */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);

	endpoints_init();
	if (!pool_start(options.threads, &options.db, server_may_share, server_answer))
		fail("cannot start threads", strerror(errno));
	if (!server_start(&options.server))
		return 1;

	for (;;)
	{
		if (sigwait(&signals, &signal_number) != 0)
			continue;
		if (signal_number != SIGHUP)
			break;
		if (!log_reopen())
			log_message("cannot open %s: %s", options.log_file, strerror(errno));
		db_reconnect_all();
		log_message("reopened");
	}

	log_message("ending");
	server_drain(DRAIN_TIMEOUT_S);
	pool_stop();
	server_stop();
	return 0;
}

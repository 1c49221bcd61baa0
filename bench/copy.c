/*
 * copy.c
 *		The limit that drain and append are compared with: what a program by hand could do at best.
 *
 *		copy SESSION TABLE COLUMNS append|upsert
 *
 * It takes the batches of its session from bench_rows (copy.sql), as bytes of COPY in binary,
 * and for "upsert" one row per order, as arrays in binary.  Then it says "ready", waits for a
 * line, and writes: for each batch one COPY into TABLE, for "upsert" one INSERT ... ON CONFLICT
 * into current_orders, and a commit.  It prints how long that took, and the CPU time of its
 * backend and of itself.  libpq takes the address of the server from the environment.
 */
#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define ORDER_COLUMNS	5
#define CHUNK			(1 << 20)		/* libpq gets a COPY in pieces of this size */

typedef struct Batch
{
	char	   *rows;			/* as COPY in binary has them */
	size_t		len;
	PGresult   *orders;			/* one row: an array for each column */
} Batch;

static PGconn *db;

static void
die(const char *what)
{
	fprintf(stderr, "copy: %s: %s\n", what, PQerrorMessage(db));
	exit(1);
}

static PGresult *
check(PGresult *result, ExecStatusType wanted, const char *what)
{
	if (PQresultStatus(result) != wanted)
		die(what);
	return result;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* The CPU time of this process and of its backend. */
static double
cpu_seconds(void)
{
	char		path[64];
	char		line[1024];
	struct rusage usage;
	unsigned long user = 0,
				  system = 0;
	FILE	   *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", PQbackendPID(db));
	file = fopen(path, "r");
	if (file == NULL || fgets(line, sizeof(line), file) == NULL ||
		sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
		die(path);
	fclose(file);
	getrusage(RUSAGE_SELF, &usage);
	return (double) (user + system) / sysconf(_SC_CLK_TCK) + usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
load_rows(Batch *batch, const char *columns, const char *number)
{
	char		query[1024];
	char	   *piece;
	int			n;

	snprintf(query, sizeof(query), "COPY (SELECT %s FROM bench_rows WHERE batch = %s ORDER BY n) TO STDOUT (FORMAT binary)",
			 columns, number);
	PQclear(check(PQexec(db, query), PGRES_COPY_OUT, "COPY TO"));
	while ((n = PQgetCopyData(db, &piece, 0)) > 0)
	{
		batch->rows = realloc(batch->rows, batch->len + n);
		if (batch->rows == NULL)
			die("memory");
		memcpy(batch->rows + batch->len, piece, n);
		batch->len += n;
		PQfreemem(piece);
	}
	PQclear(check(PQgetResult(db), PGRES_COMMAND_OK, "COPY TO"));
	while (PQgetResult(db) != NULL)
		;
}

static void
load_orders(Batch *batch, const char *number)
{
	static const char query[] =
		"SELECT array_agg(tenant), array_agg(order_id), array_agg(event_type), array_agg(amount_cents), array_agg(event_time) "
		"FROM (SELECT DISTINCT ON (tenant, order_id) * FROM bench_rows WHERE batch = $1::int "
		"ORDER BY tenant, order_id, event_time DESC, n DESC) r";

	batch->orders = check(PQexecParams(db, query, 1, NULL, &number, NULL, NULL, 1), PGRES_TUPLES_OK, "reduce");
}

static void
write_rows(const Batch *batch, const char *copy)
{
	PQclear(check(PQexec(db, copy), PGRES_COPY_IN, "COPY FROM"));
	for (size_t at = 0; at < batch->len; at += CHUNK)
	{
		if (PQputCopyData(db, batch->rows + at, batch->len - at < CHUNK ? batch->len - at : CHUNK) != 1)
			die("COPY FROM");
	}
	if (PQputCopyEnd(db, NULL) != 1)
		die("COPY FROM");
	PQclear(check(PQgetResult(db), PGRES_COMMAND_OK, "COPY FROM"));
	while (PQgetResult(db) != NULL)
		;
}

static void
write_orders(const Batch *batch)
{
	static const char upsert[] =
		"INSERT INTO current_orders AS t (tenant, order_id, status, amount_cents, updated_at) "
		"SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[]) "
		"ON CONFLICT (tenant, order_id) DO UPDATE "
		"SET status = EXCLUDED.status, amount_cents = EXCLUDED.amount_cents, updated_at = EXCLUDED.updated_at "
		"WHERE EXCLUDED.updated_at >= t.updated_at";
	const char *values[ORDER_COLUMNS];
	int			lengths[ORDER_COLUMNS];
	int			formats[ORDER_COLUMNS];

	for (int i = 0; i < ORDER_COLUMNS; i++)
	{
		values[i] = PQgetvalue(batch->orders, 0, i);
		lengths[i] = PQgetlength(batch->orders, 0, i);
		formats[i] = 1;
	}
	PQclear(check(PQexecParams(db, upsert, ORDER_COLUMNS, NULL, values, lengths, formats, 0),
				  PGRES_COMMAND_OK, "upsert"));
}

int
main(int argc, char **argv)
{
	char		copy[1024];
	char		line[16];
	PGresult   *numbers;
	Batch	   *batches;
	int			n;
	int			is_upsert;
	double		start,
				cpu;

	if (argc != 5)
	{
		fprintf(stderr, "copy: see the head of copy.c\n");
		return 1;
	}
	is_upsert = strcmp(argv[4], "upsert") == 0;
	db = PQconnectdb("");
	if (PQstatus(db) != CONNECTION_OK)
		die("connect");
	PQclear(check(PQexec(db, "SET work_mem = '64MB'; SET jit = off"), PGRES_COMMAND_OK, "SET"));
	numbers = check(PQexecParams(db, "SELECT batch FROM bench_copied WHERE session = $1::int ORDER BY batch", 1, NULL,
								 (const char *const *) &argv[1], NULL, NULL, 0), PGRES_TUPLES_OK, "batches");
	n = PQntuples(numbers);
	batches = calloc(n + 1, sizeof(Batch));
	for (int i = 0; i < n; i++)
	{
		load_rows(&batches[i], argv[3], PQgetvalue(numbers, i, 0));
		if (is_upsert)
			load_orders(&batches[i], PQgetvalue(numbers, i, 0));
	}
	snprintf(copy, sizeof(copy), "COPY %s (%s) FROM STDIN (FORMAT binary)", argv[2], argv[3]);

	puts("ready");
	fflush(stdout);
	if (fgets(line, sizeof(line), stdin) == NULL)
		return 1;
	start = now();
	cpu = cpu_seconds();
	for (int i = 0; i < n; i++)
	{
		PQclear(check(PQexec(db, "BEGIN"), PGRES_COMMAND_OK, "BEGIN"));
		write_rows(&batches[i], copy);
		if (is_upsert)
			write_orders(&batches[i]);
		PQclear(check(PQexec(db, "COMMIT"), PGRES_COMMAND_OK, "COMMIT"));
	}
	printf("{\"start\": %.6f, \"end\": %.6f, \"cpu_seconds\": %.3f, \"commits\": %d}\n", start, now(),
		   cpu_seconds() - cpu, n);
	PQfinish(db);
	return 0;
}

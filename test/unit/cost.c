/*
 * cost.c
 *		What decode and reduce are counted on: see cost.sh.  The same events and
 *		rows each time; only what happens within measured() counts.
 *
 *		cost json | decode | flat | reduce ROWS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json.h>

#include "decode.h"
#include "flat_json.h"
#include "generate.h"
#include "reduce.h"

#define EVENTS			1000
#define MAX_EVENT		512
#define MAX_KEY			32
#define ROWS_PER_KEY	2

static char events[EVENTS][MAX_EVENT];
static size_t event_len[EVENTS];

static const SpineFieldSpec specs[] = {
	{"tenant", false}, {"event_id", false}, {"event_type", false},
	{"order_id", false}, {"amount_cents", false}, {"event_time", false}
};

typedef void (*Work) (size_t n);

static void
make_events(void)
{
	SpineRandom random;
	char	   *tenant = spine_generate_tenant_literal("acme", 4);

	spine_random_seed(&random, 1);
	for (size_t i = 0; i < EVENTS; i++)
		event_len[i] = spine_generate_event(&random, tenant, INT64_C(1700000000000000) + (int64_t) i,
											events[i], MAX_EVENT);
	free(tenant);
}

/* What json-c takes to read them, and nothing else. */
static void
parse_json(size_t n)
{
	struct json_tokener *tokener = json_tokener_new();

	for (size_t i = 0; i < n; i++)
	{
		json_tokener_reset(tokener);
		json_object_put(json_tokener_parse_ex(tokener, events[i], (int) event_len[i]));
	}
	json_tokener_free(tokener);
}

static void
decode(size_t n)
{
	SpineDecoder *decoder = spine_decoder_create();
	SpineField	fields[6];
	char		reason[256];

	for (size_t i = 0; i < n; i++)
	{
		if (!spine_decode(decoder, events[i], event_len[i], specs, 6, fields, reason, sizeof(reason)))
			exit(1);
	}
	spine_decoder_destroy(decoder);
}

/* What is done for records like these, which are flat. */
static void
take_flat(size_t n)
{
	SpineField	fields[6];

	for (size_t i = 0; i < n; i++)
	{
		if (!spine_flat_json(events[i], event_len[i], specs, 6, fields))
			exit(1);
	}
}

static bool
is_newer(size_t candidate, size_t incumbent, void *arg)
{
	(void) arg;
	return candidate > incumbent;
}

static SpineReduceKey *keys;
static uint32_t *table;
static uint32_t *kept;

static void
make_keys(size_t n)
{
	char	   *text = malloc(n * MAX_KEY);

	keys = malloc(n * sizeof(*keys));
	table = malloc(spine_reduce_table_size(n) * sizeof(*table));
	kept = malloc(n * sizeof(*kept));
	for (size_t i = 0; i < n; i++)
	{
		keys[i].key = text + i * MAX_KEY;
		keys[i].len = (size_t) snprintf(text + i * MAX_KEY, MAX_KEY, "acme/ord-%07zu",
										i * 7919 % (n / ROWS_PER_KEY));
	}
}

static void
reduce(size_t n)
{
	if (spine_reduce(keys, n, is_newer, NULL, table, kept) != n / ROWS_PER_KEY)
		exit(1);
}

__attribute__((noinline))
static void
measured(Work work, size_t n)
{
	work(n);
}

int
main(int argc, char **argv)
{
	size_t		n = argc == 3 ? strtoul(argv[2], NULL, 10) : EVENTS;

	if (argc == 3)
		make_keys(n);
	else
		make_events();
	measured(argc == 3 ? reduce : strcmp(argv[1], "json") == 0 ? parse_json :
			 strcmp(argv[1], "flat") == 0 ? take_flat : decode, n);
	return 0;
}

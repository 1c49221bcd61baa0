/*
 * cost.c
 *		The work whose instructions cost.sh counts: decoding and reducing.  Events and rows
 *		are the same every time, and only what measured() does counts.  A "nested" event
 *		has two flat ones in an array.  "paths" takes fields out of those.
 *
 *		cost json | flat | json-nested | nested | paths-nested | reduce ROWS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json.h>

#include "event/format.h"
#include "event/reduce.h"
#include "orders/generator.h"

#define EVENTS			1000
#define MAX_EVENT		1024
#define MAX_KEY			32
#define ROWS_PER_KEY	2

static char events[EVENTS][MAX_EVENT];
static size_t event_len[EVENTS];

static const SpineFieldSpec specs[] = {
	{.path = SPINE_PATH_TO_KEY("tenant")}, {.path = SPINE_PATH_TO_KEY("event_id")}, {.path = SPINE_PATH_TO_KEY("event_type")},
	{.path = SPINE_PATH_TO_KEY("order_id")}, {.path = SPINE_PATH_TO_KEY("amount_cents")}, {.path = SPINE_PATH_TO_KEY("event_time")},
	{.path = SPINE_PATH_TO_KEY("list"), .as_json = true, .for_jsonb = true}
};

#define PATH(...) \
	{.root = SPINE_ROOT_VALUE, .nsteps = sizeof((const SpinePathStep[]) {__VA_ARGS__}) / sizeof(SpinePathStep), \
	.steps = (const SpinePathStep[]) {__VA_ARGS__}}
#define LIST			{.member = "list"}

static const SpineFieldSpec path_specs[] = {
	{.path = SPINE_PATH_TO_KEY("tenant")},
	{.path = PATH(LIST, {.element = 0}, {.member = "event_id"})},
	{.path = PATH(LIST, {.element = 0}, {.member = "amount_cents"})},
	{.path = PATH(LIST, {.element = 1}, {.member = "event_id"})},
	{.path = PATH(LIST, {.element = 1}, {.member = "order_id"})},
	{.path = PATH(LIST, {.member = "event_type"})},
	{.path = PATH(LIST, {.member = "event_time"}), .as_json = true}
};

#define NSPECS			((int) (sizeof(specs) / sizeof(specs[0])))
#define NPATH_SPECS		((int) (sizeof(path_specs) / sizeof(path_specs[0])))

static SpineDecoder *decoder;

typedef void (*Work)(size_t n);

static void
make_events(bool nested, bool paths)
{
	SpineRandom random;
	char	   *tenant = spine_generator_tenant_literal("acme", 4);

	decoder = paths ? spine_format_json.compile(path_specs, NPATH_SPECS) :
		spine_format_json.compile(specs, NSPECS);
	spine_generator_seed(&random, 1);
	for (size_t i = 0; i < EVENTS; i++)
	{
		char		event[MAX_EVENT / 3];

		event_len[i] = spine_generator_event(&random, tenant, INT64_C(1700000000000000) + (int64_t) i,
											 event, sizeof(event));
		if (nested)
			event_len[i] = (size_t) snprintf(events[i], MAX_EVENT, "{\"list\":[%s,%s],\"tenant\":\"acme\"}",
											 event, event);
		else
			memcpy(events[i], event, event_len[i]);
	}
	free(tenant);
}

/* json-c reads the events and does nothing else. */
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
	char		reason[256];

	for (size_t i = 0; i < n; i++)
	{
		SpineRecord record = {.value = events[i], .value_len = event_len[i]};
		SpineEvent	event;

		if (spine_format_json.decode(decoder, &record, SIZE_MAX, &event,
									 reason, sizeof(reason)) != SPINE_DECODED)
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
		make_events(strstr(argv[1], "nested") != NULL, strstr(argv[1], "paths") != NULL);
	measured(argc == 3 ? reduce : strncmp(argv[1], "json", 4) == 0 ? parse_json : decode, n);
	return 0;
}

/*
 * decoding.h
 *		Decodes JSON for test_json_reader.c and test_format_json.c, with checks that every
 *		record wants.
 */
#ifndef SPINE_DECODING_H
#define SPINE_DECODING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "event/format.h"
#include "oracle.h"

#define REASON_SIZE	200

/* A literal and its length, including NUL bytes in it. */
#define BYTES(literal)	literal, sizeof(literal) - 1

/* json-c is asked about records up to this length. */
#define MAX_ORACLE_LEN	100000

#define MAX_SPECS	100
#define MAX_STEPS	10
#define MAX_NAME	64

/* The key of the records to decode. */
static const char *record_key = NULL;
static size_t record_key_len = 0;

/* Hold the fields of the last decode_exact. */
static char *last_record = NULL;
static char *last_key = NULL;
static SpineDecoder *last_decoder = NULL;

/* Compiles copies of the specs that are gone afterwards. */
static SpineDecoder *
compile(const SpineFieldSpec *specs, int nspecs)
{
	SpineFieldSpec copies[MAX_SPECS];
	SpinePathStep steps[MAX_SPECS][MAX_STEPS];
	char		names[MAX_SPECS][MAX_STEPS][MAX_NAME];
	SpineDecoder *decoder;

	assert_true(nspecs <= MAX_SPECS);
	for (int i = 0; i < nspecs; i++)
	{
		copies[i] = specs[i];
		copies[i].path.steps = steps[i];
		assert_true(specs[i].path.nsteps <= MAX_STEPS);
		for (int s = 0; s < specs[i].path.nsteps; s++)
		{
			steps[i][s] = specs[i].path.steps[s];
			if (steps[i][s].member == NULL)
				continue;
			assert_true(strlen(steps[i][s].member) < MAX_NAME);
			steps[i][s].member = strcpy(names[i][s], steps[i][s].member);
		}
	}
	decoder = spine_format_json.compile(copies, nspecs);
	memset(copies, 0, sizeof(copies));
	memset(steps, 0, sizeof(steps));
	memset(names, 0, sizeof(names));
	return decoder;
}

/* Of exactly this size, so that the sanitizers see a read past the end. */
static char *
exact_copy(const char *bytes, size_t len)
{
	char	   *copy = malloc(len > 0 ? len : 1);

	assert_non_null(copy);
	return memcpy(copy, bytes, len);
}

/* Also the group's teardown. */
static int
free_last(void **state)
{
	(void) state;
	free(last_record);
	free(last_key);
	spine_format_json.free(last_decoder);
	last_record = last_key = NULL;
	last_decoder = NULL;
	return 0;
}

/*
 * Decodes a copy of the record, and asks json-c.  The fields are valid until the next call.
 */
static SpineDecodeOutcome
decode_limited(const char *bytes, size_t len, const SpineFieldSpec *specs, int nspecs,
			   size_t max_memory, SpineField *fields, char *reason)
{
	SpineRecord record = {.value_len = len, .key_len = record_key_len};
	SpineEvent	event;
	SpineDecodeOutcome outcome;

	free_last(NULL);
	last_decoder = compile(specs, nspecs);
	assert_non_null(last_decoder);
	record.value = last_record = exact_copy(bytes, len);
	if (record_key)
		record.key = last_key = exact_copy(record_key, record_key_len);
	outcome = spine_format_json.decode(last_decoder, &record, max_memory, &event, reason, REASON_SIZE);
	assert_int_equal(outcome == SPINE_DECODED, reason[0] == '\0');
	if (outcome == SPINE_DECODED)
	{
		assert_int_equal(event.operation, SPINE_OPERATION_UPSERT);
		assert_ptr_equal(event.record, &record);
		assert_non_null(event.fields);
		if (nspecs > 0)
			memcpy(fields, event.fields, nspecs * sizeof(SpineField));
	}
	if (len <= MAX_ORACLE_LEN && !json_c_agrees(&record, specs, nspecs, outcome, fields, reason))
		fail_msg("%.*s: json-c does not agree (%s)", (int) len, bytes, reason);
	return outcome;
}

static inline bool
decode_exact(const char *bytes, size_t len, const SpineFieldSpec *specs, int nspecs,
			 SpineField *fields, char *reason)
{
	SpineDecodeOutcome outcome = decode_limited(bytes, len, specs, nspecs, SIZE_MAX,
												fields, reason);

	assert_true(outcome != SPINE_BEYOND_LIMIT);
	return outcome == SPINE_DECODED;
}

/* A record that consists of `before`, n times `piece`, and `after`. */
static char *
repeated(const char *before, const char *piece, size_t n, const char *after, size_t *len)
{
	size_t		piece_len = strlen(piece);
	char	   *record;
	char	   *end;

	*len = strlen(before) + n * piece_len + strlen(after);
	record = malloc(*len + 1);
	assert_non_null(record);
	end = stpcpy(record, before);
	for (size_t i = 0; i < n; i++)
		end = mempcpy(end, piece, piece_len);
	strcpy(end, after);
	return record;
}

/* The outcome for such a record, whose a is made into jsonb. */
static inline SpineDecodeOutcome
outcome_of(const char *before, const char *piece, size_t n, const char *after,
		   size_t max_memory, char *reason)
{
	SpineFieldSpec spec = {.path = SPINE_PATH_TO_KEY("a"), .as_json = true, .for_jsonb = true};
	SpineField	field;
	size_t		len;
	char	   *record = repeated(before, piece, n, after, &len);
	SpineDecodeOutcome outcome = decode_limited(record, len, &spec, 1, max_memory, &field, reason);

	free(record);
	return outcome;
}

#endif							/* SPINE_DECODING_H */

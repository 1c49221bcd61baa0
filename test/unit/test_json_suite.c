/*
 * test_json_suite.c
 *		JSON as the public JSONTestSuite has it: what must be accepted is accepted (y_...),
 *		what must be refused is refused (n_...), and the rest (i_...) harms nobody.
 *
 * What would break this: any deviation from RFC 8259, as a record, inside a record, or as a
 * record's key; a value that json-c reads differently.
 *
 * The files of json_test_suite are Nicolas Seriot's, under the licence that is among them.
 * Two of his files are made here, as they consist of one piece again and again.
 */
#include "decoding.h"

#include <dirent.h>

#include "event/path.h"

#define SUITE		"test/unit/json_test_suite"
#define MAX_FILE	(512 * 1024)

/* Must be accepted, but PostgreSQL has no such key. */
static const char *const nul_key = "y_object_escaped_null_in_key.json";

static const SpinePathStep step_v = {.member = "v"};
static const SpineFieldSpec specs[] = {
	{.path = {.root = SPINE_ROOT_VALUE}, .as_json = true, .for_jsonb = true},
	{.path = {.root = SPINE_ROOT_VALUE}},
	{.path = {.root = SPINE_ROOT_VALUE, .nsteps = 1, .steps = &step_v}, .as_json = true},
	{.path = {.root = SPINE_ROOT_VALUE, .nsteps = 1, .steps = &step_v}},
	{.path = {.root = SPINE_ROOT_KEY}, .as_json = true},
	{.path = {.root = SPINE_ROOT_KEY}}
};

enum
{
	NSPECS = sizeof(specs) / sizeof(specs[0])
};

/* Is the field all of the text, except for white space around it? */
static void
assert_all(const char *name, const SpineField *field, const char *text, size_t len)
{
	static const char blanks[] = " \t\r\n";

	while (len > 0 && strchr(blanks, text[0]))
		text++, len--;
	while (len > 0 && strchr(blanks, text[len - 1]))
		len--;
	if (field->kind == SPINE_FIELD_NULL ? len != 4 || memcmp(text, "null", 4) != 0 :
		field->kind != SPINE_FIELD_JSON || field->len != len || memcmp(field->text, text, len) != 0)
		fail_msg("%s: %.*s", name, (int) field->len, field->text);
}

static SpineDecodeOutcome
outcome_as_key(const char *bytes, size_t len, SpineField *fields, char *reason)
{
	SpineDecodeOutcome outcome;

	record_key = bytes;
	record_key_len = len;
	outcome = decode_limited(BYTES("{}"), specs, NSPECS, SIZE_MAX, fields, reason);
	record_key = NULL;
	record_key_len = 0;
	return outcome;
}

/* A key that is not JSON is text, if it is UTF-8; then its JSON begins with a quote. */
static void
check_key(const char *name, const char *bytes, size_t len, bool is_json)
{
	SpineField	fields[NSPECS];
	char		reason[REASON_SIZE];

	if (outcome_as_key(bytes, len, fields, reason) != SPINE_DECODED)
		assert_false(is_json);
	else if (is_json)
		assert_all(name, &fields[4], bytes, len);
	else if (fields[4].kind != SPINE_FIELD_JSON || fields[4].text[0] != '"' ||
			 fields[5].kind != SPINE_FIELD_TEXT || fields[5].len != len)
		fail_msg("%s is a JSON key", name);
}

/* Returns whether it was accepted. */
static bool
check_text(const char *name, const char *bytes, size_t len)
{
	static char wrapped[MAX_FILE + 8];
	SpineField	fields[NSPECS];
	char		reason[REASON_SIZE];
	char		wrapped_reason[REASON_SIZE];
	SpineDecodeOutcome outcome = decode_limited(bytes, len, specs, NSPECS, SIZE_MAX, fields, reason);
	size_t		wrapped_len = 0;

	if (outcome == SPINE_DECODED)
		assert_all(name, &fields[0], bytes, len);
	if ((name[0] == 'y' && strcmp(name, nul_key) != 0) ? outcome != SPINE_DECODED :
		name[0] != 'i' && outcome != SPINE_MALFORMED && outcome != SPINE_BEYOND_LIMIT)
		fail_msg("%s: %s", name, outcome == SPINE_DECODED ? "accepted" : reason);

	memcpy(wrapped, "{\"v\":", 5);
	memcpy(wrapped + 5, bytes, len);
	wrapped_len = len + 6;
	wrapped[wrapped_len - 1] = '}';
	if (decode_limited(wrapped, wrapped_len, specs, NSPECS, SIZE_MAX, fields, wrapped_reason) == SPINE_DECODED)
		assert_all(name, &fields[2], bytes, len);
	if ((wrapped_reason[0] == '\0') != (outcome == SPINE_DECODED))
		fail_msg("%s as a value: %s", name, wrapped_reason);

	if (outcome != SPINE_BEYOND_LIMIT)
		check_key(name, bytes, len, outcome == SPINE_DECODED);
	return outcome == SPINE_DECODED;
}

static void
test_suite(void **state)
{
	static char bytes[MAX_FILE];
	int			ntexts = 0;
	int			naccepted = 0;
	DIR		   *directory = opendir(SUITE);
	struct dirent *entry;

	(void) state;
	assert_non_null(directory);
	while ((entry = readdir(directory)) != NULL)
	{
		char		path[500];
		FILE	   *file;
		size_t		len;

		if (strstr(entry->d_name, ".json") == NULL)
			continue;
		snprintf(path, sizeof(path), SUITE "/%s", entry->d_name);
		file = fopen(path, "r");
		assert_non_null(file);
		len = fread(bytes, 1, sizeof(bytes), file);
		fclose(file);
		ntexts++;
		naccepted += check_text(entry->d_name, bytes, len);
	}
	closedir(directory);
	print_message("%d of %d texts accepted\n", naccepted, ntexts);
	assert_int_equal(ntexts, 316);
}

static void
test_huge(void **state)
{
	size_t		len;
	char	   *bytes = repeated("", "[", 100000, "", &len);

	(void) state;
	check_text("n_structure_100000_opening_arrays.json", bytes, len);
	free(bytes);
	bytes = repeated("", "[{\"\":", 50000, "\n", &len);
	check_text("n_structure_open_array_object.json", bytes, len);
	free(bytes);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suite),
		cmocka_unit_test(test_huge),
	};

	return cmocka_run_group_tests(tests, NULL, free_last);
}

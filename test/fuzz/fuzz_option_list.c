/*
 * fuzz_option_list.c
 *		Whatever the setting, reading it ends, and its answer keeps its contract.
 *
 * Aborts, so that libFuzzer keeps the input, when an option comes out that is not
 * allowed, or a value that is empty; when a list that is refused has no reason, or one
 * that is not has; or when the options, quoted and put together again, are read as
 * others.  The sanitizers see to the reads and writes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/option_list.h"

#define CHECK(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* Appends the option with its value in quotes; returns the new end. */
static char *
append_option(char *end, const SpineOptionList *list)
{
	end += sprintf(end, " %s='", list->key);
	for (const char *c = list->value; *c; c++)
	{
		if (*c == '\'')
			*end++ = '\'';
		*end++ = *c;
	}
	*end++ = '\'';
	*end = '\0';
	return end;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *copy = malloc(size + 1);
	char	   *first = malloc(4 * size + 1);
	char	   *second = malloc(4 * size + 1);
	char	   *end = first;
	SpineOptionList list;
	const char *reason;

	CHECK(copy != NULL && first != NULL && second != NULL);
	memcpy(copy, data, size);
	copy[size] = '\0';
	*first = *second = '\0';

	spine_option_list_begin(&list, copy);
	while (spine_option_list_next(&list))
	{
		CHECK(spine_option_list_allows(list.key, &reason) && reason == NULL);
		CHECK(list.value[0] != '\0');
		CHECK(list.reason[0] == '\0');
		end = append_option(end, &list);
	}
	CHECK(strlen(list.reason) < sizeof(list.reason) - 1);
	if (list.reason[0] == '\0')
		CHECK(list.rest[strspn(list.rest, " \t\n\v\f\r,")] == '\0');

	free(copy);
	copy = strdup(first);
	CHECK(copy != NULL);
	end = second;
	spine_option_list_begin(&list, copy);
	while (spine_option_list_next(&list))
		end = append_option(end, &list);
	CHECK(list.reason[0] == '\0');
	CHECK(strcmp(first, second) == 0);

	free(copy);
	free(first);
	free(second);
	return 0;
}

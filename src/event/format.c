/*
 * format.c
 *		The formats there are.
 */
#include "event/format.h"

#include <string.h>

static const SpineFormat *const formats[] = {
	&spine_format_json,
};

const SpineFormat *
spine_format_find(const char *name)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
	{
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	}
	return NULL;
}

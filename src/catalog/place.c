/*
 * place.c
 *		Reads the places that the mapping of a sink names.
 *
 * What begins with "$" is a path, or a part of the record that has a name; anything else is
 * a key of the record's value, as it is spelled.
 */
#include "catalog/place.h"

#include <ctype.h>

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

static const struct
{
	const char *name;
	SpinePlaceKind kind;
}			names[] = {
	{"$topic", SPINE_PLACE_TOPIC},
	{"$partition", SPINE_PLACE_PARTITION},
	{"$offset", SPINE_PLACE_OFFSET},
	{"$timestamp", SPINE_PLACE_TIMESTAMP},
	{"$key", SPINE_PLACE_KEY},
	{"$value", SPINE_PLACE_VALUE},
	{"$headers", SPINE_PLACE_HEADERS},
};

/* What an error is about. */
typedef struct Source
{
	const char *text;
	const char *column;
} Source;

static void
name_source(void *arg)
{
	const Source *source = arg;

	errcontext("source \"%s\" of column \"%s\"", source->text, source->column);
}

pg_noreturn static void
refuse_name(const Source *source)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown source \"%s\" of column \"%s\"", source->text, source->column),
			 errdetail("A record has \"$topic\", \"$partition\", \"$offset\", \"$timestamp\", \"$key\", \"$value\" and \"$headers\"."),
			 errhint("A path begins with \"$.\" or \"$[\", a path into the record's key with \"$key.\" or \"$key[\", and the source \"$headers.x\" is the header \"x\". A key that begins with \"$\" is written as %s.",
					 spine_place_of_key(source->text))));
}

/* False: the decoder cannot follow the path. */
static bool
parse_simple_path(const char *text, SpinePath *path)
{
	char	   *utf8 = pg_server_to_any(text, strlen(text), PG_UTF8);
	size_t		len = strlen(utf8);
	SpinePathStep *steps = palloc0((len / 2 + 1) * sizeof(SpinePathStep));

	path->steps = steps;
	path->nsteps = spine_path_parse(utf8, steps, palloc(len + 1));
	return path->nsteps >= 0;
}

/* In the way in which the type spells a path, only a variable has a quote behind "$". */
static bool
has_variable(const char *spelled)
{
	for (const char *at = spelled; *at != '\0'; at++)
	{
		if (at[0] == '$' && at[1] == '"')
			return true;
		if (*at != '"')
			continue;
		while (*++at != '"')
		{
			if (*at == '\\')
				at++;
		}
	}
	return false;
}

/* PostgreSQL decides what a path is, but notices a variable only when it meets it. */
static void
check_path(const Source *source, const char *text)
{
	ErrorContextCallback callback = {error_context_stack, name_source, (void *) source};
	Datum		path;

	error_context_stack = &callback;
	path = DirectFunctionCall1(jsonpath_in, CStringGetDatum(text));
	error_context_stack = callback.previous;
	if (has_variable(DatumGetCString(DirectFunctionCall1(jsonpath_out, path))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the path of source \"%s\" of column \"%s\" has a variable", source->text, source->column),
				 errhint("Write its value into the path.")));
}

/* A path, which begins with "$". */
static void
parse_path(const Source *source, const char *text, SpineRoot root, SpinePlace *place)
{
	check_path(source, text);
	place->path.root = root;
	place->kind = SPINE_PLACE_PATH;
	if (!parse_simple_path(text, &place->path))
	{
		place->kind = SPINE_PLACE_JSONPATH;
		place->jsonpath = pstrdup(text);
		place->path.nsteps = 0;
	}
}

static void
parse_key(const char *key, SpinePlace *place)
{
	SpinePathStep *step = palloc0(sizeof(SpinePathStep));

	step->member = pstrdup(pg_server_to_any(key, strlen(key), PG_UTF8));
	place->kind = SPINE_PLACE_PATH;
	place->path = (SpinePath) {.root = SPINE_ROOT_VALUE, .nsteps = 1, .steps = step};
}

/* A name and what follows it. */
static void
parse_name(const Source *source, size_t len, SpinePlace *place)
{
	const char *rest = source->text + len;
	int			i = 0;

	while (strncmp(names[i].name, source->text, len) != 0 || names[i].name[len] != '\0')
	{
		if (++i == lengthof(names))
			refuse_name(source);
	}
	place->kind = names[i].kind;
	if (*rest == '\0')
		return;

	if (place->kind == SPINE_PLACE_KEY)
		parse_path(source, psprintf("$%s", rest), SPINE_ROOT_KEY, place);
	else if (place->kind == SPINE_PLACE_HEADERS && rest[0] == '.' && rest[1] != '\0')
	{
		place->kind = SPINE_PLACE_HEADER;
		place->header = pstrdup(pg_server_to_any(rest + 1, strlen(rest + 1), PG_UTF8));
	}
	else
		refuse_name(source);
}

/* How much of the text, which begins with "$", is a name. */
static size_t
name_length(const char *text)
{
	size_t		len = 1;

	while (text[len] == '_' || isalnum((unsigned char) text[len]) || IS_HIGHBIT_SET(text[len]))
		len++;
	return len;
}

void
spine_place_parse(const char *text, const char *column, SpinePlace *place)
{
	const Source source = {text, column};

	memset(place, 0, sizeof(*place));
	if (text[0] != '$')
		parse_key(text, place);
	else if (name_length(text) > 1 || text[1] == '"')
		parse_name(&source, name_length(text), place);
	else
		parse_path(&source, text, SPINE_ROOT_VALUE, place);
}

char *
spine_place_of_key(const char *key)
{
	StringInfoData path;

	if (key[0] != '$')
		return pstrdup(key);
	initStringInfo(&path);
	appendStringInfoString(&path, "$.");
	escape_json(&path, key);
	return path.data;
}

/*
 * topics.c
 *		Understands the topic of a pipeline.
 */
#include "catalog/topics.h"

#include "catalog/pg_collation.h"
#include "lib/qunique.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(spine_topic_matches);

static bool
is_expression(const char *topics)
{
	return topics[0] == '^';
}

bool
spine_topics_is_one(const char *topics)
{
	return !is_expression(topics) && strchr(topics, ',') == NULL;
}

char **
spine_topics_names(const char *topics, int *n)
{
	char	   *copy;
	char	   *rest;
	char	  **names;
	int			nnames = 0;

	if (is_expression(topics))
		return NULL;

	/* no name has a comma or a space */
	copy = pstrdup(topics);
	names = palloc((strlen(topics) / 2 + 1) * sizeof(char *));
	for (char *name = strtok_r(copy, ", ", &rest); name; name = strtok_r(NULL, ", ", &rest))
		names[nnames++] = name;
	qsort(names, nnames, sizeof(char *), pg_qsort_strcmp);
	*n = qunique(names, nnames, sizeof(char *), pg_qsort_strcmp);
	return names;
}

static bool
expression_matches(const char *expression, const char *name)
{
	if (strncmp(name, "__", 2) == 0 && strncmp(expression, "^__", 3) != 0)
		return false;
	return DatumGetBool(DirectFunctionCall2Coll(textregexeq, C_COLLATION_OID, CStringGetTextDatum(name),
												CStringGetTextDatum(expression)));
}

bool
spine_topics_match(const char *topics, const char *name)
{
	char	  **names;
	int			n;

	if (is_expression(topics))
		return expression_matches(topics, name);
	names = spine_topics_names(topics, &n);
	return bsearch(&name, names, n, sizeof(char *), pg_qsort_strcmp) != NULL;
}

Datum
spine_topic_matches(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(spine_topics_match(text_to_cstring(PG_GETARG_TEXT_PP(1)),
									  text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

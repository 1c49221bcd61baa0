/*
 * mapping.c
 *		Reads mappings: for each column, where its values come from and how they are read.
 *
 * A source is a place (place.h), as a string, or an object that says more.
 */
#include "catalog/mapping.h"

#include "catalog/place.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(spine_check_mapping);

static const char *const readings[] = {
	[SPINE_READ_EPOCH_S] = "epoch_s",
	[SPINE_READ_EPOCH_MS] = "epoch_ms",
	[SPINE_READ_EPOCH_US] = "epoch_us",
	[SPINE_READ_DAYS] = "days",
	[SPINE_READ_BASE64] = "base64",
	[SPINE_READ_HEX] = "hex"
};

const char *
spine_reading_name(SpineReading reading)
{
	return readings[reading];
}

static char *
copy_string(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* A scalar as the text of it. */
static char *
scalar_text(const JsonbValue *value, const char *column)
{
	switch (value->type)
	{
		case jbvString:
			return copy_string(value);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"default\" of column \"%s\" is neither a string nor a number nor a boolean", column),
					 errhint("A default is the text of a value of the column's type, such as \"{}\" for an array.")));
	}
}

static char *
string_of(const JsonbValue *value, const char *member, const char *column)
{
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of column \"%s\" is not a string", member, column)));
	return copy_string(value);
}

static SpineReading
find_reading(const char *name, const char *column)
{
	for (int i = SPINE_READ_PLAINLY + 1; i < (int) lengthof(readings); i++)
	{
		if (strcmp(readings[i], name) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown reading \"%s\" of column \"%s\"", name, column),
			 errhint("\"as\" is \"epoch_s\", \"epoch_ms\", \"epoch_us\", \"days\", \"base64\" or \"hex\".")));
}

static void
read_member(SpineMapping *mapping, const char *member, const JsonbValue *value)
{
	if (strcmp(member, "path") == 0)
		mapping->place = string_of(value, member, mapping->column);
	else if (strcmp(member, "sql") == 0)
		mapping->sql = string_of(value, member, mapping->column);
	else if (strcmp(member, "default") == 0)
		mapping->default_text = scalar_text(value, mapping->column);
	else if (strcmp(member, "as") == 0)
		mapping->reading = find_reading(string_of(value, member, mapping->column), mapping->column);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown key \"%s\" in the source of column \"%s\"", member, mapping->column),
				 errhint("A source that is an object has \"path\", and perhaps \"default\" and \"as\"; or only \"sql\".")));
}

static void
read_object(SpineMapping *mapping, JsonbContainer *object)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbValue	key;
	JsonbValue	value;

	(void) JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		read_member(mapping, copy_string(&key), &value);
	}
	if (mapping->sql && (mapping->place || mapping->default_text || mapping->reading))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the source of column \"%s\" has something beside \"sql\"", mapping->column),
				 errhint("Write all of it in SQL, or use \"path\" instead.")));
}

/* Are the values of the place texts or JSON, which a reading can read? */
static bool
can_be_read(SpinePlaceKind kind)
{
	return kind == SPINE_PLACE_PATH || kind == SPINE_PLACE_JSONPATH ||
		kind == SPINE_PLACE_KEY || kind == SPINE_PLACE_HEADER;
}

static void
check_place(const SpineMapping *mapping)
{
	SpinePlace	place;

	spine_place_parse(mapping->place, mapping->column, &place);
	if (mapping->reading && !can_be_read(place.kind))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source \"%s\" of column \"%s\" cannot be read as \"%s\"",
						mapping->place, mapping->column, spine_reading_name(mapping->reading)),
				 errhint("Leave \"as\" out.")));
}

static void
read_source(SpineMapping *mapping, const JsonbValue *source)
{
	if (source->type == jbvString)
		mapping->place = copy_string(source);
	else if (source->type == jbvBinary && JsonContainerIsObject(source->val.binary.data))
		read_object(mapping, source->val.binary.data);
	else if (source->type != jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the source of column \"%s\" is neither a string nor an object nor null", mapping->column),
				 errhint("A source is a key or a path of the record, such as \"price\" or \"$.order.price\"; null stands for the key of the column's name.")));

	if (strcmp(mapping->column, SPINE_ANY_COLUMN) == 0 &&
		(source->type != jbvString || strcmp(mapping->place, "$value") != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the source of \"*\" is not \"$value\""),
				 errhint("\"*\" stands for the column of type json or jsonb that takes all of the record's value.")));
	if (mapping->sql)
		return;
	if (mapping->place == NULL)
		mapping->place = spine_place_of_key(mapping->column);
	check_place(mapping);
}

static int
compare_columns(const void *a, const void *b)
{
	return strcmp(((const SpineMapping *) a)->column, ((const SpineMapping *) b)->column);
}

SpineMapping *
spine_mapping_read(Jsonb *columns, int *n)
{
	SpineMapping *mappings;
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	source;

	/* a constraint of spine_sinks sees to that, and says so */
	*n = 0;
	if (!JB_ROOT_IS_OBJECT(columns))
		return NULL;

	mappings = palloc0(Max(JB_ROOT_COUNT(columns), 1) * sizeof(SpineMapping));
	iterator = JsonbIteratorInit(&columns->root);
	(void) JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		SpineMapping *mapping = &mappings[(*n)++];

		(void) JsonbIteratorNext(&iterator, &source, true);
		mapping->column = copy_string(&key);
		read_source(mapping, &source);
	}
	qsort(mappings, *n, sizeof(SpineMapping), compare_columns);
	return mappings;
}

/* spine_check_mapping(columns jsonb) */
Datum
spine_check_mapping(PG_FUNCTION_ARGS)
{
	int			n;

	(void) spine_mapping_read(PG_GETARG_JSONB_P(0), &n);
	PG_RETURN_VOID();
}

/*
 * column.h
 *		A column of a sink: its type, and the source of its values.
 */
#ifndef SPINE_COLUMN_H
#define SPINE_COLUMN_H

#include "apply/populate.h"
#include "apply/table.h"
#include "catalog/pipeline.h"
#include "compat.h"
#include "event/format.h"
#include "fmgr.h"

/* Where a column's values come from: see record_field.c. */
typedef enum SpineSource
{
	SPINE_FROM_FIELD,
	SPINE_FROM_JSONPATH,		/* what a jsonpath finds in a field */
	SPINE_FROM_TOPIC,
	SPINE_FROM_PARTITION,
	SPINE_FROM_OFFSET,
	SPINE_FROM_TIMESTAMP,
	SPINE_FROM_KEY,				/* its bytes */
	SPINE_FROM_VALUE,			/* its bytes */
	SPINE_FROM_HEADER,
	SPINE_FROM_HEADERS,
	SPINE_FROM_EXPRESSION
} SpineSource;

/*
 * How a value is made: by a fast path for fields of the usual kinds and spellings, or
 * else by the type's input function.  SPINE_BIND_INPUT has no fast path.
 */
typedef enum SpineBinding
{
	SPINE_BIND_TEXT,
	SPINE_BIND_INT8,
	SPINE_BIND_INT4,
	SPINE_BIND_UUID,
	SPINE_BIND_TIMESTAMPTZ,
	SPINE_BIND_BOOL,
	SPINE_BIND_FLOAT8,
	SPINE_BIND_BYTEA,
	SPINE_BIND_JSON,
	SPINE_BIND_JSONB,
	SPINE_BIND_NESTED,			/* an array or a composite type */
	SPINE_BIND_INPUT
} SpineBinding;

/* How PostgreSQL itself makes a value of a column's type. */
typedef struct SpineInput
{
	FmgrInfo	function;		/* the input function of the base type */
	Oid			param;
	Oid			domain;			/* whose checks the value must pass, or InvalidOid */
	void	   *domain_checks;	/* kept by PostgreSQL */
	MemoryContext context;		/* for what these keep */
} SpineInput;

/*
 * What a sink asks for in the record's value.  A record that has nothing of it is refused,
 * and does not become a row of nulls.
 */
typedef struct SpineAsked
{
	const char *table;
	int			n;
	int		   *fields;			/* indexes in the plan's fields */
} SpineAsked;

typedef struct SpineColumn
{
	char	   *name;
	AttrNumber	number;			/* in the table */
	SpineSource source;
	int			field;			/* of a field or jsonpath: index in the plan's fields */
	const SpineAsked *asked;	/* of a field: what its sink asks for; NULL: that does not matter */
	Datum		jsonpath;
	char	   *header;			/* its name, in UTF-8 */
	SpineReading reading;
	int			expression;		/* of SPINE_FROM_EXPRESSION: index in the sink's projection */
	SpineBinding binding;
	SpineInput *input;
	SpinePopulate *populate;	/* of SPINE_BIND_NESTED */
	size_t		max_record_memory;	/* to make jsonb of what is not a field */
	bool		has_given_default;	/* by the mapping: for what is absent or null */
	Datum		given_default;
	const char *needed_as;		/* "key", "version": never null; NULL: may be null */
	Oid			type;			/* as the table has it */
	Oid			base_type;		/* of the values, which are passed to SQL */
	int32		typmod;
	int16		len;
	char		align;
	bool		byval;
	Oid			collation;
	char	   *default_expr;	/* as SQL, of the column's type; NULL: it has none */
	bool		is_identity;	/* GENERATED ALWAYS: it may be inserted, but not updated */
	bool		equal_if_same_bytes;	/* as a key */
	bool		can_be_left_out;	/* of a row that ON CONFLICT proposes: see conflict.h */
} SpineColumn;

/* The fields that the columns of a plan take from each record. */
typedef struct SpineFieldList
{
	int			n;
	SpineFieldSpec *specs;		/* NULL: none yet */
} SpineFieldList;

/*
 * The index of a field in the list; it is added when it is new.  Grows in the current memory
 * context; keeps the steps.
 */
extern int	spine_fields_add(SpineFieldList *fields, const SpineFieldSpec *spec);

/*
 * Makes the column of a sink that fills `from` as the mapping says; adds the fields that it
 * needs to `fields`.  max_record_memory: the most bytes that making jsonb of one record may
 * take.  Raises an error (structural) when the mapping does not suit the type.
 *
 * In the current memory context, which is to live as long as the column.  In a transaction,
 * as the role that the sink runs as, with its settings (role.h).
 */
extern void spine_column_make(SpineColumn *column, const SpineTableColumn *from,
							  const SpineMapping *mapping, SpineFieldList *fields,
							  size_t max_record_memory);

/* When all columns of a sink are made: finds out what the sink asks for. */
extern void spine_columns_ask(SpineColumn *columns, int n, const char *table,
							  const SpineFieldList *fields);

#endif							/* SPINE_COLUMN_H */

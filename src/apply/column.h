/*
 * column.h
 *		A column of a sink: its type, and the source of its values.
 */
#ifndef SPINE_COLUMN_H
#define SPINE_COLUMN_H

#include "apply/table.h"
#include "compat.h"
#include "event/format.h"
#include "fmgr.h"

/* Where a column's values come from. */
typedef enum SpineSource
{
	SPINE_FROM_FIELD,
	SPINE_FROM_PARTITION,
	SPINE_FROM_OFFSET,
	SPINE_FROM_TIMESTAMP,
	SPINE_FROM_KEY
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

typedef struct SpineColumn
{
	char	   *name;
	SpineSource source;
	int			field;			/* of SPINE_FROM_FIELD: index in the plan's fields */
	SpineBinding binding;
	SpineInput *input;
	size_t		max_jsonb_memory;	/* to make one value; 0: the decoder checks that */
	const char *needed_as;		/* "key", "version": never null; NULL: may be null */
	Oid			base_type;		/* of the values, which are passed to SQL */
	int32		typmod;
	int16		len;
	char		align;
	bool		byval;
	Oid			collation;
	char	   *default_expr;	/* as SQL, of the column's type; NULL: it has none */
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
 * Makes the column of a sink that fills `from` from this source ("$partition" and the
 * like, or a field, which is added to `fields`).  max_record_memory: the most bytes that
 * making jsonb of one record may take.  In the current memory context, which is to live
 * as long as the column.  In a transaction, with an empty search_path.
 */
extern void spine_column_make(SpineColumn *column, const SpineTableColumn *from,
							  const char *source, SpineFieldList *fields,
							  size_t max_record_memory);

#endif							/* SPINE_COLUMN_H */

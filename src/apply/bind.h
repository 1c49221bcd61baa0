/*
 * bind.h
 *		Fields to Datums: what PostgreSQL will make of a decoded event.
 */
#ifndef SPINE_BIND_H
#define SPINE_BIND_H

#include "compat.h"
#include "fmgr.h"
#include "event/event.h"

/* Where a column's value comes from. */
typedef enum SpineSource
{
	SPINE_FROM_FIELD,
	SPINE_FROM_PARTITION,
	SPINE_FROM_OFFSET,
	SPINE_FROM_TIMESTAMP,
	SPINE_FROM_KEY
} SpineSource;

/*
 * How a value is made.  All have a fast path for what is usual, and fall back to
 * the type's input function for what is not; SPINE_BIND_INPUT is that function and
 * nothing else.
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
	SPINE_BIND_NUMERIC,
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

/* One column of a target table. */
typedef struct SpineColumn
{
	char	   *name;
	SpineSource source;
	int			field;			/* index in the decode plan, for SPINE_FROM_FIELD */
	SpineBinding binding;
	SpineInput *input;
	Oid			element_type;	/* of the value that is passed to SQL: the base type */
	int32		element_typmod;
	int16		element_len;
	bool		element_byval;
	char	   *collation;		/* as SQL, or NULL: the default */
	char	   *default_expr;	/* as SQL, of the column's type; NULL: it has none */
	bool		equal_if_same_bytes;	/* can be a key that C compares */
} SpineColumn;

/* The binding for a column of this type (a domain counts as its base type). */
extern SpineBinding spine_choose_binding(Oid base_type, int32 typmod);

/* The input of a column's type, in the given context. */
extern SpineInput *spine_make_input(Oid type, Oid base_type, MemoryContext context);

/* Does the binding want the field as JSON text? */
extern bool spine_binding_wants_json(SpineBinding binding);

/*
 * The value of a column, in the current memory context.  *missing: the record
 * does not have it at all (then *isnull is true as well).  Raises the input
 * function's error when the value does not fit the type.  Checks of a domain
 * may run a user's functions: call it as the role that the target runs as.
 */
extern Datum spine_bind_value(const SpineColumn *column, const SpineEvent *event,
							  bool *isnull, bool *missing);

#endif							/* SPINE_BIND_H */

/*
 * populate.h
 *		JSON into arrays and composite types, by PostgreSQL's own json_populate_record.
 */
#ifndef SPINE_POPULATE_H
#define SPINE_POPULATE_H

#include "compat.h"

typedef struct SpinePopulate SpinePopulate;

/* Does JSON get into a column of this base type that way? */
extern bool spine_populate_is_for(Oid base_type);

/*
 * Prepares that for a column, in the current memory context, which is to live as long as
 * the result.  max_memory: the most bytes that making one value may take.
 */
extern SpinePopulate *spine_populate_make(const char *column, Oid base_type, int32 typmod,
										  size_t max_memory);

/*
 * The value, in the current memory context.  json: one JSON value, not null, in the
 * server's encoding.  Raises an error when it does not fit.
 */
extern Datum spine_populate_value(SpinePopulate *populate, const char *json, bool *isnull);

#endif							/* SPINE_POPULATE_H */

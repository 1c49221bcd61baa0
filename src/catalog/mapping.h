/*
 * mapping.h
 *		The mapping of a sink: the column "columns" of spine_sinks as structs.
 */
#ifndef SPINE_MAPPING_H
#define SPINE_MAPPING_H

#include "catalog/pipeline.h"
#include "utils/jsonb.h"

/* The column of a mapping that stands for one that the table names. */
#define SPINE_ANY_COLUMN	"*"

/*
 * Reads a mapping, in the order of the columns' names, in the current memory context.
 * Raises an error that names the column when it is not well-formed: its sources are
 * checked as well, except for what depends on a table, and for SQL.  In a transaction.
 */
extern SpineMapping *spine_mapping_read(Jsonb *columns, int *n);

/* A reading as a mapping spells it; not of SPINE_READ_PLAINLY. */
extern const char *spine_reading_name(SpineReading reading);

#endif							/* SPINE_MAPPING_H */

/*
 * record_json.h
 *		Key, value and headers of a record as jsonb, for people to look at.
 */
#ifndef SPINE_RECORD_JSON_H
#define SPINE_RECORD_JSON_H

#include "compat.h"
#include "event/record.h"

typedef enum SpineRecordPart
{
	SPINE_RECORD_KEY,
	SPINE_RECORD_VALUE,
	SPINE_RECORD_HEADERS,
	SPINE_RECORD_PARTS
} SpineRecordPart;

typedef struct SpineRecordJson
{
	Datum		values[SPINE_RECORD_PARTS];
	bool		nulls[SPINE_RECORD_PARTS];	/* there is none, or it cannot be shown */
	char	   *error;			/* what cannot be shown, and why; NULL: nothing */
} SpineRecordJson;

/*
 * Makes them in the current memory context, in a transaction.  They are what an expression
 * over a record sees: a key that is not JSON is a JSON string, a header is always one, and a
 * value has to be JSON.  max_memory: what jsonb of one of them may take while it is made.
 */
extern void spine_record_json_make(const SpineRecord *record, size_t max_memory, SpineRecordJson *json);

#endif							/* SPINE_RECORD_JSON_H */

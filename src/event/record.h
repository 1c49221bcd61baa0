/*
 * record.h
 *		One message of the log, as its source hands it on.
 *
 * Includes neither PostgreSQL nor librdkafka, so that everything in this folder can be
 * built, tested and fuzzed by itself.
 */
#ifndef SPINE_RECORD_H
#define SPINE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SpineRecord SpineRecord;

/* One header of a record. */
typedef struct SpineHeader
{
	const char *name;			/* NUL-terminated */
	const void *value;			/* NULL: the header has no value */
	size_t		value_len;
} SpineHeader;

/* What only the source of a record can do. */
typedef struct SpineRecordSource
{
	/* Gets header number i, counted from 0; false: there is none. */
	bool		(*header)(const SpineRecord *record, size_t i, SpineHeader *header);

	/* Frees the key, value and headers. */
	void		(*release)(SpineRecord *record);
} SpineRecordSource;

/*
 * One message of the log.  The pointers belong to the source, and are valid until the
 * record is released.
 */
struct SpineRecord
{
	const char *topic;
	int32_t		partition;
	int64_t		offset;
	int64_t		timestamp_ms;	/* milliseconds since 1970-01-01 UTC, -1: none */
	const void *key;			/* NULL: the record has no key */
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	size_t		size;			/* bytes of everything, headers included, about */
	const SpineRecordSource *source;
	void	   *object;			/* for the source's own use */
};

#endif							/* SPINE_RECORD_H */

/*
 * record_time.h
 *		A record's timestamp as PostgreSQL has it.
 */
#ifndef SPINE_RECORD_TIME_H
#define SPINE_RECORD_TIME_H

#include "compat.h"

#include "common/int.h"
#include "datatype/timestamp.h"
#include "event/record.h"

/*
 * False when the record has none, or one that a timestamptz cannot hold: the
 * field is the producer's, and may be any number.
 */
static inline bool
spine_record_time(const SpineRecord *record, TimestampTz *time)
{
	const int64 epoch = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64		result;

	if (record->timestamp_ms < 0 ||
		pg_mul_s64_overflow(record->timestamp_ms, 1000, &result) ||
		pg_sub_s64_overflow(result, epoch, &result) ||
		!IS_VALID_TIMESTAMP(result))
		return false;
	*time = result;
	return true;
}

#endif							/* SPINE_RECORD_TIME_H */

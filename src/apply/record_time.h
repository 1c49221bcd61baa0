/*
 * record_time.h
 *		Timestamps of records as PostgreSQL has them.
 */
#ifndef SPINE_RECORD_TIME_H
#define SPINE_RECORD_TIME_H

#include "compat.h"

#include "common/int.h"
#include "datatype/timestamp.h"
#include "event/record.h"

/* False: a timestamptz cannot hold it. */
static inline bool
spine_unix_time(int64 unix_us, TimestampTz *time)
{
	const int64 epoch = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

	return !pg_sub_s64_overflow(unix_us, epoch, time) && IS_VALID_TIMESTAMP(*time);
}

/*
 * False: the record has no timestamp, or one that a timestamptz cannot hold.  The field is
 * the producer's, and may be any number.
 */
static inline bool
spine_record_time(const SpineRecord *record, TimestampTz *time)
{
	int64		unix_us;

	return record->timestamp_ms >= 0 &&
		!pg_mul_s64_overflow(record->timestamp_ms, 1000, &unix_us) &&
		spine_unix_time(unix_us, time);
}

#endif							/* SPINE_RECORD_TIME_H */

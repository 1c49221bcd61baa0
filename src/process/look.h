/*
 * look.h
 *		Where a look at a topic begins: the argument `at` of spine_peek and spine_preview.
 */
#ifndef SPINE_LOOK_H
#define SPINE_LOOK_H

#include "kafka/reader.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

/* The most records that are looked at at once. */
#define SPINE_LOOK_MAX_RECORDS	10000

typedef enum SpineLookKind
{
	SPINE_LOOK_EARLIEST,		/* the first records of the log */
	SPINE_LOOK_LATEST,			/* the last ones */
	SPINE_LOOK_TIME,			/* the first ones that are not older than a time */
	SPINE_LOOK_OFFSET,			/* those from an offset of each partition on */
	SPINE_LOOK_OFFSETS,			/* those from offsets of some partitions on */
	SPINE_LOOK_CURRENT			/* those from the positions of a pipeline on */
} SpineLookKind;

typedef struct SpineLook
{
	SpineLookKind kind;
	TimestampTz time;
	int64		offset;
	Jsonb	   *offsets;		/* {"partition": offset, ...} */

	/* of SPINE_LOOK_CURRENT: the caller sets these; a position < 0 is none */
	int			npositions;
	const int64 *positions;		/* of the partitions from 0 on */
	bool		starts_at_latest;	/* where there is no position */
} SpineLook;

/*
 * 'earliest', 'latest', an offset, a JSON object of offsets, 'current', or a time.  Raises
 * an error if it is none of them.
 */
extern SpineLook spine_look_parse(const char *at);

/* Raises an error if no look can have so many records. */
extern void spine_look_check_count(int n);

/* Raises an error if the cluster cannot find records by their time. */
extern void spine_look_check_time(const SpineCluster *cluster);

/* Reads at most max records from there on; as spine_reader_read. */
extern SpineRecord *spine_look_read(const SpineLook *look, SpineReader *reader, size_t max, size_t *n);

/* In Kafka's milliseconds since 1970: the first that is not before the time. */
extern int64 spine_look_time_ms(TimestampTz time);

#endif							/* SPINE_LOOK_H */

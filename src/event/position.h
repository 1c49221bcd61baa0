/*
 * position.h
 *		Topics and their partitions, where a pipeline stands in a partition, and how far
 *		a batch moves it.
 *
 * Beside each position is a mark: the offset of the last record before it, and a
 * checksum of that record.  A log that has another record at that offset is not the log
 * that was read: a topic was deleted and made again under the same name.
 */
#ifndef SPINE_POSITION_H
#define SPINE_POSITION_H

#include <stdint.h>

typedef struct SpineTopic
{
	const char *name;
	int			npartitions;	/* 0: it does not exist */
} SpineTopic;

typedef struct SpineTopicPartition
{
	const char *topic;
	int32_t		partition;
} SpineTopicPartition;

typedef struct SpinePosition
{
	const char *topic;
	int32_t		partition;
	int64_t		next_offset;	/* the first offset that is not applied; -1: never read */
	int64_t		mark_offset;	/* -1: no mark is known */
	int64_t		mark_crc;
} SpinePosition;

/* What one batch does with one position. */
typedef struct SpineMove
{
	const char *topic;			/* the same pointer as that of its records */
	int32_t		partition;
	int64_t		from;			/* the position before the batch */
	int64_t		to;				/* and after it */
	int64_t		mark_offset;	/* the new mark; -1: none */
	int64_t		mark_crc;
	int64_t		nrecords;		/* of the batch, in this partition */
	int64_t		ndead_letters;	/* among them */
} SpineMove;

#endif							/* SPINE_POSITION_H */

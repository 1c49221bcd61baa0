/*
 * reader.h
 *		A session's own look at a topic: ranges of offsets, read once.
 *
 * It has a client and a group of its own.  No position is moved, and the broker's group is
 * told nothing.  Every function may raise an error, and serves interrupts while it waits.
 */
#ifndef SPINE_READER_H
#define SPINE_READER_H

#include "compat.h"
#include "event/record.h"
#include "kafka/client.h"

typedef struct SpineReader SpineReader;

/* Of one partition. */
typedef struct SpineRange
{
	int64		from;			/* the first offset */
	int64		to;				/* one past the last offset */
} SpineRange;

/*
 * Starts a client of a cluster that has an address.  A topic that does not exist is an
 * error, and is not created.  The reader is closed at the latest when the current memory
 * context is reset, as it is after an error.
 */
extern SpineReader *spine_reader_open(const SpineCluster *cluster, const char *topic,
									  const char *group);
extern void spine_reader_close(SpineReader *reader);

/* How many partitions the topic has; they are numbered from 0. */
extern int	spine_reader_count_partitions(const SpineReader *reader);

/* Which cluster it is; lives as long as the reader. */
extern const char *spine_reader_cluster_id(const SpineReader *reader);

/* As spine_client_find_offsets, of all partitions; palloc'ed. */
extern int64 *spine_reader_find_offsets(SpineReader *reader, int64 time_ms);

/* Which of the records to return. */
typedef enum SpineReaderEnd
{
	SPINE_READER_OLDEST,
	SPINE_READER_NEWEST
} SpineReaderEnd;

/*
 * Reads a range of each partition, as far as the log has it, and returns at most max
 * records: the oldest or the newest of them, by their timestamps.  The records of one
 * partition stay in the order of the log, and none between two of them is missing.  The
 * result lies in the current memory context, and needs no release.
 */
extern SpineRecord *spine_reader_read(SpineReader *reader, const SpineRange *ranges, size_t max,
									  SpineReaderEnd end, size_t *n);

#endif							/* SPINE_READER_H */

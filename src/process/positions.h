/*
 * positions.h
 *		Positions in the log: kept in the table spine_offsets, and moved in the
 *		transaction that applies what lies between.
 *
 * Beside each position is a mark: the offset of the last record before it, and a
 * checksum.  A log in which that offset has another record is not the log that
 * was read, but one that was made anew under the same name.
 */
#ifndef SPINE_POSITIONS_H
#define SPINE_POSITIONS_H

#include "compat.h"
#include "datatype/timestamp.h"

/* Every embedded broker's cluster id begins with this; no other's does. */
#define SPINE_EMBEDDED_PREFIX	"embedded-"

/* One assigned partition. */
typedef struct SpinePosition
{
	int32		partition;
	int64		next_offset;	/* committed: the first offset not applied */
	int64		read_to;		/* one past what the current batch covers */
	int64		high_watermark; /* -1: not known */
	int64		mark_offset;	/* of the last record read; -1: none known */
	int64		mark_crc;
	int64		dead_letters;	/* in the current batch */
	int64		records;		/* in the current batch */
	size_t		last_record;	/* of the current batch, counted from 1; 0: none */
	bool		is_checked;		/* by its mark, as far as possible */
	bool		is_read;		/* a record or the end was seen since assignment */
	uint64		connection;		/* that it was checked on; 0: none yet */
	bool		is_suspect;		/* that has changed: take no more unchecked */
	bool		is_stuck;		/* it cannot be read from here: take no more */
	int			stuck_error;	/* librdkafka's; __INCONSISTENT: its mark is not there */
	char	   *stuck_text;		/* and what it said; the consumer's */
	TimestampTz explained_at;	/* what is wrong; 0: not yet */
} SpinePosition;

/* Which rows of spine_offsets. */
typedef struct SpineLog
{
	const char *schema;			/* of the extension, quoted */
	NameData	pipeline;
	const char *topic;
	const char *cluster_id;
} SpineLog;

/*
 * Fills next_offset and the mark of each position from the table, -1 where there
 * is none: a position that was moved by hand has no mark.  Sets *known_topic:
 * any partition of this topic has a row.  Rows that an earlier embedded broker
 * left are deleted, and *lost_log is set then: its log is gone.  Raises an error
 * (structural) when the rows belong to another cluster.
 */
extern void spine_offsets_load(const SpineLog *log, SpinePosition *positions, int n,
							   bool *known_topic, bool *lost_log);

/* Adds a row for each position; one that is there already stays as it is. */
extern void spine_offsets_insert(const SpineLog *log, const SpinePosition *positions, int n);

/*
 * Locks the rows until the transaction ends.  Returns false when any of them
 * does not say what the worker believes: someone else moved it.
 */
extern bool spine_offsets_lock(const SpineLog *log, const SpinePosition *positions, int n);

/*
 * Moves the rows from next_offset to read_to, and the marks.  Only after
 * spine_offsets_lock.
 */
extern void spine_offsets_move(const SpineLog *log, const SpinePosition *positions, int n);

#endif							/* SPINE_POSITIONS_H */

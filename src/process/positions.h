/*
 * positions.h
 *		The positions that the database has: rows of spine_offsets, moved in the
 *		transaction that applies what lies between.
 */
#ifndef SPINE_POSITIONS_H
#define SPINE_POSITIONS_H

#include "compat.h"
#include "event/position.h"

/* The identity of every embedded broker begins with this; that of no other cluster does. */
#define SPINE_EMBEDDED_PREFIX	"embedded-"

/* Whose positions: which rows of spine_offsets. */
typedef struct SpineLog
{
	const char *schema;			/* of the extension, quoted */
	NameData	pipeline;
	const char *topics;			/* as the pipeline has it: see catalog/topics.h */
	const char *cluster_id;
} SpineLog;

/*
 * Fills next_offset and the mark of each position from the table, -1 where there is
 * none: a position that was moved by hand has no mark.  *known_topics: any partition of
 * the pipeline's topics has a row, even of a topic that is gone.  Rows that an earlier
 * embedded broker left are deleted, and *lost_log is set then: its log is gone.  Raises an
 * error (structural) when the rows belong to another cluster.  In a transaction with SPI, as
 * the functions below.
 */
extern void spine_positions_load(const SpineLog *log, SpinePosition *positions, int n,
								 bool *known_topics, bool *lost_log);

/* Adds a row for each position; a row that is there already stays as it is. */
extern void spine_positions_insert(const SpineLog *log, const SpinePosition *positions, int n);

/*
 * Moves the rows from `from` to `to`, and the marks; nobody else can until the transaction
 * ends.  False: one of the rows does not stand at `from`, since somebody else has moved it.
 * The transaction is to be rolled back then.
 */
extern bool spine_positions_move(const SpineLog *log, const SpineMove *moves, int n);

#endif							/* SPINE_POSITIONS_H */

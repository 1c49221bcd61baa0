/*
 * position_row.h
 *		Moves rows of spine_offsets without a statement.
 */
#ifndef SPINE_POSITION_ROW_H
#define SPINE_POSITION_ROW_H

#include "process/positions.h"

#include "storage/itemptr.h"

/* The table, open for moves. */
typedef struct SpinePositionTable SpinePositionTable;

/* NULL: it is not as this version of the extension makes it.  In a transaction. */
extern SpinePositionTable *spine_position_table_open(const SpineLog *log);

extern void spine_position_table_close(SpinePositionTable *table);

/*
 * Moves the row at *place, and says in *place where the row is now.  A row that somebody else
 * is moving is waited for.  False: there is no row of this move that stands at `from`.
 */
extern bool spine_position_row_move(SpinePositionTable *table, const SpineLog *log,
									const SpineMove *move, ItemPointer place);

#endif							/* SPINE_POSITION_ROW_H */

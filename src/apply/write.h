/*
 * write.h
 *		Runs the statements of a sink.
 */
#ifndef SPINE_WRITE_H
#define SPINE_WRITE_H

#include "apply/rows.h"
#include "apply/sink.h"

/*
 * Writes rows, and counts what becomes of them.  In the current memory context, which is to
 * be reset soon.  In a transaction with SPI, as the role that the sink runs as, with its
 * settings (role.h).  Raises what the database says.
 */
extern void spine_write_rows(SpineSink *sink, SpineSinkStatement which, const SpineStoredRows *rows,
							 SpineApplyCounts *counts);

/* Makes the rows of events[0..n-1], in log order, and writes them.  As the above. */
extern void spine_write_events(SpineSink *sink, SpineSinkStatement which, const SpineEvent *events,
							   size_t n, SpineApplyCounts *counts);

#endif							/* SPINE_WRITE_H */

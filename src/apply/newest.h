/*
 * newest.h
 *		Of the events of one key, the newest; and what older ones have that it lacks.
 */
#ifndef SPINE_NEWEST_H
#define SPINE_NEWEST_H

#include "apply/rows.h"

/*
 * Keeps the newest event of each key, in an order of the keys.  Of two events with the same
 * version, or without versions, the later in the log is newer.  Sets left_out and partial,
 * too: a column that an event lacks is given by the next older one that has it.  Binds the
 * keys and the version.  Raises what the types' comparison functions raise.
 */
extern void spine_newest_find(const SpineSink *sink, SpineRows *rows);

#endif							/* SPINE_NEWEST_H */

/*
 * lookup.h
 *		Plans statements that look rows up by a key.
 */
#ifndef SPINE_LOOKUP_H
#define SPINE_LOOKUP_H

#include "compat.h"
#include "executor/spi.h"

/*
 * Plans a statement of spine_statement_prepare, unless its plan is kept already, so that it
 * finds rows by an index, or by their places, whatever the size of the tables is now.
 * With SPI.
 */
extern void spine_lookup_plan(SPIPlanPtr plan);

#endif							/* SPINE_LOOKUP_H */

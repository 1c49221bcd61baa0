/*
 * flat_json.h
 *		Fields of the records that nearly every producer of events writes, straight
 *		from their bytes.
 */
#ifndef SPINE_FLAT_JSON_H
#define SPINE_FLAT_JSON_H

#include "decode.h"

/*
 * Takes fields[0..nspecs-1] from a record that is one flat JSON object: strings
 * without escapes, integers of at most 18 digits, true, false and null.  The fields'
 * texts are the record's own bytes.
 *
 * False: it is not that, or not JSON at all, or longer than 1 MB, or there are more
 * than 64 specs, or one wants JSON; spine_decode knows.  Where this says true,
 * spine_decode would give the same.  No two specs may have the same key.
 */
extern bool spine_flat_json(const void *value, size_t value_len,
							const SpineFieldSpec *specs, int nspecs, SpineField *fields);

#endif							/* SPINE_FLAT_JSON_H */

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
 * without escapes, integers that fit an int64, true, false and null.  The fields'
 * texts are the record's own bytes.
 *
 * False: it is not that, or not JSON at all, or a spec wants JSON; spine_decode
 * knows.  Where this says true, spine_decode would give the same.
 */
extern bool spine_flat_json(const void *value, size_t value_len,
							const SpineFieldSpec *specs, int nspecs, SpineField *fields);

#endif							/* SPINE_FLAT_JSON_H */

/*
 * decode.h
 *		Bytes of a record to fields.
 */
#ifndef SPINE_DECODE_H
#define SPINE_DECODE_H

#include "record.h"

/* One field to take from each record. */
typedef struct SpineFieldSpec
{
	const char *json_key;		/* UTF-8, NUL-terminated */
	bool		as_json;		/* give any value but null as JSON text */
} SpineFieldSpec;

typedef struct SpineDecoder SpineDecoder;

/* malloc'ed; NULL when out of memory.  Freed by spine_decoder_destroy. */
extern SpineDecoder *spine_decoder_create(void);
extern void spine_decoder_destroy(SpineDecoder *decoder);

/* Frees what the last record has left, which may be large, and the texts with it. */
extern void spine_decoder_reset(SpineDecoder *decoder);

/*
 * Decodes one JSON object into fields[0..nspecs-1], in the order of specs.
 * Returns false, and a reason in plain words, when the bytes are not one valid
 * JSON object in UTF-8 (RFC 8259) or could not be represented exactly; with an
 * empty reason when there is no memory, which is not the record's fault.  Field
 * texts stay valid until the next call with this decoder.
 */
extern bool spine_decode(SpineDecoder *decoder,
						 const void *value, size_t value_len,
						 const SpineFieldSpec *specs, int nspecs,
						 SpineField *fields,
						 char *reason, size_t reason_size);

#endif							/* SPINE_DECODE_H */

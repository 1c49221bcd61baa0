/*
 * generator.h
 *		Synthetic order events, as JSON.
 */
#ifndef SPINE_GENERATOR_H
#define SPINE_GENERATOR_H

#include <stddef.h>
#include <stdint.h>

/* A small, fast random generator (xoshiro256**); not for secrets. */
typedef struct SpineRandom
{
	uint64_t	state[4];
} SpineRandom;

/* Expands one seed (best from the system's strong source) to a full state. */
extern void spine_generator_seed(SpineRandom *random, uint64_t seed);

/*
 * The tenant as a JSON string literal with its quotes, malloc'ed, or NULL when
 * out of memory.  tenant: valid UTF-8.
 */
extern char *spine_generator_tenant_literal(const char *tenant, size_t len);

/*
 * Writes one event to buf as snprintf would: NUL-terminated when size allows,
 * and the return value is the length it has or would have had.
 *
 *	tenant_literal	from spine_generator_tenant_literal
 *	unix_time_us	event time, microseconds since 1970-01-01 UTC; years 1970
 *					to 9999
 *
 * The event: event_id (uuid v4), tenant, event_type (order_placed 5,
 * order_paid 4, order_shipped 3, order_cancelled 1 by weight), order_id
 * (ord-1 to ord-100000), amount_cents (500 to 50000), event_time (ISO 8601,
 * UTC, microseconds).
 */
extern size_t spine_generator_event(SpineRandom *random,
									const char *tenant_literal,
									int64_t unix_time_us,
									char *buf, size_t size);

#endif							/* SPINE_GENERATOR_H */

/*
 * options.h
 *		The options of a cluster, as in spine.kafka_options: may they be set?
 */
#ifndef SPINE_OPTIONS_H
#define SPINE_OPTIONS_H

#include "compat.h"

/*
 * False, with a reason that names an option but never its value: the list cannot be
 * parsed, an option is unknown or not allowed, or its value is refused.  Never raises
 * an error of its own, and starts no thread: the postmaster may call it.
 */
extern bool spine_kafka_options_check(const char *options, char *reason, size_t reason_size);

#endif							/* SPINE_OPTIONS_H */

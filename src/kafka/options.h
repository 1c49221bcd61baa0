/*
 * options.h
 *		The options of a cluster, as in spine.kafka_options: may they be set?
 */
#ifndef SPINE_OPTIONS_H
#define SPINE_OPTIONS_H

#include "compat.h"
#include "lib/stringinfo.h"

/*
 * False, with a reason that names an option but never its value: the list cannot be
 * parsed, an option is unknown or not allowed, or its value is refused.  Never raises
 * an error of its own, and starts no thread: the postmaster may call it.
 */
extern bool spine_kafka_options_check(const char *options, char *reason, size_t reason_size);

/* Adds an option to a list, with quotes around its value. */
extern void spine_kafka_options_add(StringInfo options, const char *name, const char *value);

/*
 * The value that an option has with this list, as librdkafka spells it: its default if it
 * is not in the list; "" if the library does not know it.  The list has been checked.
 */
extern char *spine_kafka_options_value(const char *options, const char *name);

#endif							/* SPINE_OPTIONS_H */

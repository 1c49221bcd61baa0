/*
 * options.h
 *		The setting spine.kafka_options: parsing it, checking it, and putting it
 *		into a librdkafka configuration.
 */
#ifndef SPINE_OPTIONS_H
#define SPINE_OPTIONS_H

#include <librdkafka/rdkafka.h>

#include "compat.h"

/*
 * Sets each option of the list on conf.  Returns false, and a reason that
 * names the option but never its value, when the list cannot be parsed, an
 * option is unknown or its value is refused, or it is one that spine's
 * promises depend on.  Does not ereport.
 */
extern bool spine_kafka_options_apply(const char *options, rd_kafka_conf_t *conf,
									  char *reason, size_t reason_size);

/* The same on a configuration that is thrown away. */
extern bool spine_kafka_options_check(const char *options,
									  char *reason, size_t reason_size);

#endif							/* SPINE_OPTIONS_H */

/*
 * server_options.h
 *		The options of servers and user mappings.
 */
#ifndef SPINE_SERVER_OPTIONS_H
#define SPINE_SERVER_OPTIONS_H

#include "compat.h"

#define SPINE_BROKERS_OPTION			"brokers"
#define SPINE_PASSWORD_REQUIRED_OPTION	"password_required"

/* What librdkafka calls an option; NULL: it is spine's own, one of those above. */
extern const char *spine_server_option_key(const char *name);

#endif							/* SPINE_SERVER_OPTIONS_H */

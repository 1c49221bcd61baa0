/*
 * server_guard.h
 *		Watches what becomes of servers.
 */
#ifndef SPINE_SERVER_GUARD_H
#define SPINE_SERVER_GUARD_H

#include "compat.h"

/*
 * When the server starts: from then on no server that a pipeline names is dropped or
 * renamed, and workers hear of changes.
 */
extern void spine_server_guard_init(void);

#endif							/* SPINE_SERVER_GUARD_H */

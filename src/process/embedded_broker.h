/*
 * embedded_broker.h
 *		The process that tends the embedded broker.
 */
#ifndef SPINE_EMBEDDED_BROKER_H
#define SPINE_EMBEDDED_BROKER_H

#include "compat.h"

/* Main function of the process.  What it is to do is in spine_shared->broker.wanted. */
extern PGDLLEXPORT void spine_embedded_broker_main(Datum arg);

/*
 * May a broker be there that no process tends?  If no broker is wanted, a process has to
 * be started to stop it.
 */
extern bool spine_embedded_broker_is_left(void);

#endif							/* SPINE_EMBEDDED_BROKER_H */

/*
 * embedded_broker.h
 *		The process that tends the embedded broker.
 */
#ifndef SPINE_EMBEDDED_BROKER_H
#define SPINE_EMBEDDED_BROKER_H

#include "compat.h"

/* Its main function.  What it is to do is in spine_shared->broker.wanted. */
extern PGDLLEXPORT void spine_broker_main(Datum arg);

/*
 * May there be an embedded broker, though no process tends it?  If none is
 * wanted, one has to be started that stops it.
 */
extern bool spine_broker_is_left(void);

#endif							/* SPINE_EMBEDDED_BROKER_H */

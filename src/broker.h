/*
 * broker.h
 *		The embedded broker.
 */
#ifndef SPINE_BROKER_H
#define SPINE_BROKER_H

#include "compat.h"

/* Main function of its process. */
extern PGDLLEXPORT void spine_broker_main(Datum arg);

#endif							/* SPINE_BROKER_H */

/*
 * producer_worker.h
 *		The process that makes synthetic events all the time.
 */
#ifndef SPINE_PRODUCER_WORKER_H
#define SPINE_PRODUCER_WORKER_H

#include "compat.h"

/* Main function of the process. */
extern PGDLLEXPORT void spine_producer_main(Datum arg);

#endif							/* SPINE_PRODUCER_WORKER_H */

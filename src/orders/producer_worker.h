/*
 * producer_worker.h
 *		The process that makes synthetic order events all the time.
 */
#ifndef SPINE_PRODUCER_WORKER_H
#define SPINE_PRODUCER_WORKER_H

#include "compat.h"

/* Defines its settings and adds it to the launcher; called from _PG_init. */
extern void spine_producer_worker_init(void);

/* Main function of the process; the argument is for spine_launcher_claim. */
extern PGDLLEXPORT void spine_producer_worker_main(Datum arg);

#endif							/* SPINE_PRODUCER_WORKER_H */

/*
 * worker.h
 *		The process that applies a pipeline's partitions.
 */
#ifndef SPINE_WORKER_H
#define SPINE_WORKER_H

#include "compat.h"

/* Main function of a worker's process; the argument is its slot's number. */
extern PGDLLEXPORT void spine_worker_main(Datum slot_number);

#endif							/* SPINE_WORKER_H */

/*
 * settings.h
 *		The settings of the workers.  docs/CONFIGURATION.md describes them.
 */
#ifndef SPINE_SETTINGS_H
#define SPINE_SETTINGS_H

#include "compat.h"

extern bool spine_enabled;
extern int	spine_workers;
extern int	spine_batch_rows;
extern int	spine_piece_rows;
extern int	spine_batch_time_ms;	/* 0: batches do not grow */
extern int	spine_batch_interval_ms;
extern int	spine_breaker_records;	/* 0: never */
extern int	spine_max_record_memory_kb;
extern int	spine_log_interval_s;	/* -1: no summaries */

/* Called from _PG_init. */
extern void spine_settings_init(void);

/* The most records that a worker holds at a time. */
extern int	spine_settings_max_piece(void);

#endif							/* SPINE_SETTINGS_H */

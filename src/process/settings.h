/*
 * settings.h
 *		Every spine.* setting.  docs/CONFIGURATION.md describes them.
 */
#ifndef SPINE_SETTINGS_H
#define SPINE_SETTINGS_H

#include "compat.h"

/* A tenant's name has to fit an index entry of the table events. */
#define SPINE_MAX_TENANT_BYTES	255

extern char *spine_brokers_setting; /* "": the embedded broker */
extern char *spine_kafka_options;
extern bool spine_enabled;
extern int	spine_workers;
extern int	spine_batch_rows;
extern int	spine_batch_interval_ms;
extern int	spine_breaker_records;	/* 0: never */
extern int	spine_max_record_memory_kb;
extern int	spine_log_interval_s;	/* -1: no summaries */
extern double spine_producer_rate;	/* events per second, 0: off */
extern char *spine_producer_tenants;

/* Called from _PG_init. */
extern void spine_settings_init(void);

#endif							/* SPINE_SETTINGS_H */

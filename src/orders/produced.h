/*
 * produced.h
 *		How many order events the broker has acknowledged since the server started,
 *		by tenant.
 */
#ifndef SPINE_PRODUCED_H
#define SPINE_PRODUCED_H

#include "compat.h"

/* Reserves the shared memory; called from _PG_init. */
extern void spine_produced_init(void);

/*
 * The broker has acknowledged n events of a tenant, whose name is UTF-8 of up to
 * SPINE_MAX_TENANT_BYTES.  Tenants for which there is no room are counted together.
 * Takes the lock.
 */
extern void spine_produced_add(const char *tenant, size_t len, int64 n);

#endif							/* SPINE_PRODUCED_H */

/*
 * tenant.h
 *		A tenant that order events are made for.
 */
#ifndef SPINE_TENANT_H
#define SPINE_TENANT_H

#include "compat.h"

/* A tenant's name has to fit an index entry of the table events. */
#define SPINE_MAX_TENANT_BYTES	255

/* More than an event takes, with a NUL, if every byte of the tenant is escaped. */
#define SPINE_MAX_EVENT_BYTES	(SPINE_MAX_TENANT_BYTES * 6 + 512)

typedef struct SpineTenant
{
	char	   *name;			/* UTF-8; the record's key */
	size_t		len;
	char	   *literal;		/* as JSON */
} SpineTenant;

/* In the current memory context.  Raises an error for a name that is not allowed. */
extern void spine_tenant_init(SpineTenant *tenant, const char *utf8_name);

/*
 * Writes a random event of the tenant, whose time is now, to a buffer of
 * SPINE_MAX_EVENT_BYTES.  Returns its length.
 */
extern size_t spine_tenant_make_event(const SpineTenant *tenant, char *json);

#endif							/* SPINE_TENANT_H */

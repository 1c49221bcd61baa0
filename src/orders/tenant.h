/*
 * tenant.h
 *		A tenant that order events are made for.
 */
#ifndef SPINE_TENANT_H
#define SPINE_TENANT_H

#include "compat.h"

/* A tenant's name has to fit an index entry of the table events. */
#define SPINE_MAX_TENANT_BYTES	255

typedef struct SpineTenant
{
	char	   *name;			/* UTF-8; the record's key */
	size_t		len;
	char	   *literal;		/* as JSON */
	size_t		message_size;	/* the most that one of its events takes */
} SpineTenant;

/* In the current memory context.  Raises an error for a name that is not allowed. */
extern void spine_tenant_init(SpineTenant *tenant, const char *utf8_name);

#endif							/* SPINE_TENANT_H */

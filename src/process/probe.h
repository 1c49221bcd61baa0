/*
 * probe.h
 *		A short-lived process that looks into one database.
 */
#ifndef SPINE_PROBE_H
#define SPINE_PROBE_H

#include "compat.h"

/* Main function of the process; the argument is the database's OID. */
extern PGDLLEXPORT void spine_probe_main(Datum database);

#endif							/* SPINE_PROBE_H */

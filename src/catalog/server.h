/*
 * server.h
 *		Servers of the foreign-data wrapper spine_kafka, with their user mappings: rows of
 *		PostgreSQL's own catalog as structs.
 */
#ifndef SPINE_SERVER_H
#define SPINE_SERVER_H

#include "compat.h"

#include "nodes/pg_list.h"

typedef struct SpineServer
{
	Oid			oid;
	char	   *name;
	List	   *options;		/* DefElems */
	List	   *user_options;	/* of the role's mapping, or else of PUBLIC's; NIL: there is none */
} SpineServer;

/*
 * The server, as the role may use it; palloc'ed.  Raises an error (structural) if there is
 * no such server, if it is of another wrapper, or if the role lacks USAGE.  In a
 * transaction.
 */
extern SpineServer *spine_server_find(const char *name, Oid role);

/*
 * The pipelines that name a server, "a, b" and palloc'ed; NULL: none does.  Looks beyond
 * the privileges of the current user.  In a transaction.
 */
extern char *spine_server_pipelines(const char *name);

/* The name of a server of spine_kafka, palloc'ed; NULL: it is of another wrapper. */
extern char *spine_server_name(Oid server);

#endif							/* SPINE_SERVER_H */

/*
 * server_cluster.h
 *		The cluster that a server declares.
 */
#ifndef SPINE_SERVER_CLUSTER_H
#define SPINE_SERVER_CLUSTER_H

#include "compat.h"

#include "fmgr.h"
#include "kafka/cluster.h"

/*
 * The cluster of a server, as the role uses it: with the password of its user mapping.
 * Looked up each time, so that a change takes effect.  NULL: the default cluster, whose
 * address is NULL while the embedded broker is not running.  The strings are palloc'ed.
 * Raises an error (structural) when there is no such server, the role may not use it, or
 * the mapping lacks a password.  In a transaction, unless the server is NULL.
 */
extern SpineCluster spine_server_cluster(const char *server, Oid role);

/* The same in a backend, which waits for the embedded broker: see default_cluster.h. */
extern SpineCluster spine_server_cluster_await(const char *server, Oid role);

/*
 * The same for an SQL function with the arguments `server name` and, behind it, `as_role
 * regrole`, which it may lack.  Without a role: the current user.  Raises an error if the
 * current user lacks the role's privileges.
 */
extern SpineCluster spine_server_cluster_argument(FunctionCallInfo fcinfo, int server);

#endif							/* SPINE_SERVER_CLUSTER_H */

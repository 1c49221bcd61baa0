/*
 * server_cluster.c
 *		Makes a cluster of a server and a user mapping.
 *
 * Nothing of spine.kafka_options goes into it: the brokers of a server would be sent the
 * password that is meant for those of spine.brokers.
 */
#include "process/server_cluster.h"

#include "catalog/pg_foreign_server.h"
#include "catalog/server.h"
#include "commands/defrem.h"
#include "kafka/option_list.h"
#include "kafka/options.h"
#include "miscadmin.h"
#include "process/default_cluster.h"
#include "process/server_options.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(spine_check_server);

/* The value of one of spine's own options, or NULL. */
static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

static void
add_library_options(StringInfo list, List *options)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);
		const char *key = spine_server_option_key(option->defname);

		if (key)
			spine_kafka_options_add(list, key, defGetString(option));
	}
}

static bool
has_secret(List *options, const char *prefix)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		const char *key = spine_server_option_key(lfirst_node(DefElem, cell)->defname);

		if (key && strncmp(key, prefix, strlen(prefix)) == 0 && spine_option_list_is_secret(key))
			return true;
	}
	return false;
}

/* Does the library log in with something of the machine's instead of the mapping's? */
static bool
borrows_identity(const char *options)
{
	const char *metadata = spine_kafka_options_value(options, "sasl.oauthbearer.metadata.authentication.type");

	return (metadata[0] && strcmp(metadata, "none") != 0) ||
		spine_kafka_options_value(options, "sasl.oauthbearer.assertion.file")[0] ||
		spine_kafka_options_value(options, "sasl.oauthbearer.assertion.private.key.file")[0];
}

/*
 * Where a cluster asks who is there, is the answer the mapping's own?  Otherwise whoever
 * has USAGE would log in as the server's operating-system user, by its Kerberos ticket or
 * its files.
 */
static bool
has_own_login(const SpineServer *server, const char *options)
{
	const char *mechanism = spine_kafka_options_value(options, "sasl.mechanisms");

	if (strncmp(spine_kafka_options_value(options, "security.protocol"), "sasl", 4) != 0)
		return true;
	if (strcmp(mechanism, "GSSAPI") == 0)
		return false;
	if (strcmp(mechanism, "OAUTHBEARER") == 0)
		return has_secret(server->user_options, "sasl.oauthbearer.") && !borrows_identity(options);
	return has_secret(server->user_options, "sasl.password");
}

static void
check_login(const SpineServer *server, const char *options, Oid role)
{
	DefElem    *required = find_option(server->user_options, SPINE_PASSWORD_REQUIRED_OPTION);

	if (superuser_arg(role) || (required && !defGetBoolean(required)) || has_own_login(server, options))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("a password is required to use server \"%s\"", server->name),
			 errdetail("The user mapping of role %s has none.", GetUserNameFromId(role, false)),
			 errhint("CREATE USER MAPPING FOR %s SERVER %s OPTIONS (user 'name', password 'secret');",
					 quote_identifier(GetUserNameFromId(role, false)), quote_identifier(server->name))));
}

SpineCluster
spine_server_cluster(const char *server_name, Oid role)
{
	SpineServer *server;
	DefElem    *brokers;
	StringInfoData options;

	if (server_name == NULL)
		return spine_default_cluster();

	server = spine_server_find(server_name, role);
	brokers = find_option(server->options, SPINE_BROKERS_OPTION);
	if (brokers == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" has no brokers", server->name),
				 errhint("ALTER SERVER %s OPTIONS (ADD brokers 'host:port');", quote_identifier(server->name))));

	initStringInfo(&options);
	add_library_options(&options, server->options);
	add_library_options(&options, server->user_options);
	check_login(server, options.data, role);
	return (SpineCluster) {
		.address = defGetString(brokers),
		.options = options.data,
		.server = server->oid,
		.server_name = server->name
	};
}

SpineCluster
spine_server_cluster_await(const char *server, Oid role)
{
	return server ? spine_server_cluster(server, role) : spine_default_cluster_await();
}

SpineCluster
spine_server_cluster_argument(FunctionCallInfo fcinfo, int server)
{
	bool		has_server = server < PG_NARGS() && !PG_ARGISNULL(server);
	bool		has_role = server + 1 < PG_NARGS() && !PG_ARGISNULL(server + 1);
	Oid			role = has_role ? PG_GETARG_OID(server + 1) : GetUserId();

	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the privileges of role %s to use its user mapping",
						GetUserNameFromId(role, true))));
	return spine_server_cluster_await(has_server ? NameStr(*PG_GETARG_NAME(server)) : NULL, role);
}

/*
 * spine_check_server(name, regrole)
 *
 * Whoever drops or renames the server does not see the pipeline that is about to name it,
 * and so has to wait.  The server is looked up again: it may have gone before the lock.
 */
Datum
spine_check_server(PG_FUNCTION_ARGS)
{
	const char *name = NameStr(*PG_GETARG_NAME(0));
	Oid			role = PG_GETARG_OID(1);
	Oid			locked = InvalidOid;
	Oid			found;

	while ((found = spine_server_find(name, role)->oid) != locked)
	{
		LockDatabaseObject(ForeignServerRelationId, found, 0, AccessShareLock);
		locked = found;
	}
	PG_RETURN_VOID();
}

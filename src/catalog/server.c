/*
 * server.c
 *		Looks servers up, and the pipelines that name them.
 */
#include "catalog/server.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/extension.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_user_mapping.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define WRAPPER		"spine_kafka"

static bool
is_of_wrapper(const ForeignServer *server)
{
	return server->fdwid == get_foreign_data_wrapper_oid(WRAPPER, true) &&
		spine_extension_has(ForeignDataWrapperRelationId, server->fdwid);
}

/* The options of a user's mapping (InvalidOid: PUBLIC's).  False: there is no mapping. */
static bool
find_mapping(Oid user, Oid server, List **options)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user), ObjectIdGetDatum(server));
	Datum		datum;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		return false;
	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	*options = isnull ? NIL : untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return true;
}

SpineServer *
spine_server_find(const char *name, Oid role)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	SpineServer *found = palloc0(sizeof(SpineServer));

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", name),
				 errhint("Declare it: CREATE SERVER %s FOREIGN DATA WRAPPER " WRAPPER " OPTIONS (brokers 'host:port').",
						 quote_identifier(name))));
	if (!is_of_wrapper(server))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a Kafka cluster", name),
				 errhint("Name a server of the foreign-data wrapper " WRAPPER ".")));
	if (!spine_may_use_server(server->serverid, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", name),
				 errdetail("Role %s may not use it.", GetUserNameFromId(role, false)),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s;", quote_identifier(name),
						 quote_identifier(GetUserNameFromId(role, false)))));

	found->oid = server->serverid;
	found->name = server->servername;
	found->options = server->options;
	if (!find_mapping(role, server->serverid, &found->user_options))
		(void) find_mapping(InvalidOid, server->serverid, &found->user_options);
	return found;
}

char *
spine_server_name(Oid server)
{
	ForeignServer *found = GetForeignServerExtended(server, FSV_MISSING_OK);

	return found && is_of_wrapper(found) ? found->servername : NULL;
}

/* From the table itself: whoever drops a server need not be allowed to read pipelines. */
char *
spine_server_pipelines(const char *name)
{
	Relation	rel = table_open(spine_extension_table("spine_pipelines"), AccessShareLock);
	AttrNumber	name_column = get_attnum(RelationGetRelid(rel), "name");
	AttrNumber	server_column = get_attnum(RelationGetRelid(rel), "server");
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;
	StringInfoData names;

	initStringInfo(&names);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		server = heap_getattr(tuple, server_column, RelationGetDescr(rel), &isnull);

		if (!isnull && strcmp(NameStr(*DatumGetName(server)), name) == 0)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 NameStr(*DatumGetName(heap_getattr(tuple, name_column, RelationGetDescr(rel), &isnull))));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return names.len > 0 ? names.data : NULL;
}

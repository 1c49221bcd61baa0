/*
 * compat.h
 *		What differs between PostgreSQL versions: the only file that looks at
 *		PG_VERSION_NUM.
 */
#ifndef SPINE_COMPAT_H
#define SPINE_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "spine needs PostgreSQL 15 or later"
#endif

/* Since 16, postgres.h does not bring what opens a varlena any more. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "access/htup_details.h"
#include "storage/latch.h"

/* Latch-related declarations moved to their own header in 18. */
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/* Stands before the declaration since 18, and behind it (by another name) before. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn		__attribute__((noreturn))
#endif

#include "utils/wait_event.h"

#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "miscadmin.h"
#include "utils/acl.h"

/* What tells sessions apart was called a backend id before 17. */
#if PG_VERSION_NUM >= 170000
#include "storage/procnumber.h"
#else
#include "storage/backendid.h"
#define MyProcNumber	MyBackendId
#endif

/* What an interrupted DROP DATABASE leaves behind; named since 15.4. */
#ifdef DATCONNLIMIT_INVALID_DB
#define SPINE_DATCONNLIMIT_INVALID_DB	DATCONNLIMIT_INVALID_DB
#else
#define SPINE_DATCONNLIMIT_INVALID_DB	(-2)
#endif

static inline MinimalTuple
spine_form_minimal_tuple(TupleDesc type, Datum *values, bool *nulls)
{
#if PG_VERSION_NUM >= 180000
	return heap_form_minimal_tuple(type, values, nulls, 0);
#else
	return heap_form_minimal_tuple(type, values, nulls);
#endif
}

/* Does the current user own the database? */
static inline bool
spine_owns_database(Oid database)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

/* May the role use the foreign server? */
static inline bool
spine_may_use_server(Oid server, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, server, role, ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_foreign_server_aclcheck(server, role, ACL_USAGE) == ACLCHECK_OK;
#endif
}

/*
 * For what writes to a table without a statement: the rights that its range table asks for
 * (of their own since 16), the entries in a row's indexes and which of them an update needs,
 * and the map from a partitioned table's rows to those of a partition.
 */
#if PG_VERSION_NUM >= 160000
#define SpinePermissions		RTEPermissionInfo
#define spine_add_permissions(list, entry)	addRTEPermissionInfo(list, entry)
#define spine_check_permissions(entries, permissions) \
	((void) ExecCheckPermissions(entries, permissions, true))
#define spine_insert_index_entries(relation, slot, estate) \
	ExecInsertIndexTuples(relation, slot, estate, false, false, NULL, NIL, false)
#define spine_partition_map(partition, estate)	ExecGetRootToChildMap(partition, estate)
#define SpineUpdatedIndexes		TU_UpdateIndexes
#define spine_any_index_updated(indexes)	((indexes) != TU_None)
#define spine_update_index_entries(relation, slot, estate, indexes) \
	ExecInsertIndexTuples(relation, slot, estate, false, false, NULL, NIL, (indexes) == TU_Summarizing)
#else
#define SpinePermissions		RangeTblEntry
#define spine_add_permissions(list, entry)	((void) (list), (entry))
#define spine_check_permissions(entries, permissions) \
	((void) ExecCheckRTPerms(entries, true))
#define spine_insert_index_entries(relation, slot, estate) \
	ExecInsertIndexTuples(relation, slot, estate, false, false, NULL, NIL)
#define spine_partition_map(partition, estate)	((partition)->ri_RootToPartitionMap)
#define SpineUpdatedIndexes		bool
#define spine_any_index_updated(indexes)	(indexes)
#define spine_update_index_entries(relation, slot, estate, indexes) \
	spine_insert_index_entries(relation, slot, estate)
#endif

/* The index of the table's primary key, if that is not deferrable. */
#if PG_VERSION_NUM >= 180000
#define spine_primary_key(relation)	RelationGetPrimaryKeyIndex(relation, false)
#else
#define spine_primary_key(relation)	RelationGetPrimaryKeyIndex(relation)
#endif

#if PG_VERSION_NUM >= 180000
#define spine_init_range_table(estate, entries, permissions) \
	ExecInitRangeTable(estate, entries, permissions, bms_make_singleton(1))
#elif PG_VERSION_NUM >= 160000
#define spine_init_range_table(estate, entries, permissions) \
	ExecInitRangeTable(estate, entries, permissions)
#else
#define spine_init_range_table(estate, entries, permissions) \
	ExecInitRangeTable(estate, entries)
#endif

#endif							/* SPINE_COMPAT_H */

/*
 * spine.c
 *		PostgreSQL as the consumer of an event log: module magic and start-up.
 *
 * docs/ARCHITECTURE.md says how the files hang together.
 */
#include "compat.h"

#include "catalog/own_tables.h"
#include "catalog/pipeline.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "orders/orders.h"
#include "process/database_holds.h"
#include "process/default_cluster.h"
#include "process/launcher.h"
#include "process/server_guard.h"
#include "process/settings.h"
#include "process/shared.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("spine must be loaded when the server starts"),
				 errhint("Add this line to postgresql.conf and restart the server: shared_preload_libraries = 'spine'")));

	spine_shared_init();
	spine_default_cluster_init();
	spine_pipeline_settings_init();
	spine_settings_init();
	spine_database_holds_init();
	spine_server_guard_init();
	spine_own_tables_init();
	spine_orders_init();
	MarkGUCPrefixReserved("spine");

	/* pg_upgrade starts the server to move data, not to take in more */
	if (!IsBinaryUpgrade)
		spine_launcher_init();
}

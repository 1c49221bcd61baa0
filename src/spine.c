/*
 * spine.c
 *		PostgreSQL as the consumer of an event log: module magic and start-up.
 *
 * docs/ARCHITECTURE.md says how the files hang together.
 */
#include "compat.h"

#include "fmgr.h"
#include "process/database_holds.h"
#include "process/launcher.h"
#include "miscadmin.h"
#include "catalog/own_tables.h"
#include "catalog/pipeline.h"
#include "process/settings.h"
#include "process/shared.h"

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

	spine_pipeline_settings_init();
	spine_settings_init();	/* the last of them: no other spine.* may follow */
	spine_shared_init();
	spine_guard_init();
	spine_own_tables_init();
	spine_own_tables_add("spine_order_totals", true);

	/* pg_upgrade starts the server to move data, not to take in more */
	if (!IsBinaryUpgrade)
		spine_launcher_init();
}

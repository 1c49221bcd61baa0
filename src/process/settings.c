/*
 * settings.c
 *		Defines the settings of the workers.
 *
 * They may be set per database or, by a superuser, per session.
 */
#include "process/settings.h"

#include <limits.h>

#include "utils/guc.h"

bool		spine_enabled = true;
int			spine_workers = 1;
int			spine_batch_rows = 500000;
int			spine_piece_rows = 50000;
int			spine_batch_time_ms = 2000;
int			spine_batch_interval_ms = 2;
int			spine_breaker_records = 1000;
int			spine_max_record_memory_kb = 96 * 1024;
int			spine_log_interval_s = 5;

void
spine_settings_init(void)
{
	DefineCustomBoolVariable("spine.enabled",
							 "Lets workers run in this database.",
							 "Turn off while restoring a dump.",
							 &spine_enabled, true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("spine.workers",
							"Workers per pipeline.",
							"Partition p belongs to worker p modulo this.",
							&spine_workers, 1, 1, 32,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.batch_rows",
							"The most records applied in one transaction.",
							"Under a backlog a batch grows to this, or for spine.batch_time.",
							&spine_batch_rows, 500000, 1, 5000000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.piece_rows",
							"The most records that are read and applied at a time.",
							"A batch of more records consists of several pieces.",
							&spine_piece_rows, 50000, 1, 500000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.batch_time",
							"How long a batch takes more records while there is a backlog.",
							"0: a batch does not grow.",
							&spine_batch_time_ms, 2000, 0, 600000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.batch_interval",
							"The longest a worker rests between two batches.",
							NULL,
							&spine_batch_interval_ms, 2, 0, 10000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.breaker_records",
							"The pipeline fails when this many records in a row are refused for one reason.",
							"The table is then held to be at fault; 0 makes dead letters of them all.",
							&spine_breaker_records, 1000, 0, INT_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.max_record_memory",
							"About how much memory the jsonb values of one record may take while they are made.",
							"A record that would take more becomes a dead letter.",
							&spine_max_record_memory_kb, 96 * 1024, 1024, INT_MAX,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.log_interval",
							"At most one summary line in the log per worker in this time; -1 turns them off.",
							NULL,
							&spine_log_interval_s, 5, -1, INT_MAX / 1000,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
}

int
spine_settings_max_piece(void)
{
	return Min(spine_piece_rows, spine_batch_rows);
}

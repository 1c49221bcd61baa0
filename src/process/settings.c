/*
 * settings.c
 *		Defines the settings of the workers.
 *
 * They may be set per database or, by a superuser, per session.
 */
#include "process/settings.h"

#include <limits.h>

#include "utils/guc.h"

char	   *spine_topic = NULL;
bool		spine_enabled = true;
int			spine_workers = 1;
int			spine_batch_rows = 50000;
int			spine_batch_interval_ms = 10;
int			spine_breaker_records = 1000;
int			spine_max_record_memory_kb = 96 * 1024;
int			spine_log_interval_s = 5;

static bool
check_topic(char **newval, void **extra, GucSource source)
{
	static const char legal[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t		len = strlen(*newval);

	if (len >= 1 && len <= 249 && strspn(*newval, legal) == len &&
		strcmp(*newval, ".") != 0 && strcmp(*newval, "..") != 0)
		return true;

	GUC_check_errdetail("A topic name has 1 to 249 ASCII letters, digits, \".\", \"_\" and \"-\".");
	return false;
}

void
spine_settings_init(void)
{
	DefineCustomStringVariable("spine.topic",
							   "The topic that spine_produce writes to and that pipelines without a topic read.",
							   NULL,
							   &spine_topic, "events",
							   PGC_SUSET, 0,
							   check_topic, NULL, NULL);

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
							NULL,
							&spine_batch_rows, 50000, 1, 500000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.batch_interval",
							"The longest a record waits for others to be applied with it.",
							NULL,
							&spine_batch_interval_ms, 10, 0, 10000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.breaker_records",
							"So many records in a row that the database refuses for one reason fail the pipeline.",
							"The table is then held to be at fault; 0 makes dead letters of them all.",
							&spine_breaker_records, 1000, 0, INT_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("spine.max_record_memory",
							"The most memory that jsonb of one record may take while it is made, about.",
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

/*
 * session_settings.c
 *		The settings of a session that works on users' tables unattended, whatever the
 *		database and its roles have set.
 */
#include "process/session_settings.h"

#include "apply/transaction.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

/* Of the database, when the process connected; NULL: not known. */
static char *database_settings = NULL;

/* Step: what ALTER DATABASE and ALTER ROLE have set here, in TopMemoryContext. */
static bool
read_database_settings(void *arg)
{
	char	  **settings = arg;
	char	   *query = psprintf("SELECT pg_catalog.string_agg(s.setconfig::pg_catalog.text, ' '"
								 " ORDER BY s.setdatabase, s.setrole)"
								 " FROM pg_catalog.pg_db_role_setting s"
								 " WHERE s.setdatabase IN (0, %u)", MyDatabaseId);
	char	   *value;

	SPI_execute(query, true, 1);
	value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	*settings = MemoryContextStrdup(TopMemoryContext, value ? value : "");
	return true;
}

bool
spine_session_settings_changed(void)
{
	char	   *settings = NULL;
	SpineError	error;
	bool		changed;

	if (spine_transaction_run(read_database_settings, &settings, &error) != SPINE_COMMITTED)
		return false;
	changed = database_settings != NULL && strcmp(settings, database_settings) != 0;
	if (database_settings)
		pfree(database_settings);
	database_settings = settings;
	return changed;
}

void
spine_session_settings_apply(void)
{
	static const char *const options[][2] = {
		{"search_path", ""},	/* nothing of a user's is found by accident */
		{"timezone", "UTC"},	/* a timestamp without a zone is UTC */
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"session_replication_role", "origin"},
		{"jit", "off"},			/* compiling costs more than these plans */
		{"transaction_timeout", "0"},	/* ends the process; since 17 */
	};

	for (int i = 0; i < (int) lengthof(options); i++)
		if (GetConfigOption(options[i][0], true, false) != NULL)
			SetConfigOption(options[i][0], options[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * session_settings.c
 *		The settings of a session that works on users' tables unattended, whatever the
 *		database and its roles have set.
 */
#include "compat.h"

#include "process/session_settings.h"

#include "utils/guc.h"

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

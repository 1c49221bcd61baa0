/*
 * role.c
 *		Acts as another role for a while, and with settings of our own.
 */
#include "apply/role.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/guc.h"

int
spine_role_fix_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", ""},
		{"timezone", "UTC"},
		{"datestyle", "ISO, YMD"},
		{"intervalstyle", "postgres"},
	};
	int			level = NewGUCNestLevel();

	/* in a worker, all of them have these values already */
	for (int i = 0; i < (int) lengthof(settings); i++)
	{
		if (strcmp(GetConfigOption(settings[i][0], false, false), settings[i][1]) != 0)
			(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
	return level;
}

void
spine_role_restore_settings(int level)
{
	AtEOXact_GUC(false, level);
}

void
spine_role_assume(SpineRole *saved, Oid role)
{
	Assert(IsTransactionState());
	GetUserIdAndSecContext(&saved->userid, &saved->security_context);
	SetUserIdAndSecContext(role, saved->security_context | SECURITY_RESTRICTED_OPERATION);
	saved->settings_level = spine_role_fix_settings();
}

void
spine_role_resume(const SpineRole *saved)
{
	spine_role_restore_settings(saved->settings_level);
	SetUserIdAndSecContext(saved->userid, saved->security_context);
}

/*
 * child.c
 *		Starts and ends a background worker for the launcher.
 */
#include "process/child.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/timestamp.h"

#define RESTART_MS			1000	/* after a child has ended by itself, ... */
#define LAST_RESTART_MS		60000	/* ... doubled with each failure up to this */
#define NO_SLOT_RETRY_MS	5000

static TimestampTz
from_now(int ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

bool
spine_child_is_stopped(SpineChild *child)
{
	pid_t		pid;

	if (child->handle && GetBackgroundWorkerPid(child->handle, &pid) == BGWH_STOPPED)
	{
		pfree(child->handle);
		child->handle = NULL;
		child->start_after = child->signalled_pid ? 0 :
			from_now(Min(RESTART_MS << Min(child->failures, 10), LAST_RESTART_MS));
		child->signalled_pid = 0;
	}
	return child->handle == NULL;
}

bool
spine_child_start(SpineChild *child, const char *function, const char *type, const char *name,
				  Datum argument)
{
	static bool complained = false;
	BackgroundWorker process = {0};

	Assert(child->handle == NULL);
	process.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process.bgw_start_time = BgWorkerStart_RecoveryFinished;
	process.bgw_restart_time = BGW_NEVER_RESTART;	/* that is the launcher's job */
	process.bgw_main_arg = argument;
	process.bgw_notify_pid = MyProcPid;
	strlcpy(process.bgw_library_name, "spine", sizeof(process.bgw_library_name));
	strlcpy(process.bgw_function_name, function, sizeof(process.bgw_function_name));
	strlcpy(process.bgw_type, type, sizeof(process.bgw_type));
	strlcpy(process.bgw_name, name, sizeof(process.bgw_name));

	if (RegisterDynamicBackgroundWorker(&process, &child->handle))
	{
		complained = false;
		return true;
	}
	child->handle = NULL;
	child->start_after = from_now(NO_SLOT_RETRY_MS);
	if (!complained)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start %s: no background worker slots left", name),
				 errhint("Increase \"max_worker_processes\".")));
	complained = true;
	return false;
}

void
spine_child_stop(SpineChild *child, int pid)
{
	if (pid != 0 && child->signalled_pid != pid)
	{
		kill(pid, SIGTERM);
		child->signalled_pid = pid;
	}
}

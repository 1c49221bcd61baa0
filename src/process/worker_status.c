/*
 * worker_status.c
 *		Reports trouble and its end, and paces the attempts in between.
 */
#include "process/worker_status.h"

#include "process/status.h"
#include "utils/builtins.h"

#define FIRST_RETRY_MS		100
#define LAST_RETRY_MS		5000
#define FAILED_RETRY_MS		5000

void
spine_worker_status_trouble(SpineWorkerStatus *status, const SpineError *error, bool is_news)
{
	SpineWorkerState state = error->class == SPINE_TRANSIENT ? SPINE_WAITING : SPINE_FAILED;
	bool		is_same = spine_error_is_same(&status->reported, error);
	SpineError	lasting = *error;

	if (is_same)
		lasting.since = status->reported.since;
	spine_status_set_state(status->slot, state, &lasting);
	if (is_news && !is_same)
		ereport(LOG,
				(errmsg("pipeline \"%s\" is %s: %s", NameStr(status->pipeline),
						state == SPINE_FAILED ? "failed" : "waiting", spine_error_text(error, false)),
				 error->hint[0] ? errhint("%s", error->hint) : 0));
	status->reported = lasting;
}

void
spine_worker_status_stuck(SpineWorkerStatus *status, const SpineStuck *stuck, bool one_topic)
{
	const char *topic = stuck->topic;
	const char *remedy = "To read it from its start";
	SpineError	error;

	switch (stuck->reason)
	{
		case SPINE_STUCK_EXPIRED:
			spine_error_set(&error, SPINE_STRUCTURAL, "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone from the log before they were applied",
							stuck->offset, stuck->log_offset - 1, stuck->partition, topic);
			remedy = "To continue without them";
			break;
		case SPINE_STUCK_SHORT_LOG:
			spine_error_set(&error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" ends at offset " INT64_FORMAT ", before the position " INT64_FORMAT ": it is not the log that was read before",
							stuck->partition, topic, stuck->log_offset, stuck->offset);
			break;
		case SPINE_STUCK_OTHER_LOG:
			spine_error_set(&error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" has another record at offset " INT64_FORMAT " than the one that was read: it is not the log that was read before",
							stuck->partition, topic, stuck->log_offset);
			break;
		case SPINE_STUCK_NO_OFFSET:
			spine_error_set(&error, SPINE_STRUCTURAL, "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not there",
							stuck->offset, stuck->partition, topic);
			remedy = NULL;
			break;
		case SPINE_STUCK_UNREADABLE:
			spine_error_set(&error, SPINE_STRUCTURAL, "partition %d of topic \"%s\" cannot be read from offset " INT64_FORMAT ": %s",
							stuck->partition, topic, stuck->offset, stuck->text);
			remedy = NULL;
			break;
	}
	if (remedy)
		spine_error_set_hint(&error, "%s: SELECT spine_seek(%s, %d, 'earliest'%s%s)", remedy,
							 quote_literal_cstr(NameStr(status->pipeline)), stuck->partition,
							 one_topic ? "" : ", ", one_topic ? "" : quote_literal_cstr(topic));
	spine_worker_status_trouble(status, &error, stuck->is_news);
}

void
spine_worker_status_running(SpineWorkerStatus *status, bool is_well)
{
	status->retry_ms = FIRST_RETRY_MS;
	if (is_well && status->reported.class != SPINE_NO_ERROR)
	{
		ereport(LOG,
				(errmsg("pipeline \"%s\" continues", NameStr(status->pipeline))));
		status->reported.class = SPINE_NO_ERROR;
	}
	spine_status_set_state(status->slot, is_well ? SPINE_RUNNING : SPINE_FAILED, NULL);
}

long
spine_worker_status_rest_ms(SpineWorkerStatus *status, const SpineError *error)
{
	long		rest_ms;

	if (error->class != SPINE_TRANSIENT)
		return FAILED_RETRY_MS;
	rest_ms = Max(status->retry_ms, FIRST_RETRY_MS);
	status->retry_ms = Min(rest_ms * 2, LAST_RETRY_MS);
	return rest_ms;
}

/*
 * session.c
 *		Keeps a backend's producer, so that only the first call pays for
 *		connecting.
 *
 * Between the calls nobody polls it, and a session may be idle for days: meanwhile it
 * rests.
 */
#include "session.h"

#include "settings.h"
#include "utils/memutils.h"

static SpineClient *client = NULL;
static char *client_settings = NULL;	/* what it was started with */
static uint64 client_use = 0;	/* the number of the latest use */

bool
spine_session_is_current(void)
{
	char	   *settings = spine_broker_settings();
	bool		current = client && strcmp(settings, client_settings) == 0;

	pfree(settings);
	return current;
}

void
spine_session_rest(void)
{
	if (client && !spine_client_rest(client))
		spine_session_close();
}

/* Memory context callback: a use has ended, by an error if nobody said so before. */
static void
end_use(void *use)
{
	if ((uint64) (uintptr_t) use == client_use)
		spine_session_rest();
}

SpineClient *
spine_session_client(void)
{
	MemoryContextCallback *callback = palloc0(sizeof(*callback));

	pfree(spine_await_broker_address());	/* or an error */

	if (!spine_session_is_current())
	{
		char	   *settings = spine_broker_settings();

		spine_session_close();
		client = spine_client_create(SPINE_PRODUCER, NULL, NULL);
		client_settings = MemoryContextStrdup(client->context, settings);
		pfree(settings);
	}
	else
		spine_client_wake(client);
	callback->func = end_use;
	callback->arg = (void *) (uintptr_t) ++client_use;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	client->error = RD_KAFKA_RESP_ERR_NO_ERROR;
	client->error_text[0] = '\0';
	return client;
}

void
spine_session_close(void)
{
	SpineClient *old = client;

	client = NULL;
	client_settings = NULL;
	spine_client_destroy(old);
}

void
spine_refuse_silent_broker(const SpineClient *silent)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("the broker does not answer: %s", silent->error_text),
			 errhint("Check \"spine.brokers\", and that the broker is up.")));
}

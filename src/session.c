/*
 * session.c
 *		Keeps a backend's producer, so that only the first call pays for
 *		connecting.
 */
#include "session.h"

#include "settings.h"
#include "utils/memutils.h"

static SpineClient *client = NULL;
static char *client_settings = NULL;	/* what it was started with */

SpineClient *
spine_session_client(void)
{
	char	   *settings = psprintf("%s %s", spine_await_broker_address(), spine_kafka_options);

	if (client && strcmp(settings, client_settings) != 0)
		spine_session_close();

	if (client == NULL)
	{
		client = spine_client_create(SPINE_PRODUCER, NULL, 0);
		client_settings = MemoryContextStrdup(client->context, settings);
	}
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

/*
 * client.c
 *		Starts and destroys librdkafka clients, and lets their owners wait for them.
 *
 * The manners, which the rest of the extension relies on:
 *	- every signal is blocked while the library makes its threads, so that
 *	  PostgreSQL's handlers only ever run on the main thread;
 *	- log.queue brings even the log to the owner's poll, so that no callback
 *	  runs on a thread of the library;
 *	- inside a callback nothing may ereport(ERROR): a longjmp would cross the
 *	  library's frames.  Callbacks only take notes.
 */
#include "kafka/library.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

static SpineClient *live_clients = NULL;
static bool exit_callback_registered = false;

SpineErrorClass
spine_client_classify(rd_kafka_resp_err_t code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return SPINE_NO_ERROR;
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return SPINE_STRUCTURAL;
		default:
			return SPINE_TRANSIENT;
	}
}

void
spine_client_note_error(SpineClient *client, rd_kafka_resp_err_t code, const char *reason)
{
	const char *name = rd_kafka_err2str(code);
	const char *end;

	if (reason == NULL)
		reason = name;
	else if (strstr(reason, "sasl.oauthbearer.config"))
		reason = "sasl.oauthbearer.config cannot be read";	/* the library would quote a part of it */
	if (strcmp(reason, name) == 0 && client->error.class != SPINE_NO_ERROR)
		return;

	/* " (after 3ms in state CONNECT, ...)" would make news of it each time */
	end = strstr(reason, " (after ");
	spine_error_set(&client->error, spine_client_classify(code), "the broker does not answer: %.*s",
					end ? (int) (end - reason) : (int) strlen(reason), reason);
	if (code == RD_KAFKA_RESP_ERR__SSL)
		spine_error_set_hint(&client->error,
							 "Its certificate must be valid today, for its name, and signed by an authority of ssl.ca.location.");
	else if (client->error.class == SPINE_STRUCTURAL && client->server_name)
		spine_error_set_hint(&client->error, "Check the user mapping for server \"%s\", and what the user may do there.",
							 client->server_name);
}

/* Runs in the owner's poll. */
static void
note_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
	spine_client_note_error(opaque, code, reason);
}

/*
 * The library has a new connection to a broker: "...: host:port/ID: Connected (#n)".
 * The brokers of bootstrap.servers have no ID yet; nothing is fetched from them.
 */
static void
note_connection(SpineClient *client, const char *message)
{
	const char *end = strstr(message, ": Connected (");
	const char *id = end;

	while (id && id > message && isdigit((unsigned char) id[-1]))
		id--;
	if (id && id > message && id < end && id[-1] == '/')
		client->connections[strtoul(id, NULL, 10) % SPINE_CONNECTION_SLOTS]++;
}

/*
 * Runs in the owner's poll.  Errors come through note_error as well, with a
 * code.  The rest is of use only when debugging the library.
 */
static void
note_log(const rd_kafka_t *rk, int level, const char *facility, const char *message)
{
	if (strcmp(facility, "CONNECTED") == 0)
		note_connection(rd_kafka_opaque(rk), message);
	if (log_min_messages <= DEBUG1)
		write_stderr("spine: librdkafka: %s: %s\n", facility, message);
}

static void
release_reports(SpineClient *client)
{
	if (client->reports)
		rd_kafka_event_destroy(client->reports);
	client->reports = NULL;
}

/* Memory context callback: everything of a client that palloc does not know. */
static void
release_client(void *arg)
{
	SpineClient *client = arg;

	for (SpineClient **link = &live_clients; *link; link = &(*link)->next)
	{
		if (*link == client)
		{
			*link = client->next;
			break;
		}
	}
	if (client->before_release)
		client->before_release(client->owner);
	release_reports(client);
	if (client->queue)
	{
		rd_kafka_queue_io_event_enable(client->queue, -1, NULL, 0);
		rd_kafka_queue_destroy(client->queue);
	}
	if (client->topic)
		rd_kafka_topic_destroy(client->topic);
	if (client->rk)
		rd_kafka_destroy_flags(client->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	if (client->wake_fd >= 0)
	{
		close(client->wake_fd);
		close(client->wake_write_fd);
		ReleaseExternalFD();
		ReleaseExternalFD();
	}
}

/* The library's threads must be gone before the process runs its atexit. */
static void
destroy_all_clients(int code, Datum arg)
{
	while (live_clients)
		spine_client_destroy(live_clients);
}

/* An empty client, whose release is registered before there is anything to release. */
static SpineClient *
allocate_client(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "spine client",
												  ALLOCSET_SMALL_SIZES);
	MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(*callback));
	SpineClient *client = MemoryContextAllocZero(context, sizeof(*client));

	if (!exit_callback_registered)
	{
		before_shmem_exit(destroy_all_clients, 0);
		exit_callback_registered = true;
	}
	client->context = context;
	client->wake_fd = -1;
	client->next = live_clients;
	live_clients = client;
	callback->func = release_client;
	callback->arg = client;
	MemoryContextRegisterResetCallback(context, callback);
	return client;
}

/* The threads start here.  Frees conf either way. */
static void
start_client(SpineClient *client, SpineClientKind kind, rd_kafka_conf_t *conf)
{
	sigset_t	all;
	sigset_t	old_mask;
	char		errstr[256];

	rd_kafka_conf_set_opaque(conf, client);
	rd_kafka_conf_set_log_cb(conf, note_log);
	rd_kafka_conf_set_error_cb(conf, note_error);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old_mask);
	client->rk = rd_kafka_new(kind == SPINE_CONSUMER ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER,
							  conf, errstr, sizeof(errstr));
	pthread_sigmask(SIG_SETMASK, &old_mask, NULL);
	if (client->rk == NULL)
	{
		char	   *server_name = client->server_name ? pstrdup(client->server_name) : NULL;

		rd_kafka_conf_destroy(conf);
		spine_client_destroy(client);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not start a Kafka client: %s", errstr),
				 server_name ? errhint("Check the options of server \"%s\" and of its user mapping.", server_name) :
				 errhint("Check \"spine.brokers\" and \"spine.kafka_options\".")));
	}

	rd_kafka_set_log_queue(client->rk, NULL);
	if (kind == SPINE_CONSUMER)
	{
		rd_kafka_poll_set_consumer(client->rk);
		client->queue = rd_kafka_queue_get_consumer(client->rk);
	}
	else
		client->queue = rd_kafka_queue_get_main(client->rk);
	rd_kafka_queue_io_event_enable(client->queue, client->wake_write_fd, "", 1);
}

SpineClient *
spine_client_create(SpineClientKind kind, const SpineCluster *cluster, const char *group_id,
					const SpinePrefetch *prefetch)
{
	rd_kafka_conf_t *conf;
	SpineClient *client;
	int			fds[2];

	Assert(cluster->address != NULL);

	/* what may raise an error comes before what would have to be undone */
	conf = spine_configuration_make(kind, cluster, group_id, prefetch);
	client = allocate_client();
	client->embedded = cluster->embedded;
	if (cluster->server_name)
		client->server_name = MemoryContextStrdup(client->context, cluster->server_name);
	strlcpy(client->cluster_id, cluster->identity, sizeof(client->cluster_id));

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
	{
		rd_kafka_conf_destroy(conf);
		spine_client_destroy(client);
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not create a pipe: %m")));
	}
	client->wake_fd = fds[0];
	client->wake_write_fd = fds[1];
	ReserveExternalFD();
	ReserveExternalFD();

	start_client(client, kind, conf);
	return client;
}

void
spine_client_destroy(SpineClient *client)
{
	if (client)
		MemoryContextDelete(client->context);
}

bool
spine_client_is_embedded(const SpineClient *client)
{
	return client->embedded;
}

const char *
spine_client_identity(const SpineClient *client)
{
	return client->cluster_id;
}

const SpineError *
spine_client_error(const SpineClient *client)
{
	return &client->error;
}

void
spine_client_forget_error(SpineClient *client)
{
	memset(&client->error, 0, sizeof(client->error));
}

char *
spine_client_advice(const SpineClient *client)
{
	if (client->error.hint[0])
		return pstrdup(client->error.hint);
	if (client->server_name)
		return psprintf("Check the options of server \"%s\", and that the broker is up.", client->server_name);
	return pstrdup("Check \"spine.brokers\", and that the broker is up.");
}

void
spine_client_raise_error(const SpineClient *client)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg_internal("%s", client->error.message),
			 errhint("%s", spine_client_advice(client))));
}

bool
spine_client_rest(SpineClient *client)
{
	char		mechanism[32];
	size_t		size = sizeof(mechanism);
	rd_kafka_queue_t *nowhere;
	rd_kafka_event_t *event;

	if (rd_kafka_conf_get(rd_kafka_conf(client->rk), "sasl.mechanisms", mechanism, &size) == RD_KAFKA_CONF_OK &&
		strcmp(mechanism, "OAUTHBEARER") == 0)
		return false;

	release_reports(client);
	while ((event = rd_kafka_queue_poll(client->queue, 0)) != NULL)
		rd_kafka_event_destroy(event);

	/* a queue that is destroyed takes nothing, and destroys what is sent to it */
	nowhere = rd_kafka_queue_new(client->rk);
	rd_kafka_queue_forward(client->queue, nowhere);
	rd_kafka_queue_destroy(nowhere);
	return true;
}

void
spine_client_wake(SpineClient *client)
{
	rd_kafka_queue_forward(client->queue, NULL);
}

uint64
spine_client_connection(const SpineClient *client, const rd_kafka_message_t *message)
{
	uint32		broker = rd_kafka_message_broker_id(message);

	/* never 0 */
	return (uint64) broker << 32 | (client->connections[broker % SPINE_CONNECTION_SLOTS] + 1);
}

void
spine_client_drain_wakeups(SpineClient *client)
{
	char		buf[256];

	while (read(client->wake_fd, buf, sizeof(buf)) > 0)
		;
}

void
spine_client_watch(SpineClient *client, rd_kafka_queue_t *queue)
{
	rd_kafka_queue_io_event_enable(queue, client->wake_write_fd, "", 1);
}

void
spine_client_wait(SpineClient *client, long timeout_ms)
{
	int			events = WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	events = WaitLatchOrSocket(MyLatch, events, client->wake_fd, timeout_ms,
							   PG_WAIT_EXTENSION);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
}

/*
 * configuration.c
 *		The configuration that a client is started with: what suits spine, then what
 *		the cluster's options say, then what the promises need.
 */
#include "kafka/library.h"

/*
 * SPINE_PREFETCH_KB is not a limit of each partition.  The library holds it against
 * the queue that all partitions lead to, and asks no broker for more while the queue
 * exceeds it.  Divided by the number of partitions, it starved most of them.
 *
 * Once the limit is exceeded, the library does not look again for FETCH_BACKOFF_MS;
 * before librdkafka 2.2, which does not have that option, for a second.  So a worker
 * that applies more than the limit in a second would wait there.
 */
#define FETCH_BACKOFF_MS		"20"

/*
 * One answer of a broker, by which the limit may be exceeded.  Its size is that of
 * the records as they were sent, compressed.  Each partition has an equal share of it.
 * Of the partitions whose next batch is larger than their share, an answer brings only
 * one.
 */
#define FETCH_BYTES				(8 * 1024 * 1024)
#define MIN_FETCH_SHARE_BYTES	(64 * 1024)
#define MAX_FETCH_SHARE_BYTES	(1024 * 1024)

/* How long a fetch waits at the broker, which answers as soon as there is a record. */
#define FETCH_WAIT_MS			"500"

/*
 * A partition that its broker does not know is asked for again this soon.  If it was
 * deleted, made again, and filled beyond our position before we ask, nothing would
 * tell the new partition from the old one until the next assignment.
 */
#define FETCH_RETRY_MS			"20"

/*
 * A host that has gone away says nothing: packets to it are lost, and nobody refuses
 * them.  A broker that comes back with another address is found once the attempt to
 * reach the old one is given up (the library's own limit is 30 s).  A connection that
 * stood is given up when a request has had no whole answer for as long as the second
 * limit says (the library's is 60 s).  It must be long enough for the largest answer,
 * FETCH_BYTES, over a slow line.
 */
#define CONNECT_TIMEOUT_MS		"5000"
#define REQUEST_TIMEOUT_MS		"20000"

static void
set_option(rd_kafka_conf_t *conf, const char *key, const char *value)
{
	char		errstr[256];

	if (rd_kafka_conf_set(conf, key, value, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not set option \"%s\" of the Kafka client: %s", key, errstr)));
	}
}

static void
set_number(rd_kafka_conf_t *conf, const char *key, int value)
{
	char		text[16];

	snprintf(text, sizeof(text), "%d", value);
	set_option(conf, key, text);
}

/* An option that some builds or versions of the library do not have. */
static void
set_if_known(rd_kafka_conf_t *conf, const char *key, const char *value)
{
	char		errstr[256];

	(void) rd_kafka_conf_set(conf, key, value, errstr, sizeof(errstr));
}

/* What suits a consumer; the user's options may say otherwise. */
static void
set_consumer_defaults(rd_kafka_conf_t *conf, const char *group_id, const SpinePrefetch *prefetch)
{
	int			share = FETCH_BYTES / Max(prefetch->partitions, 1);

	set_number(conf, "queued.max.messages.kbytes", SPINE_PREFETCH_KB);
	set_number(conf, "queued.min.messages", prefetch->records);
	set_if_known(conf, "fetch.queue.backoff.ms", FETCH_BACKOFF_MS);
	set_number(conf, "fetch.max.bytes", FETCH_BYTES);
	set_number(conf, "fetch.message.max.bytes",
			   Min(Max(share, MIN_FETCH_SHARE_BYTES), MAX_FETCH_SHARE_BYTES));
	set_option(conf, "fetch.wait.max.ms", FETCH_WAIT_MS);
	set_option(conf, "fetch.error.backoff.ms", FETCH_RETRY_MS);
	set_option(conf, "group.id", group_id);
}

static void
set_producer_defaults(rd_kafka_conf_t *conf)
{
	/* the partitioner of the Java clients: a key goes where theirs goes */
	set_option(conf, "partitioner", "murmur2_random");
	set_option(conf, "compression.type", "lz4");
	set_option(conf, "message.timeout.ms", "10000");
	set_option(conf, "linger.ms", "2");
}

/* What the promises need, whatever the user's options say. */
static void
set_fixed_options(rd_kafka_conf_t *conf, SpineClientKind kind, const SpineCluster *cluster)
{
	set_option(conf, "bootstrap.servers", cluster->address);
	set_option(conf, "log.queue", "true");

	/* kinit would be run by a shell; a library without Kerberos has no such option */
	set_if_known(conf, "sasl.kerberos.min.time.before.relogin", "0");
	if (kind == SPINE_CONSUMER)
	{
		set_option(conf, "enable.auto.commit", "false");
		set_option(conf, "enable.auto.offset.store", "false");
		set_option(conf, "enable.partition.eof", "true");
		set_option(conf, "auto.offset.reset", "error");
		set_option(conf, "debug", "broker");	/* tells of each connection; the user's are kept */
	}
	else
	{
		set_option(conf, "enable.idempotence", "true");
		rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
	}
}

rd_kafka_conf_t *
spine_configuration_make(SpineClientKind kind, const SpineCluster *cluster,
						 const char *group_id, const SpinePrefetch *prefetch)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		reason[256];

	set_option(conf, "client.id", "spine");
	set_option(conf, "reconnect.backoff.max.ms", "2000");
	set_if_known(conf, "socket.connection.setup.timeout.ms", CONNECT_TIMEOUT_MS);
	set_option(conf, "socket.timeout.ms", REQUEST_TIMEOUT_MS);
	set_option(conf, "socket.nagle.disable", "true");
	if (kind == SPINE_CONSUMER)
		set_consumer_defaults(conf, group_id, prefetch);
	else
		set_producer_defaults(conf);

	if (!spine_kafka_options_apply(cluster->options, conf, reason, sizeof(reason)))
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 cluster->server_name ? errmsg("invalid options of server \"%s\"", cluster->server_name) :
				 errmsg("invalid value for parameter \"%s\"", "spine.kafka_options"),
				 errdetail("%s", reason)));
	}
	set_fixed_options(conf, kind, cluster);
	return conf;
}

/*
 * option_list.c
 *		key=value pairs, separated by white space or commas.  A value that contains
 *		those is put in single quotes; '' stands for a quote in it.
 *
 * Only the options that are allowed here can be set.  All other options of
 * librdkafka are listed too, with the reason why they are refused.  test_option_list.c
 * compares both lists with what the installed version knows, tools/lint.sh with
 * docs/CONFIGURATION.md.
 */
#include "kafka/option_list.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define LENGTH(array)	((int) (sizeof(array) / sizeof((array)[0])))

static const char *const allowed_options[] = {
	"api.version.request.timeout.ms",
	"batch.num.messages",
	"batch.size",
	"broker.address.family",
	"broker.address.ttl",
	"check.crcs",
	"client.dns.lookup",
	"client.id",
	"client.rack",
	"compression.codec",
	"compression.level",
	"compression.type",
	"connections.max.idle.ms",
	"coordinator.query.interval.ms",
	"debug",
	"delivery.timeout.ms",
	"enable.metrics.push",
	"enable.sasl.oauthbearer.unsecure.jwt",
	"enable.ssl.certificate.verification",
	"fetch.error.backoff.ms",
	"fetch.max.bytes",
	"fetch.message.max.bytes",
	"fetch.min.bytes",
	"fetch.queue.backoff.ms",
	"fetch.wait.max.ms",
	"group.id",
	"https.ca.location",
	"https.ca.pem",
	"linger.ms",
	"log.connection.close",
	"log.thread.name",
	"log_level",
	"max.partition.fetch.bytes",
	"message.copy.max.bytes",
	"message.max.bytes",
	"message.timeout.ms",
	"metadata.max.age.ms",
	"metadata.recovery.rebootstrap.trigger.ms",
	"metadata.recovery.strategy",
	"partitioner",
	"queue.buffering.backpressure.threshold",
	"queue.buffering.max.kbytes",
	"queue.buffering.max.messages",
	"queue.buffering.max.ms",
	"queued.max.messages.kbytes",
	"queued.min.messages",
	"receive.message.max.bytes",
	"reconnect.backoff.max.ms",
	"reconnect.backoff.ms",
	"request.timeout.ms",
	"retry.backoff.max.ms",
	"retry.backoff.ms",
	"sasl.kerberos.service.name",
	"sasl.mechanism",
	"sasl.mechanisms",
	"sasl.oauthbearer.assertion.algorithm",
	"sasl.oauthbearer.assertion.claim.aud",
	"sasl.oauthbearer.assertion.claim.exp.seconds",
	"sasl.oauthbearer.assertion.claim.iss",
	"sasl.oauthbearer.assertion.claim.jti.include",
	"sasl.oauthbearer.assertion.claim.nbf.seconds",
	"sasl.oauthbearer.assertion.claim.sub",
	"sasl.oauthbearer.assertion.file",
	"sasl.oauthbearer.assertion.jwt.template.file",
	"sasl.oauthbearer.assertion.private.key.file",
	"sasl.oauthbearer.assertion.private.key.passphrase",
	"sasl.oauthbearer.assertion.private.key.pem",
	"sasl.oauthbearer.client.credentials.client.id",
	"sasl.oauthbearer.client.credentials.client.secret",
	"sasl.oauthbearer.client.id",
	"sasl.oauthbearer.client.secret",
	"sasl.oauthbearer.config",
	"sasl.oauthbearer.extensions",
	"sasl.oauthbearer.grant.type",
	"sasl.oauthbearer.metadata.authentication.type",
	"sasl.oauthbearer.method",
	"sasl.oauthbearer.scope",
	"sasl.oauthbearer.sub.claim.name",
	"sasl.oauthbearer.token.endpoint.url",
	"sasl.password",
	"sasl.username",
	"security.protocol",
	"socket.connection.setup.timeout.ms",
	"socket.keepalive.enable",
	"socket.nagle.disable",
	"socket.receive.buffer.bytes",
	"socket.send.buffer.bytes",
	"socket.timeout.ms",
	"ssl.ca.location",
	"ssl.ca.pem",
	"ssl.certificate.location",
	"ssl.certificate.pem",
	"ssl.cipher.suites",
	"ssl.crl.location",
	"ssl.curves.list",
	"ssl.endpoint.identification.algorithm",
	"ssl.key.location",
	"ssl.key.password",
	"ssl.key.pem",
	"ssl.keystore.location",
	"ssl.keystore.password",
	"ssl.sigalgs.list",
	"sticky.partitioning.linger.ms",
	"topic.metadata.propagation.max.ms",
	"topic.metadata.refresh.fast.interval.ms",
	"topic.metadata.refresh.interval.ms",
	"topic.metadata.refresh.sparse",
};

#define BROKERS		"the setting spine.brokers says where the brokers are"
#define SET			"spine sets it itself, because its promises depend on it"
#define IDEMPOTENT	"spine's producers are idempotent, which fixes its value"
#define WEAKENS		"it would break a promise that spine makes"
#define UNREAD		"nobody would read its reports, and they would pile up"
#define OLD			"it would make librdkafka speak a protocol without headers and times of records"
#define CODE		"it would run foreign code in the server"
#define SHELL		"librdkafka would run kinit in the server, through a shell; keep a ticket in the cache of the server's user instead"
#define SIGNALS		"it would replace one of the server's signal handlers"
#define FUNCTION	"it takes a function or an object of a program, not text"
#define GROUP		"spine assigns partitions itself and joins no group"
#define UNUSED		"spine does not use the feature that it is for"
#define OBSOLETE	"librdkafka does not use it any more"
#define INTERNAL	"it is for librdkafka's own tests"

static const struct
{
	const char *name;
	const char *reason;
}			refused_options[] = {
	{"acks", IDEMPOTENT},
	{"allow.auto.create.topics", WEAKENS},
	{"api.version.fallback.ms", OLD},
	{"api.version.request", OLD},
	{"auto.commit.enable", SET},
	{"auto.commit.interval.ms", UNUSED},
	{"auto.offset.reset", SET},
	{"background_event_cb", FUNCTION},
	{"bootstrap.servers", BROKERS},
	{"broker.version.fallback", OLD},
	{"builtin.features", UNUSED},
	{"client.software.name", INTERNAL},
	{"client.software.version", INTERNAL},
	{"closesocket_cb", FUNCTION},
	{"connect_cb", FUNCTION},
	{"consume.callback.max.messages", UNUSED},
	{"consume_cb", FUNCTION},
	{"default_topic_conf", FUNCTION},
	{"delivery.report.only.error", SET},
	{"dr_cb", FUNCTION},
	{"dr_msg_cb", FUNCTION},
	{"enable.auto.commit", SET},
	{"enable.auto.offset.store", SET},
	{"enable.gapless.guarantee", WEAKENS},
	{"enable.idempotence", SET},
	{"enable.partition.eof", SET},
	{"enable.random.seed", UNUSED},
	{"enable.sparse.connections", INTERNAL},
	{"enable_sasl_queue", FUNCTION},
	{"enabled_events", SET},
	{"error_cb", FUNCTION},
	{"group.instance.id", GROUP},
	{"group.protocol", GROUP},
	{"group.protocol.type", GROUP},
	{"group.remote.assignor", GROUP},
	{"heartbeat.interval.ms", GROUP},
	{"interceptors", FUNCTION},
	{"internal.termination.signal", SIGNALS},
	{"isolation.level", WEAKENS},
	{"log.queue", SET},
	{"log_cb", FUNCTION},
	{"max.in.flight", IDEMPOTENT},
	{"max.in.flight.requests.per.connection", IDEMPOTENT},
	{"max.poll.interval.ms", GROUP},
	{"max.poll.records", GROUP},
	{"message.send.max.retries", IDEMPOTENT},
	{"metadata.broker.list", BROKERS},
	{"metadata.request.timeout.ms", INTERNAL},
	{"msg_order_cmp", FUNCTION},
	{"oauthbearer_token_refresh_cb", FUNCTION},
	{"offset.store.method", OBSOLETE},
	{"offset.store.path", OBSOLETE},
	{"offset.store.sync.interval.ms", OBSOLETE},
	{"offset_commit_cb", FUNCTION},
	{"opaque", FUNCTION},
	{"open_cb", FUNCTION},
	{"partition.assignment.strategy", GROUP},
	{"partitioner_cb", FUNCTION},
	{"plugin.library.paths", CODE},
	{"produce.offset.report", OBSOLETE},
	{"queuing.strategy", IDEMPOTENT},
	{"rebalance_cb", FUNCTION},
	{"reconnect.backoff.jitter.ms", OBSOLETE},
	{"request.required.acks", IDEMPOTENT},
	{"resolve_cb", FUNCTION},
	{"retries", IDEMPOTENT},
	{"sasl.kerberos.keytab", SHELL},
	{"sasl.kerberos.kinit.cmd", SHELL},
	{"sasl.kerberos.min.time.before.relogin", SHELL},
	{"sasl.kerberos.principal", SHELL},
	{"session.timeout.ms", GROUP},
	{"share.acknowledgement.mode", GROUP},
	{"socket.blocking.max.ms", OBSOLETE},
	{"socket.max.fails", WEAKENS},
	{"socket_cb", FUNCTION},
	{"ssl.ca.certificate.stores", UNUSED},
	{"ssl.certificate.verify_cb", FUNCTION},
	{"ssl.engine.id", CODE},
	{"ssl.engine.location", CODE},
	{"ssl.providers", CODE},
	{"ssl_ca", FUNCTION},
	{"ssl_certificate", FUNCTION},
	{"ssl_engine_callback_data", FUNCTION},
	{"ssl_key", FUNCTION},
	{"statistics.interval.ms", UNREAD},
	{"stats_cb", FUNCTION},
	{"test.mock.broker.rtt", INTERNAL},
	{"test.mock.num.brokers", INTERNAL},
	{"throttle_cb", FUNCTION},
	{"topic.blacklist", UNUSED},
	{"topic.metadata.refresh.fast.cnt", OBSOLETE},
	{"transaction.timeout.ms", UNUSED},
	{"transactional.id", SET},
	{"ut_handle_ProduceResponse", INTERNAL},
};

bool
spine_option_list_allows(const char *name, const char **reason)
{
	*reason = NULL;
	for (int i = 0; i < LENGTH(refused_options); i++)
	{
		if (strcmp(name, refused_options[i].name) == 0)
			*reason = refused_options[i].reason;
	}
	for (int i = 0; i < LENGTH(allowed_options) && *reason == NULL; i++)
	{
		if (strcmp(name, allowed_options[i]) == 0)
			return true;
	}
	return false;
}

const char *
spine_option_list_name(int i)
{
	return i < LENGTH(allowed_options) ? allowed_options[i] : NULL;
}

static bool
has_ending(const char *name, const char *ending)
{
	size_t		len = strlen(name);
	size_t		ending_len = strlen(ending);

	return len >= ending_len && strcmp(name + len - ending_len, ending) == 0;
}

static bool
is_pem(const char *name)
{
	return has_ending(name, ".pem");
}

bool
spine_option_list_is_secret(const char *name)
{
	return has_ending(name, ".password") || has_ending(name, ".secret") || has_ending(name, ".passphrase") ||
		has_ending(name, "key.pem") || strcmp(name, "sasl.oauthbearer.config") == 0;
}

/* Certificates are not secret, but a key may be in the same text. */
static bool
holds_secret(const char *name)
{
	return is_pem(name) || spine_option_list_is_secret(name);
}

SpineOptionPlace
spine_option_list_place(const char *name)
{
	static const char *const of_login[] = {"sasl.oauthbearer.", "ssl.certificate.", "ssl.key.", "ssl.keystore."};

	/* librdkafka 2.0 crashes when it renews such a token */
	if (strcmp(name, "enable.sasl.oauthbearer.unsecure.jwt") == 0)
		return SPINE_OPTION_OF_NEITHER;
	if (spine_option_list_is_secret(name) || strcmp(name, "sasl.username") == 0)
		return SPINE_OPTION_OF_USER;
	for (int i = 0; i < LENGTH(of_login); i++)
	{
		if (strncmp(name, of_login[i], strlen(of_login[i])) == 0)
			return SPINE_OPTION_OF_EITHER;
	}
	return SPINE_OPTION_OF_SERVER;
}

bool
spine_option_list_names_file(const char *name)
{
	return has_ending(name, ".location") || has_ending(name, ".file");
}

static bool
is_separator(char c)
{
	return isspace((unsigned char) c) || c == ',';
}

/*
 * Refuses what stands where an option should.  After a secret, that may well be a piece
 * of the secret.
 */
static bool
refuse_name(SpineOptionList *list, const char *what)
{
	if (list->secret)
		snprintf(list->reason, sizeof(list->reason),
				 "%s follows option \"%.64s\"; a value with spaces or commas is put in single quotes.",
				 what, list->secret);
	else
		snprintf(list->reason, sizeof(list->reason), "%s: \"%.64s\".", what, list->key);
	return false;
}

/* Refuses values that librdkafka would take, but that are a mistake or worse. */
static bool
check_value(SpineOptionList *list)
{
	if (list->value[0] == '\0')
	{
		snprintf(list->reason, sizeof(list->reason), "Option \"%.64s\" has no value.", list->key);
		return false;
	}
	for (const char *c = list->value; *c && !is_pem(list->key); c++)
	{
		if (iscntrl((unsigned char) *c))
		{
			snprintf(list->reason, sizeof(list->reason),
					 "The value of option \"%.64s\" has a control character in it.", list->key);
			return false;
		}
	}
	return true;
}

void
spine_option_list_begin(SpineOptionList *list, char *copy)
{
	memset(list, 0, sizeof(*list));
	list->rest = copy;
}

/* Reads the value that begins at `in`, and removes its quotes in place. */
static bool
read_value(SpineOptionList *list, char *in)
{
	char	   *out = in;
	bool		closed = false;

	list->value = in;
	if (*in == '\'')
	{
		for (in++; *in != '\0'; in++)
		{
			if (*in == '\'' && *++in != '\'')
			{
				closed = true;
				break;
			}
			*out++ = *in;
		}
		if (!closed || (*in && !is_separator(*in)))
		{
			snprintf(list->reason, sizeof(list->reason), "The quotes of option \"%.64s\" do not match.", list->key);
			return false;
		}
	}
	else
	{
		while (*in && !is_separator(*in))
			in++;
		out = in;
	}
	if (*in)
		in++;
	*out = '\0';
	list->rest = in;
	return true;
}

bool
spine_option_list_next(SpineOptionList *list)
{
	const char *why_not;
	char	   *in = list->rest;

	if (list->key && holds_secret(list->key))
		list->secret = list->key;

	while (is_separator(*in))
		in++;
	if (*in == '\0')
		return false;

	list->key = in;
	while (*in && *in != '=' && !is_separator(*in))
		in++;
	if (*in != '=' || in == list->key)
	{
		*in = '\0';
		return refuse_name(list, "What is not key=value");
	}
	*in++ = '\0';

	if (!spine_option_list_allows(list->key, &why_not))
	{
		if (why_not == NULL)
			return refuse_name(list, "An option that spine does not know");
		snprintf(list->reason, sizeof(list->reason), "Option \"%.64s\" cannot be set here: %s.",
				 list->key, why_not);
		return false;
	}

	return read_value(list, in) && check_value(list);
}

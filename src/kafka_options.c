/*
 * kafka_options.c
 *		key=value pairs, separated by white space or commas, a value in single
 *		quotes where it contains those ('' stands for a quote).
 *
 * librdkafka itself knows every option and its range, so that a name with a
 * typo is an error at once.  Making a configuration starts no thread: this
 * may run in any process, the postmaster included.
 */
#include "kafka_options.h"

#include <ctype.h>

/*
 * Options that spine sets itself, or that a promise depends on, or that would
 * run foreign code in the server.
 */
static const char *const reserved_options[] = {
	"auto.offset.reset",
	"bootstrap.servers",
	"delivery.report.only.error",
	"enable.auto.commit",
	"enable.auto.offset.store",
	"enable.idempotence",
	"enable.partition.eof",
	"log.queue",
	"metadata.broker.list",
	"plugin.library.paths",
	"sasl.kerberos.kinit.cmd",
	"ssl.engine.location",
	"ssl.providers",
	"test.mock.num.brokers",
	"transactional.id",
};

static bool
is_separator(char c)
{
	return isspace((unsigned char) c) || c == ',';
}

/*
 * Cuts the next pair out of *cursor, in place.  Returns false at the end of
 * the list, and sets *reason to a non-empty string on a syntax error.
 */
static bool
next_pair(char **cursor, char **key, char **value, char *reason, size_t reason_size)
{
	char	   *in = *cursor;
	char	   *out;

	while (is_separator(*in))
		in++;
	if (*in == '\0')
		return false;

	*key = in;
	while (*in && *in != '=' && !is_separator(*in))
		in++;
	if (*in != '=' || in == *key)
	{
		*in = '\0';
		snprintf(reason, reason_size, "Expected key=value at \"%.64s\".", *key);
		return false;
	}
	*in++ = '\0';

	*value = out = in;
	if (*in == '\'')
	{
		bool		closed = false;

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
			snprintf(reason, reason_size, "The quotes of option \"%.64s\" do not match.", *key);
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
	*cursor = in;
	return true;
}

bool
spine_kafka_options_apply(const char *options, rd_kafka_conf_t *conf,
						  char *reason, size_t reason_size)
{
	char	   *copy = pstrdup(options);
	char	   *cursor = copy;
	char	   *key;
	char	   *value;

	reason[0] = '\0';
	while (next_pair(&cursor, &key, &value, reason, reason_size))
	{
		char		errstr[256];

		for (int i = 0; i < (int) lengthof(reserved_options); i++)
		{
			if (strcmp(key, reserved_options[i]) == 0)
				snprintf(reason, reason_size, "Option \"%s\" cannot be set here.", key);
		}
		if (reason[0])
			break;

		/* librdkafka's message may quote the value, which may be a secret */
		switch (rd_kafka_conf_set(conf, key, value, errstr, sizeof(errstr)))
		{
			case RD_KAFKA_CONF_UNKNOWN:
				snprintf(reason, reason_size, "librdkafka has no option \"%.64s\".", key);
				break;
			case RD_KAFKA_CONF_INVALID:
				snprintf(reason, reason_size, "librdkafka refuses the value of option \"%.64s\".", key);
				break;
			case RD_KAFKA_CONF_OK:
				break;
		}
		if (reason[0])
			break;
	}

	pfree(copy);
	return reason[0] == '\0';
}

bool
spine_kafka_options_check(const char *options, char *reason, size_t reason_size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool		ok = spine_kafka_options_apply(options, conf, reason, reason_size);

	rd_kafka_conf_destroy(conf);
	return ok;
}

/*
 * options.c
 *		Puts the options of a cluster into a configuration of librdkafka.
 *
 * The library itself knows the range of each option.
 */
#include "kafka/options.h"

#include "kafka/library.h"
#include "kafka/option_list.h"

bool
spine_kafka_options_apply(const char *options, rd_kafka_conf_t *conf,
						  char *reason, size_t reason_size)
{
	char	   *copy = pstrdup(options);
	SpineOptionList list;

	spine_option_list_begin(&list, copy);
	while (spine_option_list_next(&list))
	{
		char		errstr[256];

		/* librdkafka's message may quote the value, which may be a secret */
		switch (rd_kafka_conf_set(conf, list.key, list.value, errstr, sizeof(errstr)))
		{
			case RD_KAFKA_CONF_UNKNOWN:
				snprintf(list.reason, sizeof(list.reason), "librdkafka %s has no option \"%s\".",
						 rd_kafka_version_str(), list.key);
				break;
			case RD_KAFKA_CONF_INVALID:
				snprintf(list.reason, sizeof(list.reason), "librdkafka refuses the value of option \"%s\".", list.key);
				break;
			case RD_KAFKA_CONF_OK:
				break;
		}
		if (list.reason[0])
			break;
	}

	strlcpy(reason, list.reason, reason_size);
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

void
spine_kafka_options_add(StringInfo options, const char *name, const char *value)
{
	appendStringInfo(options, " %s='", name);
	for (const char *c = value; *c; c++)
	{
		if (*c == '\'')
			appendStringInfoChar(options, '\'');
		appendStringInfoChar(options, *c);
	}
	appendStringInfoChar(options, '\'');
}

char *
spine_kafka_options_value(const char *options, const char *name)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		reason[256];
	char	   *value = NULL;
	size_t		size;

	if (spine_kafka_options_apply(options, conf, reason, sizeof(reason)) &&
		rd_kafka_conf_get(conf, name, NULL, &size) == RD_KAFKA_CONF_OK)
	{
		value = palloc0(size + 1);
		(void) rd_kafka_conf_get(conf, name, value, &size);
	}
	rd_kafka_conf_destroy(conf);
	return value ? value : pstrdup("");
}

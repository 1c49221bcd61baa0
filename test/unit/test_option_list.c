/*
 * test_option_list.c
 *		spine.kafka_options is read as documented, contains only allowed options, and
 *		every option of the installed librdkafka is either allowed or refused.
 *
 * What would break this: a new librdkafka with an option that is in neither list, quotes
 * that end too soon or too late, or a secret, even a piece of one, in a reason.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <librdkafka/rdkafka.h>

#include "kafka/option_list.h"

/* "key=value|key=value", or "!" and the reason. */
static const char *
read_all(const char *text)
{
	static char answer[2000];
	char	   *copy = strdup(text);
	size_t		len = 0;
	SpineOptionList list;

	answer[0] = '\0';
	spine_option_list_begin(&list, copy);
	while (spine_option_list_next(&list))
		len += snprintf(answer + len, sizeof(answer) - len, "%s%s=%s", len ? "|" : "", list.key, list.value);
	if (list.reason[0])
		snprintf(answer, sizeof(answer), "!%s", list.reason);
	free(copy);
	return answer;
}

static void
assert_read(const char *text, const char *expected)
{
	assert_string_equal(read_all(text), expected);
}

static void
test_syntax(void **state)
{
	(void) state;
	assert_read("", "");
	assert_read(" ,\t\n, ", "");
	assert_read("client.id=a", "client.id=a");
	assert_read(",client.id=a,group.id=b, linger.ms=1\tdebug=all ", "client.id=a|group.id=b|linger.ms=1|debug=all");
	assert_read("client.id=a=b", "client.id=a=b");
	assert_read("client.id=a client.id=b", "client.id=a|client.id=b");
	assert_read("client.id='a, b=c'", "client.id=a, b=c");
	assert_read("client.id='it''s' group.id=b", "client.id=it's|group.id=b");
	assert_read("client.id=''''", "client.id='");
	assert_read("client.id='''a'''", "client.id='a'");
	assert_read("client.id=it's", "client.id=it's");
	assert_read("client.id=\\'a\\n", "client.id=\\'a\\n");
	assert_read("client.id=\xc3\xa9", "client.id=\xc3\xa9");
	assert_read("ssl.ca.pem='a\nb\n'", "ssl.ca.pem=a\nb\n");

	assert_read("client.id", "!What is not key=value: \"client.id\".");
	assert_read("=5", "!What is not key=value: \"\".");
	assert_read("linger.ms = 5", "!What is not key=value: \"linger.ms\".");
	assert_read("client.id='a", "!The quotes of option \"client.id\" do not match.");
	assert_read("client.id='a''", "!The quotes of option \"client.id\" do not match.");
	assert_read("client.id='a'b", "!The quotes of option \"client.id\" do not match.");
	assert_read("client.id='", "!The quotes of option \"client.id\" do not match.");
	assert_read("client.id=a group.id=''", "!Option \"group.id\" has no value.");
	assert_read("group.id=, client.id=a", "!Option \"group.id\" has no value.");
	assert_read("client.id='a\nb'", "!The value of option \"client.id\" has a control character in it.");
	assert_read("client.id=a\x7f", "!The value of option \"client.id\" has a control character in it.");
}

static void
test_refusals(void **state)
{
	(void) state;
	assert_read("client.id=a acks=0",
				"!Option \"acks\" cannot be set here: spine's producers are idempotent, which fixes its value.");
	assert_read("internal.termination.signal=15",
				"!Option \"internal.termination.signal\" cannot be set here: it would replace one of the server's signal handlers.");
	assert_read("sasl.kerberos.principal='$(id)'",
				"!Option \"sasl.kerberos.principal\" cannot be set here: librdkafka would run kinit in the server, through a shell; keep a ticket in the cache of the server's user instead.");
	assert_read("no.such.option=1", "!An option that spine does not know: \"no.such.option\".");
	assert_read("Client.Id=1", "!An option that spine does not know: \"Client.Id\".");
}

/* A reason repeats nothing of a secret, even if its quotes are missing or wrong. */
static void
test_secrets(void **state)
{
	static const char *const lists[] = {
		"sasl.password=hush hush",
		"sasl.password=hush hush=",
		"sasl.password=hush,hush=hush",
		"sasl.password=hush client.id=hush hush",
		"sasl.password='hush'hush",
		"sasl.password='hush",
		"sasl.password='hush\nhush'",
		"ssl.key.pem=hush hush",
		"sasl.oauthbearer.client.secret=hush hush=hush",
		"sasl.oauthbearer.config=principal=hush hush=hush",
		"sasl.oauthbearer.assertion.private.key.passphrase=hush hush",
	};

	(void) state;
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
	{
		const char *answer = read_all(lists[i]);

		if (answer[0] != '!' || strstr(answer, "hush"))
			fail_msg("%s: %s", lists[i], answer);
	}
	assert_read("sasl.password=it is secret",
				"!What is not key=value follows option \"sasl.password\"; a value with spaces or commas is put in single quotes.");
}

/* Where each option is set when CREATE SERVER declares the cluster. */
static void
test_places(void **state)
{
	static const char *const secrets[] = {
		"sasl.password", "ssl.key.pem", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.config",
		"sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret",
		"sasl.oauthbearer.assertion.private.key.pem", "sasl.oauthbearer.assertion.private.key.passphrase",
	};
	const char *name;
	int			nsecrets = 0;

	(void) state;
	for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++)
	{
		assert_true(spine_option_list_is_secret(secrets[i]));
		assert_int_equal(spine_option_list_place(secrets[i]), SPINE_OPTION_OF_USER);
	}
	for (int i = 0; (name = spine_option_list_name(i)) != NULL; i++)
	{
		nsecrets += spine_option_list_is_secret(name);
		if (strstr(name, "location") || strstr(name, ".file"))
			assert_true(spine_option_list_names_file(name));
	}
	assert_int_equal(nsecrets, sizeof(secrets) / sizeof(secrets[0]));
	assert_int_equal(spine_option_list_place("sasl.username"), SPINE_OPTION_OF_USER);
	assert_int_equal(spine_option_list_place("ssl.certificate.pem"), SPINE_OPTION_OF_EITHER);
	assert_int_equal(spine_option_list_place("ssl.ca.pem"), SPINE_OPTION_OF_SERVER);
	assert_int_equal(spine_option_list_place("security.protocol"), SPINE_OPTION_OF_SERVER);
	assert_int_equal(spine_option_list_place("enable.sasl.oauthbearer.unsecure.jwt"), SPINE_OPTION_OF_NEITHER);
	assert_false(spine_option_list_names_file("ssl.ca.pem"));
}

/* Is the option in one of the lists?  If not, counts it in *missing. */
static void
look_up(const char *name, int *missing)
{
	const char *reason;

	if (!spine_option_list_allows(name, &reason) && reason == NULL)
	{
		print_error("%s\n", name);
		(*missing)++;
	}
}

/* All options that librdkafka lists, and all that it dumps. */
static void
test_complete(void **state)
{
	FILE	   *file = tmpfile();
	char		line[4000];
	int			nshown = 0;
	int			missing = 0;
	size_t		n;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_conf_t *topic_conf = rd_kafka_topic_conf_new();
	const char **dump;

	(void) state;
	assert_non_null(file);
	rd_kafka_conf_properties_show(file);
	rewind(file);
	while (fgets(line, sizeof(line), file))
	{
		/* a name, blanks and a bar; in the table's head, the names of the columns */
		char	   *bar = strstr(line, " |");

		if (bar == NULL || strncmp(line, "Property ", 9) == 0)
			continue;
		line[strcspn(line, " ")] = '\0';
		look_up(line, &missing);
		nshown++;
	}
	fclose(file);
	assert_true(nshown >= 140);

	dump = rd_kafka_conf_dump(conf, &n);
	for (size_t i = 0; i < n; i += 2)
		look_up(dump[i], &missing);
	rd_kafka_conf_dump_free(dump, n);
	dump = rd_kafka_topic_conf_dump(topic_conf, &n);
	for (size_t i = 0; i < n; i += 2)
		look_up(dump[i], &missing);
	rd_kafka_conf_dump_free(dump, n);
	rd_kafka_conf_destroy(conf);
	rd_kafka_topic_conf_destroy(topic_conf);
	if (missing > 0)
		fail_msg("%d options of librdkafka %s are neither allowed nor refused", missing, rd_kafka_version_str());
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_syntax),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

# TLS and SASL: correct settings work.  Wrong settings stop the pipeline with a reason
# that a person can act on, and the pipeline continues by itself when they are fixed.  The
# password can be read nowhere.
#
# Broken when a certificate is not verified, when a reason is only "timed out", or when
# an error, a log line or a process title repeats the options.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

need_own_kafka();

my $kafka = start_kafka();
my $ca = "$kafka->{dir}/ca.pem";
my $password = $kafka->{KAFKA_PASSWORD};
my $wrong = "not$password";

topic($kafka, 'create', 'events', 1);
my $node = spine_node('main', conf => "include_if_exists 'kafka.conf'\n", extension => 0);

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Secrets are in a file that only the server can read, as docs/CONFIGURATION.md says.
sub connect_to
{
	my ($listener, $options) = @_;
	my $file = $node->data_dir . '/kafka.conf';

	unlink $file;
	append_to_file($file, "spine.brokers = '$kafka->{$listener}'\nspine.kafka_options = '$options'\n");
	$node->reload;
	return;
}

sub sasl
{
	my ($mechanism, $secret) = @_;

	return "security.protocol=sasl_ssl ssl.ca.location=$ca sasl.mechanism=$mechanism"
	  . " sasl.username=$kafka->{KAFKA_USER} sasl.password=$secret";
}

# Checks that the pipeline gets into this state, for this reason.
sub is_refused
{
	my ($what, $state, $reason, $listener, $options) = @_;

	query(q{UPDATE seen SET at = clock_timestamp()});
	connect_to($listener, $options);
	ok($node->poll_query_until('postgres', <<SQL), "$what: $state, with the reason")
SELECT count(*) > 0 FROM spine_status, seen
WHERE state = '$state' AND concat(last_error, ' HINT: ' || hint) ~ '$reason' AND last_error_at > seen.at
SQL
	  or diag query('SELECT state, last_error FROM spine_status');
	note query('SELECT state, last_error FROM spine_status LIMIT 1');
	return;
}

# A worker and a session reach the broker.
sub works
{
	my ($what) = @_;
	my $before = query('SELECT count(*) FROM events');

	ok(wait_for_state($node, 'running'), "$what: the pipeline runs");
	is(query(q{SELECT spine_produce('acme', 100)}), '100', "$what: spine_produce sends");
	ok(wait_applied($node), "$what: the events are applied");
	is(query('SELECT count(*) FROM events'), $before + 100, "$what: each event is there once");
	return;
}

connect_to('KAFKA_SSL', "security.protocol=ssl ssl.ca.location=$ca");
query('CREATE EXTENSION spine; CREATE TABLE seen AS SELECT clock_timestamp() AS at');
works('TLS');

is_refused('a certificate of an unknown CA', 'failed', 'certificate (could not be verified|verify failed)',
	'KAFKA_SSL', "security.protocol=ssl ssl.ca.location=$kafka->{dir}/other_ca.pem");
is_refused('an expired certificate', 'failed', 'certificate (could not be verified|verify failed).* HINT: Its certificate must be valid today',
	'KAFKA_EXPIRED', "security.protocol=ssl ssl.ca.location=$ca");
is_refused('TLS with a listener without TLS', 'failed', 'SSL handshake failed',
	'KAFKA_PLAINTEXT', "security.protocol=ssl ssl.ca.location=$ca");
is_refused('a file that does not exist', 'failed', 'could not start a Kafka client: .*ssl.ca.location',
	'KAFKA_SSL', 'security.protocol=ssl ssl.ca.location=/nowhere/ca.pem');
is_refused('no TLS with a listener that needs TLS', 'waiting', 'broker does not answer: .*SSL',
	'KAFKA_SSL', '');

connect_to('KAFKA_SASL_SSL', sasl('PLAIN', $password));
works('SASL PLAIN, after wrong settings');

is_refused('a wrong password', 'failed', 'uthentication failed',
	'KAFKA_SASL_SSL', sasl('PLAIN', $wrong));
my ($status, $out, $err) = $node->psql('postgres', q{SELECT spine_produce('acme', 1)});
like($err, qr/uthentication failed/, 'a wrong password: spine_produce says why');

connect_to('KAFKA_SASL_SSL', sasl('SCRAM-SHA-256', $password));
works('SASL SCRAM-SHA-256');
is_refused('a wrong password', 'failed', 'uthentication failed',
	'KAFKA_SASL_SSL', sasl('SCRAM-SHA-256', $wrong));
is_refused('an unknown mechanism', 'failed', 'could not start a Kafka client: .*SCRAM-SHA-999',
	'KAFKA_SASL_SSL', sasl('SCRAM-SHA-999', $password));

my $log_start = -s $node->logfile;
connect_to('KAFKA_SASL_SSL', sasl('PLAIN', $password) . ' sasl.pasword=x');
$node->wait_for_log(qr/An option that spine does not know follows option "sasl.password"/, $log_start);
pass('an unknown option is refused when the file is read');

connect_to('KAFKA_SASL_SSL', sasl('SCRAM-SHA-256', $password));
works('SCRAM again');

#
# Places where a password might be seen
#
sub processes
{
	# a process may end before it is read
	return join "\n", map { eval { slurp_file($_) } // '' } glob '/proc/[0-9]*/cmdline';
}

query('CREATE ROLE nobody_special LOGIN');
unlike(slurp_file($node->logfile), qr/\Q$password/, 'the server log has no password');
unlike(query('SELECT string_agg(s::text, chr(10)) FROM spine_status s'), qr/\Q$password/, 'spine_status has no password');
unlike(query('SELECT string_agg(a::text, chr(10)) FROM pg_stat_activity a'), qr/\Q$password/, 'pg_stat_activity has no password');
unlike(processes(), qr/\Q$password/, 'the list of processes has no password');
is(query(q{SET ROLE nobody_special; SELECT count(*) FROM pg_settings WHERE name = 'spine.kafka_options' OR setting LIKE '%sasl.password%'}), '0',
	'pg_settings shows no password to an unprivileged role');

$node->stop;
stop_kafka($kafka);
done_testing();

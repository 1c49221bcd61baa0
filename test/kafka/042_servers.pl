# Pipelines on two real Kafkas, which CREATE SERVER declares, one with TLS and SCRAM, one
# with TLS and PLAIN: each role logs in with the password of its own user mapping.  A
# password is changed while the pipeline runs, which takes effect at commit, and can be
# read nowhere.
#
# Broken when a worker or a session keeps an old password, uses that of another role or
# cluster, or when an error, a log line or a view repeats it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

need_own_kafka();

my %kafka = (east => start_kafka(), west => start_kafka());
my %mechanism = (east => 'SCRAM-SHA-256', west => 'PLAIN');
my $node = spine_node('main', conf => "log_statement = none\nlog_min_error_statement = panic\n");

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub comes_to_state
{
	my ($what, $server, $state, $reason) = @_;

	comes_to($node, $what, <<SQL);
SELECT bool_and(state = '$state' AND ('$reason' = '' OR concat(last_error, ' HINT: ' || hint) ~ '$reason'))
FROM spine_status WHERE pipeline = 'notes_$server'
SQL
	return;
}

sub worker_of
{
	my ($server) = @_;

	return query("SELECT max(worker_pid) FROM spine_status WHERE pipeline = 'notes_$server'");
}

sub send_note
{
	my ($server, $note) = @_;

	return query("SET ROLE ann; SELECT (spine_send('notes', 'k', jsonb_build_object('note', '$note'), server => '$server')).topic");
}

query('CREATE ROLE ann LOGIN; GRANT EXECUTE ON FUNCTION spine_send(text, text, jsonb, jsonb, integer, name) TO ann');
foreach my $server (qw(east west))
{
	my $kafka = $kafka{$server};

	topic($kafka, 'create', 'notes', 2);
	query(<<SQL);
CREATE SERVER $server FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers '$kafka->{KAFKA_SASL_SSL}',
	"security.protocol" 'SASL_SSL', "sasl.mechanism" '$mechanism{$server}', "ssl.ca.location" '$kafka->{dir}/ca.pem');
GRANT USAGE ON FOREIGN SERVER $server TO ann;
CREATE TABLE notes_$server (note text);
ALTER TABLE notes_$server OWNER TO ann;
INSERT INTO spine_pipelines (name, topic, owner, server) VALUES ('notes_$server', 'notes', 'ann', '$server');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('notes_$server', 'notes_$server', 'append');
SQL
	comes_to_state("$server, without a password: failed", $server, 'failed', 'a password is required');
	query("CREATE USER MAPPING FOR ann SERVER $server OPTIONS (user '$kafka->{KAFKA_USER}', password '$kafka->{KAFKA_PASSWORD}')");
	comes_to_state("$server, with a password: running", $server, 'running', '');
	is(send_note($server, $server), 'notes', "$server: spine_send with the same mapping");
}
ok(wait_applied($node), 'all is applied, on all clusters');
is(query("SELECT * FROM notes_$_"), $_, "$_: its record is in its table") foreach qw(east west);
is(query('SELECT count(DISTINCT cluster_id) FROM spine_offsets WHERE topic = $$notes$$'), '2', 'two clusters');

# The same login of the other cluster is a wrong one here.
foreach my $server (qw(east west))
{
	my $other = $kafka{ $server eq 'east' ? 'west' : 'east' };
	my $worker = worker_of($server);

	query("ALTER USER MAPPING FOR ann SERVER $server OPTIONS (SET password '$other->{KAFKA_PASSWORD}')");
	comes_to_state("$server, a wrong password while it runs: failed", $server, 'failed',
		qq{uthentication failed.* HINT: Check the user mapping for server "$server"});
	my ($status, $out, $err) = $node->psql('postgres',
		"SET ROLE ann; SELECT spine_send('notes', 'k', '1'::jsonb, server => '$server')");
	like($err, qr/could not send to topic "notes".*uthentication failed.*HINT:  Check the user mapping for server "$server"/s,
		"$server: spine_send says why");
	query("ALTER USER MAPPING FOR ann SERVER $server OPTIONS (SET password '$kafka{$server}->{KAFKA_PASSWORD}')");
	comes_to_state("$server, the right password: running", $server, 'running', '');
	is(send_note($server, 'again'), 'notes', "$server: and spine_send sends");
	is(worker_of($server), $worker, "$server: it is the same process");
}
ok(wait_applied($node), 'all is applied');
is(query("SELECT string_agg(note, ' ' ORDER BY note) FROM notes_$_"), join(' ', sort('again', $_)),
	"$_: each record is there once") foreach qw(east west);

query('CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; GRANT SELECT ON spine_status TO watcher');
foreach my $password (map { $_->{KAFKA_PASSWORD} } values %kafka)
{
	unlike(slurp_file($node->logfile), qr/\Q$password/, 'the server log has no password');
	unlike(query("SET ROLE watcher; SELECT string_agg(v::text, chr(10)) FROM $_ v"), qr/\Q$password/, "$_ has no password")
	  foreach qw(pg_stat_activity spine_status pg_foreign_server pg_user_mappings pg_settings);
}

$node->stop;
stop_kafka($_) foreach values %kafka;
done_testing();

# Pipelines on several clusters at once, which CREATE SERVER declares.  The server and the
# owner's user mapping are looked up at each connect: a change takes effect at commit, in a
# worker that runs, and so does a REVOKE.  A server that pipelines name is neither dropped
# nor renamed.  A password can be read nowhere.
#
# Broken when a worker keeps an old password or an old right, when it uses another role's
# mapping or the settings of another cluster, or when a dump does not restore.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $east = start_broker('events', 2);
my $west = start_broker('events', 3);
my $node = spine_node('main', conf => "log_statement = none\nlog_min_error_statement = panic\n");
my $secret = 'hush-hush-4711';

sub query
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'postgres', $sql);
}

# The statement fails with this SQLSTATE and a message like this.
sub is_refused
{
	my ($what, $sqlstate, $message, $sql, $database) = @_;
	my ($status, $out, $err) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$sql");

	like($err, qr/ERROR:  \Q$sqlstate\E: .*$message/s, $what);
	return;
}

# A pipeline that notes what it reads, in a table of its own that belongs to its owner.
sub make_notes
{
	my ($name, $owner, $server) = @_;

	query(<<SQL);
CREATE TABLE $name (note text, part int, at bigint);
ALTER TABLE $name OWNER TO $owner;
INSERT INTO spine_pipelines (name, topic, owner, server) VALUES ('$name', 'notes', '$owner', '$server');
INSERT INTO spine_sinks (pipeline, target, mode, columns)
VALUES ('$name', '$name', 'append', '{"note": "note", "part": "\$partition", "at": "\$offset"}');
SQL
	return;
}

sub comes_to_state
{
	my ($what, $pipeline, $state, $reason) = @_;

	comes_to($node, $what, <<SQL);
SELECT bool_and(state = '$state' AND ('$reason' = '' OR concat(last_error, ' HINT: ' || hint) ~ \$q\$$reason\$q\$))
FROM spine_status WHERE pipeline = '$pipeline'
SQL
	return;
}

sub worker_of
{
	my ($pipeline) = @_;

	return query("SELECT max(worker_pid) FROM spine_status WHERE pipeline = '$pipeline'");
}

# The threads of a worker's Kafka client.  A new client has new threads.
sub threads_of
{
	my ($pid) = @_;

	return join ' ', sort map { m{(\d+)/comm$} } grep { (eval { slurp_file($_) } // '') =~ /^rdk:main/ } glob "/proc/$pid/task/*/comm";
}

# Waits until the worker has another client than the one with these threads.
sub reconnects
{
	my ($what, $pid, $threads) = @_;
	my $now = '';

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$now = threads_of($pid);
		last if $now ne '' && $now ne $threads;
		Time::HiRes::usleep(100_000);
	}
	isnt($now, $threads, $what);
	return;
}

query(<<SQL);
CREATE ROLE ann LOGIN;
CREATE ROLE bob LOGIN;
CREATE SERVER east FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers '$east->{address}', "client.id" 'a ''quoted'', id');
CREATE SERVER west FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers '$west->{address}');
GRANT USAGE ON FOREIGN SERVER east, west TO ann;
CREATE USER MAPPING FOR ann SERVER east OPTIONS (user 'ann', password '$secret');
SQL

#
# Three clusters at once
#
make_notes('notes_east', 'ann', 'east');
make_notes('notes_west', 'ann', 'west');
comes_to_state("$_: the pipeline runs", $_, 'running', '') foreach qw(notes_east notes_west);

is(query(q{SELECT * FROM spine_send('notes', 'k', '{"note": "east"}', partition => 1, server => 'east')}),
	'notes|1|0', 'spine_send: where the record is');
query(q{SELECT spine_send('notes', 'k', jsonb_build_object('note', 'west'), '{"trace": "4711", "n": 5, "none": null}', 2, 'west')});
is(query(q{SELECT spine_produce('acme', 100)}), '100', 'spine_produce: to the embedded broker');
ok(wait_applied($node), 'all is applied, on all clusters');
is(query('SELECT * FROM notes_east'), 'east|1|0', 'a record of one cluster');
is(query('SELECT * FROM notes_west'), 'west|2|0', 'a record of the other');
is(query('SELECT count(*) FROM events'), '100', 'the embedded broker serves the pipeline that names no server');
is(query(q{SELECT count(DISTINCT cluster_id) FROM spine_offsets}), '3', 'positions belong to their clusters');

is(query(q{SELECT spine_produce('acme', 50, 'west')}), '50', 'spine_produce: to a server');
is(log_end($west->{address}, 'events', 3), 50, 'there they are');

#
# What spine_send sends
#
query($_) foreach (
	q{SELECT spine_send('sent', 'schlüssel', 'größe', NULL, 0, 'west')},
	q{SELECT spine_send('sent', NULL, NULL, NULL, 0, 'west')},
	q{SELECT spine_send('sent', '', '', NULL, 0, 'west')},
	q{SELECT spine_send('sent', '\x01ff'::bytea, '\x00fe'::bytea, '{"a": "b"}', 0, 'west')});
is(unpack('H*', read_log($west->{address}, 'sent', '%K %S %k %s %h\n')),
	unpack('H*', "10 7 schl\xc3\xbcssel gr\xc3\xb6\xc3\x9fe \n-1 -1   \n0 0   \n2 2 \x01\xff \x00\xfe a=b\n"),
	'texts, nulls, empty texts and bytes');
is(read_log($west->{address}, 'notes', '%h'), 'n=5,none=NULL,trace=4711', 'headers');
is_refused('headers are an object', '22023', 'headers must be a JSON object', q{SELECT spine_send('sent', 'k', 'v', '[1]')});
is_refused('a partition that is not there', '08006', 'could not send to topic "sent"',
	q{SELECT spine_send('sent', 'k', 'v', NULL, 99, 'west')});
is_refused('a negative partition', '22023', 'must not be negative', q{SELECT spine_send('sent', 'k', 'v', NULL, -1)});
is_refused('no right to send', '42501', 'permission denied for function', q{SET ROLE bob; SELECT spine_send('sent', 'k', 'v')});
query('GRANT EXECUTE ON FUNCTION spine_send(text, text, text, jsonb, integer, name) TO bob');
is_refused('no right to use the server', '42501', 'permission denied for foreign server west.*GRANT USAGE ON FOREIGN SERVER west TO bob',
	q{SET ROLE bob; SELECT spine_send('sent', 'k', 'v', NULL, 0, 'west')});

#
# Changes reach a worker that runs, at commit
#
my $worker = worker_of('notes_east');
my $threads = threads_of($worker);
query("ALTER USER MAPPING FOR ann SERVER east OPTIONS (SET password '$secret-2')");
reconnects('a new password: the worker connects again', $worker, $threads);
$threads = threads_of($worker);
query(q{ALTER SERVER east OPTIONS (ADD "socket.keepalive.enable" 'true')});
reconnects('a new option: the worker connects again', $worker, $threads);
query(q{SELECT spine_send('notes', 'k', '{"note": "again"}', partition => 0, server => 'east')});
ok(wait_applied($node), 'and goes on');
is(query('SELECT count(*) FROM notes_east'), '2', 'each record is there once');
is(worker_of('notes_east'), $worker, 'it is the same process');

query('REVOKE USAGE ON FOREIGN SERVER east FROM ann');
comes_to_state('USAGE is revoked: the pipeline fails, although nothing is sent to it', 'notes_east', 'failed',
	'permission denied for foreign server east.*HINT: GRANT USAGE ON FOREIGN SERVER east TO ann');
is(threads_of($worker), '', 'and the client is closed');
query(q{SELECT spine_send('notes', 'k', '{"note": "revoked"}', partition => 0, server => 'east')});	# as superuser
query('GRANT USAGE ON FOREIGN SERVER east TO ann');
comes_to_state('USAGE is granted: it runs', 'notes_east', 'running', '');
is(worker_of('notes_east'), $worker, 'in the same process');

#
# A login of the mapping's own
#
query(q{ALTER SERVER east OPTIONS (ADD "security.protocol" 'sasl_plaintext'); DROP USER MAPPING FOR ann SERVER east});
comes_to_state('no mapping: the pipeline fails', 'notes_east', 'failed',
	'a password is required to use server "east".*HINT: CREATE USER MAPPING FOR ann SERVER east');
query("CREATE USER MAPPING FOR PUBLIC SERVER east OPTIONS (user 'all', password '$secret')");
query(q{ALTER SERVER east OPTIONS (ADD "sasl.mechanism" 'GSSAPI')});
comes_to_state('Kerberos: a password is not a login', 'notes_east', 'failed', 'a password is required');
query(q{ALTER SERVER east OPTIONS (SET "sasl.mechanism" 'OAUTHBEARER')});
comes_to_state('OAuth: nor here', 'notes_east', 'failed', 'a password is required');
query(q{ALTER SERVER east OPTIONS (DROP "sasl.mechanism", DROP "security.protocol")});
comes_to_state('no login is asked for: it runs', 'notes_east', 'running', '');
is_refused('password_required=false is for superusers', '42501', 'for superusers only',
	q{GRANT USAGE ON FOREIGN SERVER west TO bob; SET ROLE bob; CREATE USER MAPPING FOR bob SERVER west OPTIONS (password_required 'false')});
is_refused('files are for those who may read them', '42501', 'pg_read_server_files',
	q{SET ROLE bob; CREATE USER MAPPING FOR bob SERVER west OPTIONS ("ssl.key.location" '/etc/passwd')});
query(q{GRANT pg_read_server_files TO bob;
	SET ROLE bob; CREATE USER MAPPING FOR bob SERVER west OPTIONS ("ssl.key.location" '/nowhere')});

#
# To another cluster
#
query(q{SELECT spine_pause('notes_west')});
query("ALTER SERVER west OPTIONS (SET brokers '$east->{address}')");
query(q{SELECT spine_resume('notes_west')});
comes_to_state('another cluster: the positions are not its own', 'notes_west', 'failed', 'belongs to cluster');
is(query(q{SELECT count(*) FROM spine_seek('notes_west', NULL, 'earliest')}) > 0, 1, 'spine_seek asks the server of the pipeline');
comes_to_state('it is read', 'notes_west', 'running', '');
ok(wait_applied($node), 'to its end');
is(query(q{SELECT string_agg(note, ' ' ORDER BY part, at) FROM notes_west}), 'again revoked east west', 'from its start');

query(q{SELECT spine_topic_offsets('notes', NULL, 'east')});
is_refused('nobody uses the mapping of another role', '42501', 'must have the privileges of role ann',
	q{GRANT EXECUTE ON FUNCTION spine_topic_offsets(text, timestamptz, name, regrole) TO bob;
	SET ROLE bob; SELECT spine_topic_offsets('notes', NULL, 'east', 'ann')});

#
# A server that is not there, or is of another kind
#
query('CREATE FOREIGN DATA WRAPPER other; CREATE SERVER other FOREIGN DATA WRAPPER other');
is_refused('spine_check_server: unknown', '42704', 'server "nowhere" does not exist', q{SELECT spine_check_server('nowhere', 'ann')});
is_refused('spine_check_server: of another wrapper', '42809', 'not a Kafka cluster', q{SELECT spine_check_server('other', 'ann')});
is_refused('spine_check_server: no right', '42501', 'permission denied for foreign server',
	q{REVOKE USAGE ON FOREIGN SERVER west FROM bob; SELECT spine_check_server('west', 'bob')});
is(query(q{SELECT spine_check_server('west', 'ann')}), '', 'spine_check_server: all is well');
make_notes('notes_north', 'ann', 'north');
comes_to_state('an unknown server: the pipeline fails', 'notes_north', 'failed',
	'server "north" does not exist.*HINT: Declare it: CREATE SERVER north');
query("CREATE SERVER north FOREIGN DATA WRAPPER spine_kafka; GRANT USAGE ON FOREIGN SERVER north TO ann");
comes_to_state('no brokers', 'notes_north', 'failed', 'server "north" has no brokers.*HINT: ALTER SERVER north');
query("ALTER SERVER north OPTIONS (ADD brokers '$east->{address}')");
comes_to_state('it is declared: it runs', 'notes_north', 'running', '');

#
# What pipelines use stays
#
is_refused('DROP SERVER', '2BP01', 'cannot drop server east .*Pipelines: notes_east', 'DROP SERVER east CASCADE');
is_refused('ALTER SERVER RENAME', '2BP01', 'cannot rename server east ', 'ALTER SERVER east RENAME TO orient');
query('ALTER SERVER north OWNER TO ann');
is_refused('DROP OWNED', '2BP01', 'cannot drop server north ', 'DROP OWNED BY ann CASCADE');
query(q{BEGIN; DROP SERVER IF EXISTS nowhere; SAVEPOINT a; DELETE FROM spine_pipelines WHERE name = 'notes_north';
	DROP SERVER north; ROLLBACK TO a; COMMIT});
is(query(q{SELECT count(*) FROM pg_foreign_server WHERE srvname = 'north'}), '1', 'what was rolled back is there');
query(q{DELETE FROM spine_pipelines WHERE name = 'notes_north'; ALTER SERVER north RENAME TO south; DROP SERVER south});
query('ALTER SERVER other RENAME TO another; DROP SERVER another');

# Who names a server, and who drops or renames it at the same time, wait for each other.
query("CREATE SERVER south FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers '$east->{address}')");
foreach my $change (['drop', 'DROP SERVER south'], ['rename', 'ALTER SERVER south RENAME TO north'])
{
	my ($verb, $statement) = @$change;
	my $creates = $node->background_psql('postgres', on_error_stop => 0);
	my $changes = $node->background_psql('postgres', on_error_stop => 0);
	my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'client backend'};

	$creates->query_safe(q{BEGIN; SELECT spine_create_pipeline('of_south', 'notes', server => 'south')});
	$changes->query_until(qr/waits/, "\\echo waits\n$statement;\n");
	comes_to($node, "$verb: waits", $waits);
	$creates->query_safe('COMMIT');
	$changes->query('SELECT 1');
	like($changes->{stderr}, qr/cannot $verb server south because/, "$verb: the pipeline was first");
	$changes->{stderr} = '';
	query(q{SELECT spine_drop_pipeline('of_south')});

	$changes->query_safe("BEGIN; $statement");
	$creates->query_until(qr/waits/, qq{\\echo waits\nSELECT spine_create_pipeline('of_south', 'notes', server => 'south');\n});
	comes_to($node, "$verb: is waited for", $waits);
	$changes->query_safe('COMMIT');
	$creates->query('SELECT 1');
	like($creates->{stderr}, qr/server "south" does not exist/, "$verb: the pipeline was second");
	$_->quit foreach ($creates, $changes);
	query("CREATE SERVER south FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers '$east->{address}')") if $verb eq 'drop';
}
query('DROP SERVER north');

#
# Dump and restore
#
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
my $catalog = q{SELECT (SELECT string_agg(s::text, ' ' ORDER BY s.name) FROM spine_pipelines s),
	(SELECT string_agg(concat(srvname, srvoptions, srvacl), ' ' ORDER BY srvname) FROM pg_foreign_server),
	(SELECT string_agg(concat(srvname, usename, ARRAY(SELECT unnest(umoptions) ORDER BY 1)), ' ' ORDER BY srvname, usename) FROM pg_user_mappings)};
query('CREATE DATABASE restored; ALTER DATABASE restored SET spine.enabled = off');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
$node->command_ok([ 'psql', '-q', '-X', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restore');
is(query($catalog, 'restored'), query($catalog), 'servers, mappings and pipelines are restored');
query('ALTER DATABASE restored RESET spine.enabled; SELECT pg_reload_conf()');
query(q{SELECT spine_send('notes', 'k', '{"note": "for both"}', partition => 1, server => 'east')});
ok(wait_applied($node, $_), "$_: caught up") foreach qw(restored postgres);
is(query('SELECT count(*) FROM notes_east', 'restored'), query('SELECT count(*) FROM notes_east'),
	'the restored pipelines go on');
query('DROP EXTENSION spine CASCADE', 'restored');
is(query('SELECT count(*) FROM pg_foreign_server', 'restored'), '0', 'DROP EXTENSION takes the servers along');

#
# Places where the password might be seen
#
query('CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; GRANT SELECT ON spine_status TO watcher');
foreach my $view (qw(pg_stat_activity spine_status pg_foreign_server pg_user_mappings spine_pipelines pg_settings))
{
	unlike(query("SET ROLE watcher; SELECT string_agg(v::text, chr(10)) FROM $view v"), qr/\Q$secret/, "$view has no password");
}
unlike(slurp_file($node->logfile), qr/\Q$secret/, 'the server log has no password');

$node->stop;
stop_broker($_) foreach ($east, $west);
done_testing();

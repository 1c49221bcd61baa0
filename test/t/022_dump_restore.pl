# A dump holds everything: rows, positions, dead letters, the user's pipelines, and the
# changes to the default one.  After it is restored into a fresh server, or beside the
# original, the two are the same, and consumption continues from the restored positions.
#
# Broken when a table is not dumped, when the default pipeline that CREATE EXTENSION
# makes conflicts with the restored one, when workers start before the restore is done,
# or when they read an event again or skip one.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('events', 3);
my $conf = "spine.brokers = '$broker->{address}'\n";
my $old = spine_node('old', conf => $conf);
my $dir = $old->basedir;
my $new = spine_node('new', conf => $conf, extension => 0);

# All contents of the extension's tables that a user can see.
sub contents
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, <<'SQL');
SELECT * FROM events ORDER BY kafka_partition, kafka_offset;
SELECT * FROM current_orders ORDER BY 1, 2;
SELECT * FROM spine_pipelines ORDER BY 1;
SELECT * FROM spine_sinks ORDER BY 1, 2::regclass::text;
SELECT * FROM spine_offsets ORDER BY 1, 2, 3;
SELECT * FROM spine_dead_letters ORDER BY 1;
SELECT last_value, is_called FROM spine_dead_letters_id_seq;
SELECT * FROM notes ORDER BY id;
SQL
}

# Restores as docs/OPERATIONS.md says: while no workers run.
sub restore
{
	my ($node, $database, $file) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET spine.enabled = off");
	if ($file =~ /\.sql$/)
	{
		$node->command_checks_all(
			[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', $file ],
			0, [], [qr/^$/], "restored from a script into $database");
	}
	else
	{
		$node->command_checks_all(
			[ 'pg_restore', '--exit-on-error', '-d', $node->connstr($database), $file ],
			0, [qr/^$/], [qr/^$/], "restored from an archive into $database");
	}
	return;
}

sub enable
{
	my ($node, $database) = @_;

	$node->safe_psql('postgres', "ALTER DATABASE $database RESET spine.enabled; SELECT pg_reload_conf()");
	return;
}

# Every record of both topics is one row or one dead letter.
sub audit
{
	my ($node, $database, $what) = @_;

	ok(wait_applied($node, $database), "$what: caught up");
	is($node->safe_psql($database, <<'SQL'), 't|t|t', "$what: every event is there once");
SELECT (SELECT sum(next_offset) FROM spine_offsets WHERE pipeline = 'orders')
		= (SELECT count(*) FROM events) + (SELECT count(*) FROM spine_dead_letters WHERE pipeline = 'orders'),
	   (SELECT count(*) = count(DISTINCT event_id) FROM events),
	   (SELECT sum(next_offset) FROM spine_offsets WHERE pipeline = 'notes') = (SELECT count(*) FROM notes)
SQL
	return;
}

#
# A database with some of everything; its default pipeline reads another topic
#
$old->safe_psql('postgres', <<'SQL');
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, note text, at bigint);
SQL
make_pipeline($old, name => 'notes', topic => 'notes', target => 'notes', mode => 'append',
	columns => '{"note": "text", "at": "$offset"}');
$old->safe_psql('postgres', q{UPDATE spine_pipelines SET topic = 'orders.v2' WHERE name = 'orders'});

sub send_events
{
	my ($n) = @_;

	$old->safe_psql('postgres', qq{SET spine.topic = 'orders.v2'; SELECT spine_produce('tenant $_', $n)}) for (1 .. 4);
	send_lines($broker->{address}, 'notes', undef, join('', map { qq(k$_\t{"text": "note $_"}\n) } 1 .. $n));
	return;
}

send_events(500);
send_values($broker->{address}, 'orders.v2', 1, [ "not JSON \x01\xff", '{"tenant": 5' ], 'trace=1');
audit($old, 'postgres', 'the original');
is($old->safe_psql('postgres', q{SELECT count(*) FROM spine_dead_letters}), '2', 'the original has dead letters');
$old->safe_psql('postgres', q{SELECT spine_pause('orders')});
my $original = contents($old, 'postgres');

$old->command_ok([ 'pg_dump', '-d', $old->connstr('postgres'), '-f', "$dir/dump.sql" ], 'pg_dump as a script');
$old->command_ok([ 'pg_dump', '-Fc', '-d', $old->connstr('postgres'), '-f', "$dir/dump.fc" ], 'pg_dump as an archive');

#
# Restored into a fresh server, and beside the original
#
restore($new, 'restored', "$dir/dump.sql");
is(contents($new, 'restored'), $original, 'the script: the contents are the same');
restore($old, 'beside', "$dir/dump.fc");
is(contents($old, 'beside'), $original, 'the archive: the contents are the same');

# a dump of the restored database
$new->command_ok([ 'pg_dump', '-d', $new->connstr('restored'), '-f', "$dir/again.sql" ], 'pg_dump of a restored database');
restore($new, 'again', "$dir/again.sql");
is(contents($new, 'again'), $original, 'the contents are still the same');

#
# Consumption continues from the restored positions
#
send_events(100);
is(contents($new, 'restored'), $original, 'nothing is consumed before spine.enabled is on');
enable(@$_) foreach ([ $new, 'restored' ], [ $old, 'beside' ]);
foreach my $copy ([ $new, 'restored' ], [ $old, 'beside' ])
{
	my ($node, $database) = @$copy;

	ok($node->poll_query_until($database, q{SELECT bool_and(state = 'running') FROM spine_status WHERE pipeline = 'notes'}),
		"$database: workers run");
	is($node->safe_psql($database, q{SELECT DISTINCT state FROM spine_status WHERE pipeline = 'orders'}), 'paused',
		"$database: a paused pipeline is still paused");
	$node->safe_psql($database, q{SELECT spine_resume('orders')});
	audit($node, $database, $database);
}
$old->safe_psql('postgres', q{SELECT spine_resume('orders')});
audit($old, 'postgres', 'the original');

# each database has consumed the whole log for itself
my @totals = map {
	$_->[0]->safe_psql($_->[1], q{SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM notes),
		(SELECT count(*) FROM spine_dead_letters), (SELECT sum(amount_cents) FROM current_orders)})
} ([ $old, 'postgres' ], [ $new, 'restored' ], [ $old, 'beside' ]);
like($totals[0], qr/^2400\|600\|2\|/, 'the original has the whole log');
is($totals[$_], $totals[0], 'a copy has the same') foreach (1, 2);
is($new->safe_psql('again', q{SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM spine_status}), 'paused stopped',
	'the copy that was never enabled waits');

$_->stop foreach ($old, $new);
stop_broker($broker);
done_testing();

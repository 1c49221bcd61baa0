# spine_seek, and positions that are moved by hand: the worker continues from the new
# position at once, the rows that were applied before stay as they are, and a place that
# makes no sense is refused before anything is moved.  The mark: when the last record
# that was read is a different one in the log now, the log is not read further.
#
# Broken when an idle worker is not told, when a replay is applied twice, or when the
# worker does not check the mark.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $broker = start_broker('events', 2);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'\n");

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Checks that the statement fails with an error that matches, and moves nothing.
sub refused
{
	my ($what, $sql, $error) = @_;
	my $positions = 'SELECT * FROM spine_offsets ORDER BY partition';
	my $before = query($positions);
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	like($err, $error, $what);
	is(query($positions), $before, "$what: nothing is moved");
	return;
}

# A sink without a key: an event that is applied again is there twice.
query(<<'SQL');
CREATE TABLE arrivals (kafka_partition int, kafka_offset bigint);
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('orders', 'arrivals', 'append',
	'{"kafka_partition": "$partition", "kafka_offset": "$offset"}');
SQL
send_values($broker->{address}, 'events', $_, [ map { order_event(order_id => "ord-$_") } 1 .. 5 ]) for 0, 1;
ok(wait_applied($node), 'ten events are applied');

my $everything = q{SELECT md5(string_agg(t::text, E'\n' ORDER BY t::text)) FROM
	(SELECT events::text FROM events UNION ALL SELECT current_orders::text FROM current_orders) t};
my $before = query($everything);
my $arrivals = sub { query('SELECT kafka_partition, count(*) FROM arrivals GROUP BY 1 ORDER BY 1') };

#
# The position is where spine_seek put it, once that is committed
#
is(query(q{SELECT * FROM spine_seek('orders', 0, 2)}), '0|5|2', 'one partition is moved to an offset');
comes_to($node, 'an idle worker reads again from there', 'SELECT count(*) = 13 FROM arrivals');
is($arrivals->(), "0|8\n1|5", 'only this partition is read again');
query(q{BEGIN; SELECT spine_seek('orders', NULL, 'earliest'); ROLLBACK});

# A sink without a version: its table goes back in time.
query(q{CREATE TABLE newest (order_id text PRIMARY KEY, kafka_offset bigint);
	INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('orders', 'newest', 'upsert', '{"order_id": "order_id", "kafka_offset": "$offset"}')});
foreach my $case ([ 2, qr/^NOTICE:  table public.newest passes through older states again, and ends in the right one\n/ ], [ 5, qr/^$/ ])
{
	my ($status, $out, $err) = $node->psql('postgres', "BEGIN; SELECT spine_seek('orders', 0, $case->[0]); ROLLBACK");

	like($err =~ s/^psql:<stdin>:\d+: //r, $case->[1], "spine_seek to offset $case->[0]: what it says");
}
query(q{DELETE FROM spine_sinks WHERE target = 'newest'::regclass});
query(q{SELECT spine_seek('orders', 1, '4')});
comes_to($node, 'an offset may be given in quotes', 'SELECT count(*) = 14 FROM arrivals');
is($arrivals->(), "0|8\n1|6", 'a seek that is rolled back moves nothing');
is(query(q{SELECT * FROM spine_seek('orders', NULL, 'earliest')}), "0|5|0\n1|5|0", 'all partitions are moved to the start');
comes_to($node, 'everything is read again', 'SELECT count(*) = 24 FROM arrivals');
is(query($everything), $before, 'the tables with keys are as they were');
is(query('SELECT count(*) FROM spine_dead_letters'), '0', 'no dead letters');

# A seek is a part of its transaction.
query(<<'SQL');
BEGIN;
SELECT spine_seek('orders', NULL, 'earliest');
TRUNCATE arrivals, events, current_orders;
COMMIT;
SQL
comes_to($node, 'tables that are emptied in the transaction of the seek are filled again', 'SELECT count(*) = 10 FROM events');
is($arrivals->(), "0|5\n1|5", 'each event is there once');

# spine_wait believes what is committed, not what a worker said earlier.  A lock holds
# the batch back until spine_wait has been asked.
my $holder = $node->background_psql('postgres');
my $empty = 'TRUNCATE arrivals, events, current_orders;';
my $to_start = q{SELECT spine_seek('orders', NULL, 'earliest');};
my @moves = (
	'a seek' => "$empty $to_start",
	'a seek of a pipeline that is paused' => "SELECT spine_pause('orders'); $empty $to_start SELECT spine_resume('orders')",
	'tables emptied in the transaction of the seek, as OPERATIONS says' => "BEGIN; $to_start TRUNCATE events, current_orders; COMMIT",
	'an UPDATE' => "$empty UPDATE spine_offsets SET next_offset = 0",
	'a DELETE' => "$empty DELETE FROM spine_offsets",
	'a TRUNCATE' => "$empty TRUNCATE spine_offsets");
while (my ($what, $sql) = splice @moves, 0, 2)
{
	query('TRUNCATE arrivals');
	$holder->query_safe('BEGIN; LOCK TABLE arrivals IN SHARE MODE');
	query($sql =~ s/TRUNCATE arrivals, /TRUNCATE /r);
	is(query(q{SELECT spine_wait('0')}), 'f', "$what: spine_wait is told that nothing is applied")
	  or BAIL_OUT('the batch and the next statement would wait for each other');
	$holder->query_safe('COMMIT');
	ok(wait_applied($node), "$what: spine_wait waits until everything is applied");
	is(query('SELECT count(*), (SELECT count(*) FROM arrivals) FROM events'), '10|10', "$what: then everything is applied");
}
is(query("BEGIN; $to_start SELECT spine_wait('0'); ROLLBACK") =~ s/.*\n//sr, 'f', 'spine_wait is false in the transaction of the seek');
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE arrivals IN SHARE MODE; SELECT spine_wait()');
query($to_start);
is($holder->query_safe(q{SELECT spine_wait('0')}), 'f', 'spine_wait is false in a transaction that sees an older state');
$holder->query_safe('COMMIT');
$holder->quit;
query('TRUNCATE arrivals');
query($to_start);
ok(wait_applied($node), 'ten events are applied again');

# A paused pipeline continues from the new position when it is resumed.
query(q{SELECT spine_pause('orders')});
comes_to($node, 'paused', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
send_values($broker->{address}, 'events', 0, [ order_event(order_id => 'skipped') ]);
is(query(q{SELECT * FROM spine_seek('orders', 0, 'latest')}), '0|5|6', 'a paused pipeline is moved to the end');
query(q{SELECT spine_resume('orders')});
send_values($broker->{address}, 'events', 0, [ order_event(order_id => 'after') ]);
comes_to($node, 'the resumed pipeline reads from there', q{SELECT count(*) = 1 FROM events WHERE order_id = 'after'});
is(query(q{SELECT count(*) FROM events WHERE order_id = 'skipped'}), '0', 'the skipped event is not applied');

# Positions moved by hand.
query('UPDATE spine_offsets SET next_offset = 5 WHERE partition = 0');
comes_to($node, 'an UPDATE moves the position, without waiting for a new record', q{SELECT count(*) = 1 FROM events WHERE order_id = 'skipped'});
query('DELETE FROM spine_offsets WHERE partition = 1');
comes_to($node, 'a deleted position is made again', q{SELECT count(*) = 10 FROM arrivals WHERE kafka_partition = 1});

# Many moves in a row, which once crashed librdkafka (see stop_partitions in
# src/kafka/consumer_assignment.c).
set_config($node, 'spine.workers' => 2);
foreach my $i (1 .. 15)
{
	# the new setting closes the client while the client still handles the last move
	query('DELETE FROM spine_offsets; SELECT pg_sleep(random() * 0.02); DELETE FROM spine_offsets; SELECT pg_sleep(random() * 0.1)');
	set_config($node, 'spine.batch_rows' => 1000 + $i);
	usleep(rand(500_000));
}
query(q{SELECT spine_seek('orders', NULL, 'earliest')});
comes_to($node, 'after many moves, everything is read', q{SELECT sum(next_offset) = 12 FROM spine_offsets});
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'no process has died');

#
# Places that make no sense
#
refused('no such pipeline', q{SELECT spine_seek('nope', 0, 0)}, qr/42704: .*pipeline "nope" does not exist/);
refused('no such partition', q{SELECT spine_seek('orders', 2, 0)}, qr/22023: .*topic "events" has no partition 2/);
refused('beyond the end', q{SELECT spine_seek('orders', 0, 8)},
	qr/22023: .*partition 0 of topic "events" has no offset 8.*DETAIL:  The partition begins at offset 0 and ends before offset 7/s);
refused('before the start', q{SELECT spine_seek('orders', 0, -1)}, qr/22023: .*has no offset -1/);
refused('before the start, in quotes', q{SELECT spine_seek('orders', 0, '-1001')}, qr/22023: .*has no offset -1001/);
refused('a negative partition', q{SELECT spine_seek('orders', -1, 0)}, qr/22023: .*has no partition -1/);
refused("$_ by hand", "UPDATE spine_offsets SET $_", qr/23514: .*check constraint "spine_offsets_/)
	foreach 'next_offset = -1', 'next_offset = -1000', 'mark_offset = -1', 'partition = -1 - partition';
refused('all partitions, one of which ends before the offset', q{SELECT spine_seek('orders', NULL, 6)},
	qr/22023: .*partition 1 of topic "events" has no offset 6/);
refused('an unknown word', q{SELECT spine_seek('orders', 0, 'newest')}, qr/22007: .*"newest"/);
refused('no place', q{SELECT spine_seek('orders', 0, NULL::bigint)}, qr/22004: .*must not be null/);
query(q{INSERT INTO spine_pipelines (name, topic) VALUES ('other', 'absent')});
tell_broker($broker, 'hide absent');
refused('no such topic', q{SELECT spine_seek('other', NULL, 'earliest')}, qr/42704: .*topic "absent" does not exist/);
query(q{DELETE FROM spine_pipelines WHERE name = 'other'});

#
# The mark
#
ok(wait_applied($node), 'everything is applied');
is(query('SELECT partition, next_offset, worker_next_offset, mark_offset FROM spine_offsets ORDER BY 1'),
	"0|7|7|6\n1|5|5|4", 'the mark is the last record that was read');
my $pause = sub {
	query(q{SELECT spine_pause('orders')});
	comes_to($node, 'paused', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
	return;
};
$pause->();
my $count = $arrivals->();
query(q{SELECT spine_resume('orders')});
comes_to($node, 'the worker finds its mark', q{SELECT bool_and(state = 'running') FROM spine_status});
is($arrivals->(), $count, 'the record at the mark is not applied again');

# With another checksum, partition 0 seems to have another record at the mark.
$pause->();
query('UPDATE spine_offsets SET mark_crc = mark_crc # 1 WHERE partition = 0');
send_values($broker->{address}, 'events', $_, [ order_event(order_id => 'behind it') ]) for 0, 1;
query(q{SELECT spine_resume('orders')});
comes_to($node, 'another record at the mark: the pipeline fails, with the reason', <<'SQL');
SELECT bool_or(state = 'failed' AND concat(last_error, ' HINT: ' || hint) =
	'partition 0 of topic "events" has another record at offset 6 than the one that was read: it is not the log that was read before'
	|| $$ HINT: To read it from its start: SELECT spine_seek('orders', 0, 'earliest')$$)
FROM spine_status
SQL
comes_to($node, 'the other partition continues',
	q{SELECT count(*) = 1 FROM events WHERE order_id = 'behind it' AND kafka_partition = 1});
is(query('SELECT next_offset FROM spine_offsets WHERE partition = 0'), '7', 'the partition with another record does not');

# A seek to the position means that the log is to be taken as it is.
query(q{SELECT spine_seek('orders', 0, 7)});
comes_to($node, 'after the seek the partition is read', q{SELECT count(*) = 2 FROM events WHERE order_id = 'behind it'});
comes_to($node, 'after the seek the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});

# A position that was moved by hand has no mark to compare with.
$pause->();
query('UPDATE spine_offsets SET mark_crc = mark_crc # 1, next_offset = next_offset - 1');
query(q{SELECT spine_resume('orders')});
comes_to($node, 'after an UPDATE the partitions are read', 'SELECT bool_and(next_offset = worker_next_offset) FROM spine_offsets');
comes_to($node, 'after an UPDATE the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});

# A position that spine_offsets refuses, in a database whose owner has dropped the
# constraint.  To librdkafka, -1 means the end.
my $rows = 'SELECT sum(next_offset) FROM spine_offsets';
my $sum = query($rows);
query(q{ALTER TABLE spine_offsets DROP CONSTRAINT spine_offsets_next_offset_check;
	UPDATE spine_offsets SET next_offset = -1 WHERE partition = 0});
comes_to($node, 'a negative position: the pipeline fails, with the reason', <<'SQL');
SELECT bool_or(state = 'failed' AND concat(last_error, ' HINT: ' || hint) = 'the position of partition 0 of topic "events" is negative: -1'
	|| $$ HINT: Set a position that exists: SELECT spine_seek('orders', 0, 'earliest')$$)
FROM spine_status
SQL
query(q{SELECT spine_seek('orders', 0, 'earliest')});
comes_to($node, 'after the seek of the hint the pipeline runs', "SELECT bool_and(state = 'running') AND ($rows) = $sum FROM spine_status");

# After each new connection, partitions are read from the mark again; nothing is applied
# twice.
foreach my $i (1 .. 5)
{
	send_values($broker->{address}, 'events', $_, [ map { order_event(order_id => "cut-$i") } 1 .. 3 ]) for 0, 1;
	tell_broker($broker, 'cut');
}
comes_to($node, 'events are read although connections are cut', q{SELECT count(*) = 30 FROM events WHERE order_id LIKE 'cut-%'});
send_values($broker->{address}, 'events', $_, [ order_event(order_id => 'cut-again') ]) for 0, 1;
comes_to($node, 'everything is read after the last cut', q{SELECT count(*) = 32 FROM events WHERE order_id LIKE 'cut-%'});
is(query(q{SELECT count(*) FROM arrivals a JOIN events e USING (kafka_partition, kafka_offset) WHERE order_id LIKE 'cut-%'}),
	'32', 'each event is applied once');
comes_to($node, 'after the cuts the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});

#
# Without a broker
#
stop_broker($broker);
refused('the broker away', q{SELECT spine_seek('orders', 0, 0)}, qr/08006: .*the broker does not answer: /);

$node->stop;
done_testing();

# The parts of test/t/018_seek.pl that a mock broker cannot do: going back to a time,
# and logs in which the mark (the last record that was read) is gone, or is not directly
# before the position.
#
# Broken when a time leads to the wrong place, or when such a log is taken for another.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $kafka = start_kafka();
my $run = "spine-$$";
my $node = spine_node('main', conf => "spine.brokers = '$kafka->{address}'\nspine.topic = '$run-events'\n",
	extension => 0);

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub send_event
{
	my ($topic, $partition, $order_id) = @_;

	send_with($kafka, $topic, $partition, 'k' . "\t" . order_event(order_id => $order_id) . "\n");
	return;
}

# Stops the workers, does something to the log, and starts them.
sub while_away
{
	my ($what) = @_;

	ok(wait_applied($node), 'everything is applied');
	query('UPDATE spine_pipelines SET enabled = false');
	comes_to($node, 'paused', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
	$what->();
	query('UPDATE spine_pipelines SET enabled = true');
	return;
}

topic($kafka, 'create', "$run-events", 2, 'segment.ms=100');
query('CREATE EXTENSION spine');

#
# Back to a time
#
send_event("$run-events", $_, 'before') for 0, 0, 1;
ok(wait_applied($node), 'three events are applied');
my $time = query('SELECT clock_timestamp()');
usleep(2000);		# Kafka counts in milliseconds
send_event("$run-events", 0, 'after') for 1 .. 3;
ok(wait_applied($node), 'three more events are applied');
is(query("SELECT * FROM spine_topic_offsets('$run-events', '$time') ORDER BY 1") =~ s/\|[^|]*$//mgr,
	"0|0|5|2\n1|0|1|1", 'spine_topic_offsets shows the first offset, the end, and the offset of the time');

query(q{CREATE TABLE arrivals (id text); INSERT INTO spine_sinks (pipeline, target, mode, columns)
	VALUES ('orders', 'arrivals', 'append', '{"id": "order_id"}')});
is(query("SELECT * FROM spine_seek('orders', NULL, timestamptz '$time')"), "0|5|2\n1|1|1",
	'a time moves to the first record that is not older, or to the end where there is none');
comes_to($node, 'the records from that time on are read again', q{SELECT count(*) = 3 AND bool_and(id = 'after') FROM arrivals});
is(query(q{SELECT count(*) FROM events}), '6', 'a table with a key has nothing twice');
is(query(q{SELECT * FROM spine_seek('orders', 0, '-infinity'::timestamptz)}), '0|5|0', '-infinity moves to the oldest record');
is(query(q{SELECT * FROM spine_seek('orders', 0, '1900-01-01')}) =~ s/.*\|//r, '0', 'a time before all records moves to the oldest record');
is(query(q{SELECT * FROM spine_seek('orders', 0, 'infinity'::timestamptz)}) =~ s/.*\|//r, '5', 'infinity moves to the end');
is(query(q{SELECT * FROM spine_seek('orders', 0, '2999-01-01')}) =~ s/.*\|//r, '5', 'a time after all records moves to the end');

#
# The mark is gone: retention has removed all of the log, or compaction has removed the
# record
#
send_event("$run-events", 0, 'marked');
while_away(sub { topic($kafka, 'trim', "$run-events", 0, 6) });
send_event("$run-events", 0, 'after the trim');
comes_to($node, 'a log from which every record that was read is gone is read on',
	q{SELECT count(*) = 1 FROM events WHERE order_id = 'after the trim'});

topic($kafka, 'create', "$run-compacted", 1, 'cleanup.policy=compact', 'segment.ms=100',
	'min.cleanable.dirty.ratio=0.01', 'max.compaction.lag.ms=200');
query('CREATE TABLE compacted (id text)');
make_pipeline($node, name => 'compacted', topic => "$run-compacted", target => 'compacted', mode => 'append',
	columns => '{"id": "order_id"}');
send_event("$run-compacted", 0, $_) for 1 .. 3;
while_away(sub {
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		send_event("$run-compacted", 0, 4);
		last unless read_log($kafka->{address}, "$run-compacted", ' %o ') =~ / 2 /;
		usleep(100_000);
	}
	unlike(read_log($kafka->{address}, "$run-compacted", ' %o '), qr/ 2 /, 'the mark is compacted away');
});
comes_to($node, 'a log without the mark is read on', q{SELECT count(*) > 3 AND max(id) = '4' FROM compacted});

#
# The mark is not directly before the position: markers of a transaction are between them
#
topic($kafka, 'create', "$run-transactions", 1);
query('CREATE TABLE transactions (id int)');
make_pipeline($node, name => 'transactions', topic => "$run-transactions", target => 'transactions', mode => 'append');
transaction($kafka, 'commit', "$run-transactions", 0, '{"id": 1}', '{"id": 2}');
transaction($kafka, 'abort', "$run-transactions", 0, '{"id": 3}');
comes_to($node, 'the position is behind the markers, the mark before them', q{SELECT next_offset = 5 AND mark_offset = 1 FROM spine_offsets WHERE pipeline = 'transactions'});
while_away(sub { });
transaction($kafka, 'commit', "$run-transactions", 0, '{"id": 4}');
comes_to($node, 'a log that ended with markers is read on', q{SELECT max(id) = 4 FROM transactions});
is(query('SELECT string_agg(id::text, \' \' ORDER BY id) FROM transactions'), '1 2 4', 'a log that ended with markers: nothing is applied twice');

is(query(q{SELECT count(*) FROM spine_status WHERE state <> 'running' OR last_error IS NOT NULL}), '0',
	'no pipeline reports trouble');

query(q{DELETE FROM spine_pipelines});
$node->stop;
topic($kafka, 'delete', "$run-$_") foreach qw(events transactions compacted);
stop_kafka($kafka);
done_testing();

# The life of a topic while its pipeline runs: the topic does not exist yet, grows,
# loses records, is deleted and created again.  Its broker goes away, comes back, and is
# replaced by another one.
#
# Broken when a partition is overlooked, when records are skipped silently, or when the
# positions of one log are used for another.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

need_own_kafka();

my $kafka = start_kafka();
my $node = spine_node('main', conf => "spine.brokers = '$kafka->{address}'\n");

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Sends so many events to each of the partitions.
sub send_to
{
	my ($order_id, $count, @partitions) = @_;

	send_with($kafka, 'events', $_,
		join('', map { "k\t" . order_event(order_id => $order_id) . "\n" } 1 .. $count))
	  foreach @partitions;
	return;
}

# Kafka may refuse to create a topic until it has removed the old one of that name.
sub make_topic
{
	my (@topic) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if eval { topic($kafka, 'create', @topic); 1 };
		usleep(100_000);
	}
	die 'the topic is not made';
}

sub is_applied
{
	my ($order_id, $count) = @_;

	comes_to($node, "$order_id: everything is applied", "SELECT count(*) = $count FROM events WHERE order_id = '$order_id'");
	is(query("SELECT count(*) FROM events WHERE order_id = '$order_id'"), $count, "$order_id: each event is there once");
	return;
}

#
# Absent at the start, created later
#
comes_to($node, 'the pipeline waits for a topic that does not exist',
	q{SELECT count(*) > 0 FROM spine_status WHERE state = 'waiting' AND last_error LIKE 'topic "events" does not exist%'});
topic($kafka, 'create', 'events', 3);
send_to('created later', 100, 0 .. 2);
is_applied('created later', 300);

#
# More partitions
#
topic($kafka, 'grow', 'events', 6);
send_to('grown', 100, 0 .. 5);
is_applied('grown', 600);
is(query('SELECT count(*), sum(lag) FROM spine_status'), '6|0', 'spine_status has a row for each partition');

#
# The broker goes away and comes back, while a commit to its consumer group is under way:
# a batch was read before the broker went away, and is applied after that
#
my $user = $node->background_psql('postgres');
$user->query_safe('BEGIN; LOCK TABLE events');
send_to('in hand', 100, 0 .. 5);
wait_for_held_batch($node);
signal_kafka($kafka, 'KILL');
$user->query_safe('COMMIT');
$user->quit;
comes_to($node, 'a broker that is gone: the pipeline waits',
	q{SELECT bool_and(state = 'waiting' AND last_error LIKE 'the broker does not answer: %') FROM spine_status});
my ($status, $out, $err) = $node->psql('postgres', q{SELECT spine_produce('acme', 10)});
like($err, qr/0 of 10|not acknowledged|broker/, 'a broker that is gone: spine_produce fails, and says why');
note $err;
restart_kafka($kafka);
send_to('back again', 100, 0 .. 5);
is_applied('in hand', 600);
is_applied('back again', 600);
comes_to($node, 'the broker is back: the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});

#
# Retention that is faster than the pipeline
#
query(q{SELECT spine_pause('orders')});
comes_to($node, 'paused', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
my $position = query('SELECT next_offset FROM spine_offsets WHERE partition = 0');
send_to('lost', 50, 0);
send_to('kept', 50, 0, 1);
topic($kafka, 'trim', 'events', 0, $position + 50);
query(q{SELECT spine_resume('orders')});
my $range = sprintf 'offsets %d to %d of partition 0 of topic "events" are gone', $position, $position + 49;
comes_to($node, 'records are gone before they were applied: the pipeline fails with the exact range',
	"SELECT count(*) > 0 FROM spine_status WHERE state = 'failed' AND last_error LIKE '$range%'");
comes_to($node, 'the other partitions continue',
	q{SELECT count(*) = 50 FROM events WHERE order_id = 'kept' AND kafka_partition = 1});
is(query(q{SELECT count(*) FROM events WHERE order_id IN ('kept', 'lost') AND kafka_partition = 0}), '0',
	'nothing is skipped');
query(q{SELECT spine_seek('orders', 0, 'earliest')});
is_applied('kept', 100);
comes_to($node, 'after spine_seek the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});

#
# Deleted, and created again with fewer records
#
topic($kafka, 'delete', 'events');
comes_to($node, 'the topic is deleted: the pipeline waits',
	q{SELECT count(*) > 0 FROM spine_status WHERE state = 'waiting' AND last_error LIKE 'topic "events" does not exist%'});
topic($kafka, 'create', 'events', 6);
send_to('made again', 10, 0 .. 5);
comes_to($node, 'created again, shorter: the pipeline fails, with the reason',
	q{SELECT count(*) > 0 FROM spine_status WHERE state = 'failed' AND last_error LIKE '%it is not the log that was read before%'});
is(query(q{SELECT count(*) FROM events WHERE order_id = 'made again'}), '0', 'created again, shorter: nothing is read');
query(q{SELECT spine_seek('orders', NULL, 'earliest')});
is_applied('made again', 60);

#
# Deleted, and created again with more records: after the worker has noticed that the
# topic is gone, at once, and while no worker runs
#
foreach my $how ('slowly', 'at once', 'unseen')
{
	ok(wait_applied($node), 'everything is applied');
	my $end = query('SELECT max(next_offset) FROM spine_offsets');

	if ($how eq 'unseen')
	{
		query(q{SELECT spine_pause('orders')});
		comes_to($node, 'paused', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
	}
	topic($kafka, 'delete', 'events');
	comes_to($node, 'the topic is deleted: the pipeline waits',
		q{SELECT count(*) > 0 FROM spine_status WHERE state = 'waiting' AND last_error LIKE 'topic "events" does not exist%'})
	  if $how eq 'slowly';
	make_topic('events', 6);
	send_to("longer, $how", $end + 10, 0 .. 5);
	query(q{SELECT spine_resume('orders')}) if $how eq 'unseen';
	comes_to($node, "created again $how, longer: the pipeline fails, with the reason",
		q{SELECT count(*) > 0 FROM spine_status WHERE state = 'failed' AND last_error LIKE '%it is not the log that was read before%'});
	is(query("SELECT count(*) FROM events WHERE order_id = 'longer, $how'"), '0', "created again $how, longer: nothing is read");
	query(q{SELECT spine_seek('orders', NULL, 'earliest')});
	is_applied("longer, $how", 6 * ($end + 10));
}

#
# Deleted, and then the worker leaves the topic: what librdkafka still knows of the topic
# must not hold the worker up
#
my %leave = (
	'paused' => sub
	{
		query(q{SELECT spine_pause('orders')});
		comes_to($node, 'paused', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
	},
	'sent to another topic' => sub
	{
		query(q{UPDATE spine_pipelines SET topic = 'others'});
		comes_to($node, 'sent to another topic', q{SELECT bool_and(state = 'waiting' AND last_error LIKE 'topic "others" does not exist%') FROM spine_status});
		query(q{UPDATE spine_pipelines SET topic = NULL});
	},
	'shut down' => sub { $node->restart }
);
foreach my $how (sort keys %leave)
{
	ok(wait_applied($node), 'everything is applied');
	topic($kafka, 'delete', 'events');
	comes_to($node, 'the topic is deleted: the pipeline waits',
		q{SELECT count(*) > 0 FROM spine_status WHERE state = 'waiting' AND last_error LIKE 'topic "events" does not exist%'});
	$leave{$how}->();
	make_topic('events', 6);
	send_to("left, $how", 10, 0 .. 5);
	query(q{SELECT spine_seek('orders', NULL, 'earliest')});
	query(q{SELECT spine_resume('orders')});
	is_applied("left, $how", 60);
}

#
# The broker comes back with an earlier state of its log, and gets more records than it
# has lost before the worker, which stayed connected, continues to read
#
ok(wait_applied($node), 'everything is applied');
save_kafka($kafka);
restart_kafka($kafka);
send_to('lost by the broker', 50, 0 .. 5);
is_applied('lost by the broker', 300);
my ($worker) = worker_pids($node);
kill 'STOP', $worker;
put_back_kafka($kafka);
restart_kafka($kafka);
send_to('written instead', 100, 0 .. 5);
kill 'CONT', $worker;
comes_to($node, 'another log that goes beyond the position is either read or refused',
	q{SELECT count(*) > 0 FROM spine_status WHERE state = 'failed' AND last_error LIKE '%it is not the log that was read before%'
	UNION ALL SELECT true FROM events WHERE order_id = 'written instead' ORDER BY 1 DESC LIMIT 1});
is(query(q{SELECT count(*) FROM events WHERE order_id = 'written instead'}), '0', 'another log that goes beyond the position: nothing is read');
is((worker_pids($node))[0], $worker, 'another log that goes beyond the position: the worker is the same');
is(query(q{SELECT count(*) FROM spine_status WHERE state = 'failed'}), '6', 'another log that goes beyond the position: all partitions are stopped');
query(q{SELECT spine_seek('orders', NULL, 'earliest')});
is_applied('written instead', 600);

#
# Another cluster behind the same address
#
wait_applied($node);
signal_kafka($kafka, 'KILL');
forget_kafka($kafka);
restart_kafka($kafka);
topic($kafka, 'create', 'events', 6);
send_to('of another', 100, 0 .. 5);
comes_to($node, 'another cluster is refused',
	q{SELECT count(*) > 0 FROM spine_status WHERE state = 'failed'
	AND last_error ~ 'cluster is "[^"]+", but the position in topic "events" belongs to cluster'});
is(query(q{SELECT count(*) FROM events WHERE order_id = 'of another'}), '0', 'another cluster: nothing is read');
query(q{SELECT spine_seek('orders', NULL, 'earliest')});
is_applied('of another', 600);

#
# Created again with fewer partitions, while no partition can be read: the partitions that
# are gone do not keep the pipeline from running
#
topic($kafka, 'delete', 'events');
make_topic('events', 4);
send_to('of four', 10, 0 .. 3);
comes_to($node, 'created again: every partition is stopped',
	q{SELECT count(*) >= 4 FROM spine_status WHERE state = 'failed' AND last_error LIKE '%it is not the log that was read before%'});
topic($kafka, 'delete', 'events');
make_topic('events', 2);
send_to('of two', 10, 0, 1);
query(q{SELECT spine_seek('orders', NULL, 'earliest')});
comes_to($node, 'created again with fewer partitions: the topic is read', q{SELECT count(*) = 20 FROM events WHERE order_id = 'of two'});
comes_to($node, 'created again with fewer partitions: the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});

$node->stop;
stop_kafka($kafka);
done_testing();

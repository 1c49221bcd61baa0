# A commit to the broker's consumer group that is never answered: the worker recreates
# its client before it begins a batch.  Otherwise the batch might wait for a lock until
# the commit times out, and librdkafka ends the process when the broker returns after
# that.
#
# Broken when a batch begins while such a commit is under way.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('events', 1, 2);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'\n");
ok(wait_for_state($node, 'running'), 'a worker runs');

my ($worker) = worker_pids($node);
my $threads = client_threads($node);
my $last = 0;

sub apply_one
{
	my $order = 'order-' . ++$last;

	send_values($broker->{address}, 'events', 0, [ order_event(order_id => $order) ]);
	return $node->poll_query_until('postgres', "SELECT count(*) = 1 FROM events WHERE order_id = '$order'");
}

like($threads, qr/^\d+$/, 'the worker has a client');
tell_broker($broker, 'stall spine-postgres-orders');
ok(apply_one(), 'an event is applied');
tell_broker($broker, 'await commit');
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE events IN SHARE MODE');
send_values($broker->{address}, 'events', 0, [ order_event(order_id => 'order-' . ++$last) ]);
wait_for_held_batch($node);
isnt(client_threads($node), $threads, 'after a commit that is not answered, the client is recreated before a batch that may wait');
$holder->query_safe('COMMIT');
$holder->quit;
ok(apply_one(), 'the next event is applied');
is((worker_pids($node))[0], $worker, 'the worker is still the same');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT event_id) FROM events'), "$last|$last", 'nothing is lost, and nothing is applied twice');

$node->stop;
stop_broker($broker);
done_testing();

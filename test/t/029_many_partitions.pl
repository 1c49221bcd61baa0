# A topic has more partitions than shared memory has room for, which is 4,096 over all
# pipelines: all of them are read, from the right positions, and spine_wait returns once
# they are applied.
#
# Broken when something takes a partition that is not in shared memory for applied, or
# for not applied, or ends because of it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $partitions = 4200;
my $broker = start_broker('events', $partitions);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'\n");
my @some = (0, 17, 2100, 4095, 4096, 4199);

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

foreach my $partition (@some)
{
	send_values($broker->{address}, 'events', $partition, [ map { order_event(order_id => "ord-$partition") } 1 .. 2 ]);
}
ok(wait_applied($node), 'spine_wait returns once everything is applied');
my $rows = 'SELECT kafka_partition, count(*), min(kafka_offset), max(kafka_offset) FROM events GROUP BY 1 ORDER BY 1';
is(query($rows), join("\n", map { "$_|2|0|1" } @some), 'each record is applied once');
is(query('SELECT count(*) FROM spine_partition_status()'), 4096, 'shared memory is full');
is(query("SELECT count(*), sum(next_offset), bool_and(state = 'running') FROM spine_status"),
	"$partitions|" . 2 * @some . '|t', 'spine_status has a row for each partition');

# These events are not applied while the table is locked.
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE events');
send_values($broker->{address}, 'events', $_, [ order_event(order_id => "ord-$_") ]) foreach @some;
wait_for_held_batch($node);
is(query(q{SELECT spine_wait('10s')}), 'f', 'spine_wait does not take these events for applied');
$holder->query_safe('COMMIT');
$holder->quit;
ok(wait_applied($node), 'spine_wait returns once they are');
is(query($rows), join("\n", map { "$_|3|0|2" } @some), 'each new record is applied once');

$node->restart;
send_values($broker->{address}, 'events', $some[-1], [ order_event(order_id => 'last') ]);
ok(wait_applied($node), 'after a restart the pipeline continues');
is(query('SELECT count(*) FROM events'), 3 * @some + 1, 'after a restart nothing is applied twice');

$node->stop;
stop_broker($broker);
done_testing();

# Logical replication on a real Kafka: events and current_orders are published to
# another server while the pipeline applies, and either server is killed with -9.  In the
# end both have the same rows.
#
# Broken when a worker's changes are not replicated like anybody else's, when the
# subscriber applies the topic as well, or when spine_recount_orders() does not count the
# rows that came by replication.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Audit;
use IPC::Run qw(finish);
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $events_per_file = 30_000;
my $sent = 0;
my $kafka = start_kafka();
topic($kafka, 'create', 'events', 6);

my $publisher = spine_node('publisher', init => [ allows_streaming => 'logical' ], conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.batch_rows = 1000
shared_buffers = 128MB
CONF
add_arrivals($publisher);

# The subscriber has the extension because of the tables, and applies nothing by itself.
my $subscriber = spine_node('subscriber', conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.enabled = off
CONF

sub start_load
{
	my $sending = start_sending($kafka, 'events', make_events($publisher, $events_per_file));
	my $enough = $sent + 1;

	$sent += $events_per_file;
	ok($publisher->poll_query_until('postgres', "SELECT sum(next_offset) >= $enough FROM spine_offsets"), 'events flow');
	return $sending;
}

# The contents of a table as one value.
sub digest
{
	my ($node, $table) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")) FROM $table t");
}

sub catch_up
{
	my ($when) = @_;

	ok(wait_applied($publisher), "$when: everything is applied");
	$publisher->wait_for_catchup('to_subscriber');
	is(digest($subscriber, $_), digest($publisher, $_), "$when: $_ is the same")
	  foreach 'events', 'current_orders';
	return;
}

sub totals
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT * FROM spine_stats() ORDER BY 1, 2');
}

# The first copy is made under load too.
my $sending = start_load();
my $address = $publisher->connstr('postgres');
$publisher->safe_psql('postgres', 'CREATE PUBLICATION orders FOR TABLE events, current_orders');
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION to_subscriber CONNECTION \$\$$address application_name=to_subscriber\$\$ PUBLICATION orders");
$subscriber->wait_for_subscription_sync($publisher, 'to_subscriber');
finish $sending or die 'the events were not delivered';
catch_up('copied');

is(totals($subscriber), '', 'the totals do not count rows that come by replication');
$subscriber->safe_psql('postgres', 'SELECT spine_recount_orders()');
is(totals($subscriber), totals($publisher), 'after a recount the totals are right');

foreach my $node ($subscriber, $publisher)
{
	$sending = start_load();
	kill9_and_start($node);
	finish $sending or die 'the events were not delivered';
	poll_through_restart($publisher, 'postgres', q{SELECT bool_and(state = 'running') FROM spine_status});
	catch_up($node->name . ' killed');
}
isnt(totals($subscriber), totals($publisher), 'a recount does not count later rows');
$subscriber->safe_psql('postgres', 'SELECT spine_recount_orders()');
is(totals($subscriber), totals($publisher), 'after another recount the totals are right again');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM spine_offsets'), '0',
	'the subscriber has applied nothing by itself');

copy_log($publisher, $kafka->{address}, 'events', $sent);
audit($publisher, 'on the publisher');

$subscriber->stop;
$publisher->stop;
stop_kafka($kafka);
done_testing();

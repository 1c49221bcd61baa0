# No loss, no duplicate on a real Kafka: 200,000 events flow while workers, the
# postmaster and the broker are killed with -9, or are stopped for a while and resumed,
# at random moments.  Then the log, read with kcat, is compared with the tables.
#
# Broken by what breaks test/t/010_exactly_once.pl, and when a worker does not reconnect
# to a broker, or applies again what it already had when the broker went away.
#
# SPINE_TEST_SEED repeats the random choices of an earlier run.  SPINE_TEST_KILLS=100
# strikes that many times, over 1,000,000 events.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Audit;
use IPC::Run qw(finish);
use Kafka;
use List::Util qw(max shuffle);
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

need_own_kafka();

my $kills = $ENV{SPINE_TEST_KILLS} // 14;
my @mix = (('worker', 'postmaster') x 4, ('broker') x 2, ('broker stopped', 'worker stopped') x 2);
my @victims = map { $mix[$_ % @mix] } 0 .. $kills - 1;
my $events_per_round = int(max(200_000, 10_000 * $kills) / $kills);

my $seed = $ENV{SPINE_TEST_SEED} // int(rand(2**31));
srand($seed);
note "SPINE_TEST_SEED=$seed";

my $kafka = start_kafka();
topic($kafka, 'create', 'events', 6);

# Small batches, so that most kills find one open.
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.batch_rows = 1000
restart_after_crash = on
CONF

add_arrivals($node);

sub workers_are_back
{
	my (@old) = @_;
	my $old = join ',', @old;

	poll_through_restart($node, 'postgres', <<SQL) or die 'the worker does not come back';
SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'spine worker' AND pid <> ALL ('{$old}')
SQL
	return;
}

my %strike = (
	'worker' => sub { kill 'KILL', @_; workers_are_back(@_); },
	'postmaster' => sub { kill9_and_start($node); workers_are_back(@_); },
	'broker' => sub { signal_kafka($kafka, 'KILL'); restart_kafka($kafka); },

	# longer than a request waits, but not so long that librdkafka gives up
	'broker stopped' => sub { signal_kafka($kafka, 'STOP'); usleep(3_000_000); signal_kafka($kafka, 'CONT'); },
	'worker stopped' => sub { kill 'STOP', @_; usleep(1_000_000); kill 'CONT', @_; });

my @files = map { make_events($node, $events_per_round) } @victims;
my $in_flight = 0;
my $round = 0;

foreach my $victim (shuffle @victims)
{
	my $before = count_applied($node);
	my $sending = start_sending($kafka, 'events', $files[$round++]);

	# strike at a random moment while batches are applied
	$node->poll_query_until('postgres', "SELECT sum(next_offset) > $before FROM spine_offsets")
	  or die 'nothing is applied';
	my @workers = worker_pids($node);
	usleep(rand(200_000));
	my $start = time;
	$strike{$victim}->(@workers);
	note sprintf '%s: %.1f s', $victim, time - $start;

	$in_flight++ if count_applied($node) < $round * $events_per_round;
	finish $sending or die 'the events were not delivered';
}
ok(wait_applied($node), 'everything is applied in the end');
note "$in_flight of $round strikes left events to apply";

copy_log($node, $kafka->{address}, 'events', $round * $events_per_round);
audit($node, 'after the strikes');

$node->stop;
stop_kafka($kafka);
done_testing();

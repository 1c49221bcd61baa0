# No loss, no duplicate on a real Kafka: 200,000 events flow while workers, the
# postmaster and the broker are killed with -9, or stopped for a while and let go
# on, at random moments.  Then the log, read with kcat, is compared with the
# tables.
#
# Broken by what breaks test/t/010_exactly_once.pl, and when a worker does not
# find back to a broker, or applies again what it had when that went away.
#
# SPINE_TEST_SEED repeats the random choices of an earlier run.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use File::Temp;
use IPC::Run qw(finish);
use Kafka;
use List::Util qw(shuffle);
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

need_own_kafka();

my @victims = (('worker', 'postmaster') x 4, ('broker') x 2, ('broker stopped', 'worker stopped') x 2);
my $events_per_round = int(200_000 / @victims);

my $seed = $ENV{SPINE_TEST_SEED} // int(rand(2**31));
srand($seed);
note "SPINE_TEST_SEED=$seed";

my $kafka = start_kafka();
topic($kafka, 'create', 'events', 6);
my $dir = File::Temp->newdir;

# Small batches, so that most kills find one open.
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.batch_rows = 1000
restart_after_crash = on
CONF

# A table without a key: what is applied twice is in it twice.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE arrivals (kafka_partition int, kafka_offset bigint);
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('orders', 'arrivals', 'append',
	'{"kafka_partition": "$partition", "kafka_offset": "$offset"}');
SQL

# Few orders and coarse times, in random order.
sub make_events
{
	my ($file) = @_;

	$node->safe_psql('postgres', <<SQL);
COPY (
	SELECT tenant, spine_make_event(tenant) || jsonb_build_object(
		'order_id', 'ord-' || ceil(random() * 500),
		'event_time', timestamptz '2026-01-01Z' + floor(random() * 3600) * interval '1 s')
	FROM generate_series(1, $events_per_round),
		LATERAL (SELECT 'tenant-' || (generate_series % 24) AS tenant) t
) TO '$file';
SQL
	return $file;
}

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

	# longer than a request may wait, shorter than anybody would give up
	'broker stopped' => sub { signal_kafka($kafka, 'STOP'); usleep(3_000_000); signal_kafka($kafka, 'CONT'); },
	'worker stopped' => sub { kill 'STOP', @_; usleep(1_000_000); kill 'CONT', @_; });

my @files = map { make_events("$dir/events_$_") } 0 .. $#victims;
my $in_flight = 0;
my $round = 0;

foreach my $victim (shuffle @victims)
{
	my $sending = start_sending($kafka, 'events', $files[$round++]);
	my @workers = worker_pids($node);

	# a moment, not a wait for something: this is where it may strike
	usleep(rand(500_000));
	my $start = time;
	$strike{$victim}->(@workers);
	note sprintf '%s: %.1f s', $victim, time - $start;

	$in_flight++
	  if $node->safe_psql('postgres', 'SELECT coalesce(sum(next_offset), 0) FROM spine_offsets') < $round * $events_per_round;
	finish $sending or die 'the events were not delivered';
}
ok(wait_applied($node), 'everything is applied in the end');
note "$in_flight of $round times with events still to be applied after it";

my $log = "$dir/log";
run_log([ 'kcat', '-b', $kafka->{address}, '-q', '-C', '-t', 'events', '-o', 'beginning',
		'-e', '-f', '%p\t%o\t%s\n' ], '>', $log)
  or die 'kcat failed';
$node->safe_psql('postgres', <<SQL);
CREATE TABLE log (kafka_partition int, kafka_offset bigint, event jsonb);
COPY log FROM '$log';
SQL
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT event->>'event_id') FROM log}),
	join('|', ($round * $events_per_round) x 2), 'the log has everything that was sent, once');
is($node->safe_psql('postgres', <<'SQL'), '0', 'every record was applied once');
SELECT count(*) FROM
	(SELECT kafka_partition, kafka_offset, count(*) FROM arrivals GROUP BY 1, 2) a
FULL JOIN log USING (kafka_partition, kafka_offset)
WHERE count IS DISTINCT FROM 1 OR event IS NULL
SQL
is($node->safe_psql('postgres', <<'SQL'), '0', 'every event is in events, once');
SELECT count(*) FROM
	(SELECT event_id, count(*) FROM events GROUP BY 1) e
FULL JOIN log ON event_id = (event->>'event_id')::uuid
WHERE count IS DISTINCT FROM 1 OR event IS NULL
SQL
is($node->safe_psql('postgres', <<'SQL'), '0', 'current_orders has the newest event of each order');
SELECT count(*) FROM (
	SELECT DISTINCT ON (1, 2) event->>'tenant' AS tenant, event->>'order_id' AS order_id,
		event->>'event_type' AS status, (event->>'amount_cents')::bigint AS amount_cents,
		(event->>'event_time')::timestamptz AS updated_at
	FROM log ORDER BY 1, 2, 5 DESC, kafka_partition, kafka_offset DESC) l
FULL JOIN current_orders c USING (tenant, order_id)
WHERE (c.status, c.amount_cents, c.updated_at) IS DISTINCT FROM (l.status, l.amount_cents, l.updated_at)
SQL
is($node->safe_psql('postgres', 'SELECT count(*) FROM spine_dead_letters'), '0', 'nothing is a dead letter');

$node->stop;
stop_kafka($kafka);
done_testing();

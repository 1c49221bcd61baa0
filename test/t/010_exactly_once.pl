# No loss, no duplicate: 200,000 events flow while workers and the postmaster are
# killed with -9, twenty times, at random moments, with one worker and with two, and
# with synchronous_commit on and off.  Then the log itself, read with kcat, is compared
# with the tables: history, state, and a table in which an event that is applied twice
# would appear twice.
#
# Broken when offsets are not moved in the transaction that writes the rows, when a
# worker starts from anywhere other than those offsets, when two workers that both
# believe a partition is theirs are not kept apart, or when an older event overwrites a
# newer one after a restart.
#
# SPINE_TEST_SEED repeats the random choices of an earlier run.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Audit;
use IPC::Run qw(start finish);
use List::Util qw(shuffle);
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $kills = 20;
my $events_per_kill = 10_000;

my $seed = $ENV{SPINE_TEST_SEED} // int(rand(2**31));
srand($seed);
note "SPINE_TEST_SEED=$seed";

my $broker = start_broker('events', 12);

# Small batches, so that most kills find one open.
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.batch_rows = 1000
restart_after_crash = on
CONF

add_arrivals($node);

sub start_sending
{
	my ($file) = @_;

	return start([ 'kcat', '-b', $broker->{address}, '-q', '-P', '-t', 'events',
		'-K', '\t', '-z', 'lz4', '-X', 'acks=all', '-l', $file ]);
}

# Kills one process: a worker, or the postmaster, whose end the workers have to
# notice by themselves.  Returns when workers run again.
sub kill_and_recover
{
	my ($victim, @workers) = @_;

	if ($victim eq 'postmaster')
	{
		kill9_and_start($node);
	}
	else
	{
		kill 'KILL', $workers[ int rand @workers ];
	}
	my $old = join ',', @workers;
	poll_through_restart($node, 'postgres', <<SQL) or die 'workers do not come back';
SELECT count(*) = current_setting('spine.workers')::int FROM pg_stat_activity
WHERE backend_type = 'spine worker' AND pid <> ALL ('{$old}')
SQL
	return;
}

# The settings of the four quarters of the kills.
my @quarters = (
	{ 'spine.workers' => 1, synchronous_commit => 'on' },
	{ 'spine.workers' => 1, synchronous_commit => 'off' },
	{ 'spine.workers' => 2, synchronous_commit => 'off' },
	{ 'spine.workers' => 2, synchronous_commit => 'on' });

my @files = map { make_events($node, $events_per_kill) } 1 .. $kills;
my @victims = shuffle(('worker', 'postmaster') x ($kills / 2));
my $in_flight = 0;

foreach my $round (0 .. $kills - 1)
{
	my $sending = start_sending($files[$round]);
	my @workers = worker_pids($node);

	# the settings change under load, and the kill may come in the middle of that
	set_config($node, %{ $quarters[ $round * 4 / $kills ] })
	  if $round % ($kills / 4) == 0;

	# a moment, not a wait for something: this is where the kill may strike
	usleep(rand(300_000));
	kill_and_recover($victims[$round], @workers);

	$in_flight++ if count_applied($node) < ($round + 1) * $events_per_kill;
	finish $sending or die 'kcat failed';
}
ok(wait_applied($node), 'everything is applied in the end');
note "$in_flight of $kills restarts had events left to apply";

is($node->safe_psql('postgres', 'SHOW spine.workers'), '2', 'spine.workers is 2 at the end');
is(scalar(my @workers = worker_pids($node)), 2, 'two workers run');

# Random kills hardly ever strike the moment between the rows and the offsets.  A
# trigger holds the worker there.  Nothing of the batch may be visible yet.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock(1);
	RETURN NULL;
END $$;
CREATE TRIGGER wait_here AFTER INSERT ON current_orders		-- the last table to be written
	FOR EACH STATEMENT EXECUTE FUNCTION wait_here();
SQL
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1)');
send_lines($broker->{address}, 'events', 0, "held\t" . order_event(tenant => 'held') . "\n");
my $blocked = q{FROM pg_stat_activity WHERE backend_type = 'spine worker' AND wait_event = 'advisory'};
$node->poll_query_until('postgres', "SELECT count(*) = 1 $blocked");
is($node->safe_psql('postgres', 'SELECT count(*) FROM arrivals'), $kills * $events_per_kill,
	'before the offsets are moved, nothing of the batch is visible');
kill_and_recover('worker', $node->safe_psql('postgres', "SELECT pid $blocked"));
$holder->quit;
ok(wait_applied($node), 'the worker that was killed there has a successor');
$node->safe_psql('postgres', 'DROP TRIGGER wait_here ON current_orders');
my $sent = $kills * $events_per_kill + 1;

copy_log($node, $broker->{address}, 'events', $sent);
audit($node, 'after the kills');

# The log alone is enough to rebuild everything.
foreach my $workers (1, 2)
{
	set_config($node, 'spine.workers' => $workers, 'spine.batch_rows' => 50000);
	$node->safe_psql('postgres', <<'SQL');
SELECT spine_pause('orders');
SQL
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
	$node->safe_psql('postgres', <<'SQL');
TRUNCATE events, current_orders, arrivals;
UPDATE spine_offsets SET next_offset = 0;
CHECKPOINT;
SELECT spine_resume('orders');
SQL
	my $start = time;
	$node->poll_query_until('postgres', "SELECT sum(next_offset) = $sent FROM spine_offsets");
	note sprintf('%d events drained with spine.workers = %d: %.1f s, including the start of the workers',
		$sent, $workers, time - $start);
	audit($node, "rebuilt with spine.workers = $workers");
}

$node->stop;
stop_broker($broker);
done_testing();

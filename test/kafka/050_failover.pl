# Failover on a real Kafka: events flow into a primary, its postmaster is killed with -9
# while it applies, and its standby is promoted, with asynchronous and with synchronous
# replication.  The rows and positions that the standby did not have yet come again from
# the log.  Before that: reading on the standby, and a synchronous standby that goes away.
#
# Broken when spine's processes start on a standby, or do not start at its promotion;
# when the promoted server continues from anywhere other than its own positions; when a
# worker that waits for a standby cannot be stopped; or by what breaks
# test/t/010_exactly_once.pl.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Audit;
use IPC::Run qw(finish);
use Kafka;
use SpineTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $events_per_file = 40_000;
my $kafka = start_kafka();

sub query
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Makes a primary whose pipeline reads a topic of its own, and a standby of it while
# events flow.
sub make_pair
{
	my ($topic) = @_;

	topic($kafka, 'create', $topic, 6);
	my $primary = spine_node("primary_$topic", init => [ allows_streaming => 1 ], conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.topic = '$topic'
spine.batch_rows = 1000
shared_buffers = 128MB
wal_keep_size = 1GB
autovacuum = off
CONF
	add_arrivals($primary);

	my $sending = start_sending($kafka, $topic, make_events($primary, $events_per_file));
	comes_to($primary, "$topic: events flow", 'SELECT sum(next_offset) > 0 FROM spine_offsets');
	$primary->backup('taken');
	my $standby = PostgreSQL::Test::Cluster->new("standby_$topic");
	$standby->init_from_backup($primary, 'taken', has_streaming => 1);
	$standby->start;
	finish $sending or die 'the events were not delivered';
	return ($primary, $standby);
}

# Checks what the standby shows while the primary applies.
sub read_on_standby
{
	my ($primary, $standby, $topic) = @_;
	my $before = count_applied($standby);
	my $sending = start_sending($kafka, $topic, make_events($primary, $events_per_file));

	comes_to($standby, 'the standby follows', "SELECT sum(next_offset) > $before FROM spine_offsets");
	is(query($standby, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'spine%'}), '0',
		'nothing of spine runs on the standby');
	is(query($standby, q{SELECT count(*), bool_and(worker_pid IS NULL), min(state), max(state) FROM spine_status WHERE next_offset IS NOT NULL}),
		'6|t|stopped|stopped', 'spine_status on the standby: stopped, with the positions');
	cmp_ok(query($standby, 'SELECT count(*) FROM current_orders'), '>', 0, 'current_orders can be read on the standby');
	cmp_ok(query($standby, 'SELECT count(*) FROM spine_orders()'), '>', 0, 'spine_orders can be called on the standby');
	foreach my $change (q{SELECT spine_pause('orders')}, 'SELECT spine_recount_orders()')
	{
		my (undef, undef, $err) = $standby->psql('postgres', $change);
		like($err, qr/read-only transaction|during recovery/, "refused on the standby: $change");
	}
	finish $sending or die 'the events were not delivered';
	ok(wait_applied($primary), 'everything is applied on the primary');
	return;
}

# A reader with an open snapshot while the primary applies and vacuums.
sub read_for_long
{
	my ($primary, $standby, $feedback, $topic) = @_;

	set_config_of_standby($standby, "max_standby_streaming_delay = 100ms\nhot_standby_feedback = $feedback");
	comes_to($primary, "hot_standby_feedback = $feedback", sprintf
		q{SELECT count(*) = 1 FROM pg_stat_replication WHERE (backend_xmin IS NOT NULL) = (%s) AND state = 'streaming'},
		$feedback eq 'on' ? 'true' : 'false');
	my $reader = $standby->background_psql('postgres', on_error_stop => 0);
	my $count = 'SELECT count(*), sum(amount_cents) FROM current_orders';
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	my $seen = $reader->query_safe($count);

	my $sending = start_sending($kafka, $topic, make_events($primary, 2_000));
	finish $sending or die 'the events were not delivered';
	ok(wait_applied($primary), 'the primary applies while the standby is read');
	query($primary, 'VACUUM current_orders');
	$primary->wait_for_catchup($standby);
	pass('the standby catches up');
	if ($feedback eq 'on')
	{
		is($reader->query_safe($count), $seen, 'the reader on the standby continues');
		$reader->query_safe('COMMIT');
		$reader->quit;
	}
	else
	{
		comes_to($standby, 'the reader on the standby is cancelled',
			q{SELECT sum(confl_snapshot) > 0 FROM pg_stat_database_conflicts});
		eval { $reader->quit };
	}
	return;
}

sub set_config_of_standby
{
	my ($standby, $line) = @_;

	$standby->append_conf('postgresql.conf', "$line\n");
	$standby->reload;
	return;
}

# Waits until the standby has replayed everything that a primary sent before it ended.
sub wait_replayed
{
	my ($standby) = @_;

	# If the primary was killed in the middle of a WAL record, the standby has a part of
	# that record, and replay never reaches the end of what was received.
	comes_to($standby, 'the standby has replayed what it received', <<'SQL');
SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
	AND EXISTS (SELECT FROM pg_stat_activity
		WHERE backend_type = 'startup' AND wait_event = 'RecoveryRetrieveRetryInterval')
SQL
	return;
}

sub positions
{
	my ($node) = @_;

	return map { split /\|/ } split /\n/, query($node, 'SELECT partition, next_offset FROM spine_offsets');
}

sub promote_and_audit
{
	my ($standby, $topic, $sending, $sent) = @_;

	is(query($standby, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'spine%'}), '0',
		'before the promotion nothing of spine runs');
	$standby->promote;
	comes_to($standby, 'the promoted server applies by itself', q{SELECT bool_and(state = 'running') FROM spine_status});
	finish $sending or die 'the events were not delivered';
	ok(wait_applied($standby), 'everything is applied on the promoted server');
	copy_log($standby, $kafka->{address}, $topic, $sent);
	audit($standby, "after the failover, $topic");
	$standby->stop;
	return;
}

#
# Asynchronous: the standby lacks what was not sent to it
#
my ($primary, $standby) = make_pair('asynchronous');
read_on_standby($primary, $standby, 'asynchronous');
read_for_long($primary, $standby, $_, 'asynchronous') foreach 'off', 'on';
set_config_of_standby($standby, 'max_standby_streaming_delay = 30s');

# The standby is cut off in the middle of a batch: it has the batch's rows, but not its
# commit.
my $holder = $primary->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE spine_offsets IN SHARE MODE');
my $sending = start_sending($kafka, 'asynchronous', make_events($primary, $events_per_file));
wait_for_held_batch($primary);
query($primary, 'SELECT pg_current_xact_id()');	# its commit flushes all WAL so far
$primary->wait_for_catchup($standby);
set_config_of_standby($standby, "primary_conninfo = ''");
comes_to($standby, 'nothing more is sent to the standby', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver');
$holder->quit;
my $enough = count_applied($standby) + 5_000;
comes_to($primary, 'the primary continues', "SELECT sum(next_offset) > $enough FROM spine_offsets");
my $had = count_applied($primary);
kill9_and_wait($primary);
wait_replayed($standby);
my $lacking = $had - count_applied($standby);
cmp_ok($lacking, '>', 0, 'the standby lacks some records');
note "the standby lacks $lacking records of $had that the primary had applied";
promote_and_audit($standby, 'asynchronous', $sending, 3 * $events_per_file + 4_000);

#
# Synchronous: a standby that goes away holds up the worker, and nothing is lost
#
($primary, $standby) = make_pair('synchronous');
set_config($primary, synchronous_standby_names => 'standby_synchronous');
comes_to($primary, 'the standby is synchronous',
	q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'});
read_on_standby($primary, $standby, 'synchronous');

my $waits = q{FROM pg_stat_activity WHERE backend_type = 'spine worker' AND wait_event = 'SyncRep'};
$standby->stop('fast');
$had = count_applied($primary);
$sending = start_sending($kafka, 'synchronous', make_events($primary, $events_per_file));
comes_to($primary, 'without the standby the worker waits', "SELECT count(*) = 1 $waits");
finish $sending or die 'the events were not delivered';
is(count_applied($primary), $had, 'a commit that waits is not visible yet');
is(query($primary, 'SELECT sum(next_offset) FROM spine_status'), $had, 'a commit that waits is not reported as applied');
comes_to($primary, 'spine_status says what the worker waits for, and shows the lag', <<'SQL');
SELECT bool_and(state = 'waiting' AND concat(last_error, ' HINT: ' || hint) LIKE 'no synchronous standby has confirmed the commit HINT: %') AND sum(lag) > 0
FROM spine_status
SQL

my $pid = query($primary, "SELECT pid $waits");
query($primary, "SELECT pg_terminate_backend($pid)");
comes_to($primary, 'the worker can be terminated, and its successor waits', "SELECT count(*) = 1 $waits AND pid <> $pid");
is(query($primary, q{SET synchronous_commit = local; SELECT spine_pause('orders')}), '', 'the pipeline can be paused while the worker waits');
comes_to($primary, 'the worker ends when the pipeline is paused',
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
query($primary, q{SET synchronous_commit = local; SELECT spine_resume('orders')});
comes_to($primary, 'when the pipeline is resumed, the worker waits again', "SELECT count(*) = 1 $waits");
$primary->stop('fast');
pass('the server can be stopped while the worker waits');
$primary->start;
comes_to($primary, 'when the server is started, the worker waits again', "SELECT count(*) = 1 $waits");
$standby->start;
ok(wait_applied($primary), 'once the standby is back, everything is applied');

#
# What the primary has reported is on the standby when the standby takes over
#
$sending = start_sending($kafka, 'synchronous', make_events($primary, $events_per_file));
$had = count_applied($primary);
comes_to($primary, 'events flow', "SELECT sum(next_offset) > $had + 5000 FROM spine_status");
my %reported = positions($primary);
kill9_and_wait($primary);
wait_replayed($standby);
my %there = positions($standby);
is(join(',', grep { $there{$_} < $reported{$_} } sort keys %reported), '',
	'every record that was reported as applied is on the standby');
promote_and_audit($standby, 'synchronous', $sending, 4 * $events_per_file);

stop_kafka($kafka);
done_testing();

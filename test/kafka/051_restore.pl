# Going back on a real Kafka.  A base backup that was taken while events were applied is
# restored to a point in the middle of them.  And the server is killed with -9 several
# times, with synchronous_commit = off and commits that were never written.  Rows and
# positions go back together, and the log gives the records again.
#
# Broken when positions are anywhere other than in the commit that writes the rows, or by
# what breaks test/t/010_exactly_once.pl.
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

# Waits until so many more records are applied.
sub let_it_apply
{
	my ($node, $what, $records) = @_;
	my $enough = count_applied($node) + $records;

	comes_to($node, $what, "SELECT sum(next_offset) >= $enough FROM spine_offsets");
	return;
}

#
# Restored to a point in the middle
#
topic($kafka, 'create', 'restored', 6);
my $node = spine_node('main', init => [ has_archiving => 1, allows_streaming => 1 ], conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.topic = 'restored'
spine.batch_rows = 100
shared_buffers = 128MB
CONF
add_arrivals($node);

my @files = map { make_events($node, $events_per_file) } 1 .. 2;
my $sending = start_sending($kafka, 'restored', $files[0]);
let_it_apply($node, 'events flow', 1);
$node->backup('taken');
finish $sending or die 'the events were not delivered';

# The restore point is in the middle of a batch: the WAL before it has the batch's rows,
# but not its commit.
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE spine_offsets IN SHARE MODE');
$sending = start_sending($kafka, 'restored', $files[1]);
wait_for_held_batch($node);
$node->safe_psql('postgres', q{SELECT pg_create_restore_point('middle')});
$holder->quit;
finish $sending or die 'the events were not delivered';
ok(wait_applied($node), 'everything is applied');
my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
comes_to($node, 'the WAL is archived', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver");
is(count_applied($node), 2 * $events_per_file, 'the server had everything before the restore');
$node->stop;

my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($node, 'taken', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', <<CONF);
archive_mode = off
recovery_target_name = 'middle'
recovery_target_action = 'pause'
CONF
$restored->start;
comes_to($restored, 'restored to the middle', q{SELECT pg_get_wal_replay_pause_state() = 'paused'});
my $position = count_applied($restored);
cmp_ok($position, '>', 0, 'some records are restored');
cmp_ok($position, '<', 2 * $events_per_file, 'some records are not restored');
is($restored->safe_psql('postgres', 'SELECT count(*) FROM arrivals'), $position, 'the restored rows are as many as the positions say');
is($restored->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'spine%'}), '0',
	'nothing of spine runs yet');
note "restored to $position of " . 2 * $events_per_file . ' records';
$restored->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
comes_to($restored, 'once the server takes writes, the pipeline runs by itself',
	q{SELECT NOT pg_is_in_recovery() AND bool_and(state = 'running') FROM spine_status});
ok(wait_applied($restored), 'everything is applied on the restored server');
copy_log($restored, $kafka->{address}, 'restored', 2 * $events_per_file);
audit($restored, 'restored');
$restored->stop;

#
# Commits that are lost.  What the WAL writer has written survives a kill.  So the WAL
# writer is stopped, and nothing else writes WAL before the WAL buffers are full.
#
topic($kafka, 'create', 'forgotten', 6);
$node = spine_node('forgetful', conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.topic = 'forgotten'
spine.batch_rows = 100
synchronous_commit = off
wal_buffers = 64MB
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
bgwriter_lru_maxpages = 0
shared_buffers = 256MB
max_wal_size = 4GB
checkpoint_timeout = 1h
autovacuum = off
CONF
add_arrivals($node);
$node->safe_psql('postgres', 'CHECKPOINT');	# otherwise the sink would be lost as well

my $rounds = 4;
my $lost = 0;
foreach my $round (1 .. $rounds)
{
	my $file = make_events($node, 10_000);
	my $walwriter = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});

	kill 'STOP', $walwriter;
	$sending = start_sending($kafka, 'forgotten', $file);
	let_it_apply($node, "round $round: events flow", 4_000);
	my $had = count_applied($node);
	$node->kill9;
	kill 'KILL', $walwriter;

	# look before the worker applies the records again
	$node->append_conf('postgresql.conf', "spine.enabled = off\n");
	kill9_and_start($node);
	my $has = count_applied($node);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM arrivals'), $has, "round $round: the rows are as many as the positions say");
	$lost += $had - $has if $has < $had;
	$node->append_conf('postgresql.conf', "spine.enabled = on\n");
	$node->reload;
	finish $sending or die 'the events were not delivered';
}
cmp_ok($lost, '>', 0, 'commits are lost');
note "in $rounds kills, $lost records that had been applied were lost, and applied again";
comes_to($node, 'after the losses the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});
ok(wait_applied($node), 'everything is applied in the end');
copy_log($node, $kafka->{address}, 'forgotten', $rounds * 10_000);
audit($node, 'after the losses');

$node->stop;
stop_kafka($kafka);
done_testing();

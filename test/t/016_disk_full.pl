# A disk that is really full, and then has room again: nothing is lost, nothing is
# applied twice, and the trouble is reported meanwhile.  When a table cannot grow, the
# worker waits and continues by itself.  When pg_wal cannot grow, PostgreSQL itself ends;
# once it is started again, the pipeline continues from its last commit.
#
# Broken when a full disk makes a dead letter, moves the offsets, stops the pipeline for
# good, keeps the worker busy with retries, or is missing from spine_status or the log.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;

# The disks are small file systems in memory, in a mount namespace of the test's own,
# which ends with its last process.  Mounting needs root, so the test enters a user
# namespace in which it is root.  PostgreSQL refuses root, so the test then enters a
# second user namespace, inside the first one.
my $disks;
BEGIN
{
	$disks = ($ENV{TESTDATADIR} // "$ENV{TESTDIR}/tmp_check") . '/disks';
	if (!$ENV{SPINE_DISKS_MOUNTED})
	{
		my @enter = ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-ec', <<'SH', $disks, $>, $) + 0);
mkdir -p "$0/tables" "$0/wal"
mount -t tmpfs -o size=64m spine-tables "$0/tables"
mount -t tmpfs -o size=24m spine-wal "$0/wal"
user=$1 group=$2
shift 2
exec env SPINE_DISKS_MOUNTED=1 unshare --user --map-user="$user" --map-group="$group" "$@"
SH
		my $error = qx{@{[ map { "'" . s/'/'\\''/gr . "' " } @enter, 'true' ]} 2>&1};

		exec @enter, $^X, (map { "-I$_" } @INC), $0 if $? == 0;
		require Test::More;
		Test::More::plan(skip_all => "a file system of the test's own cannot be mounted here: $error");
	}
}

use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $partitions = 3;
my $broker = start_broker('events', $partitions);
my $node = spine_node('main', extension => 0,
	init => [ extra => [ "--waldir=$disks/wal/pg_wal", '--wal-segsize=1' ] ],
	conf => <<CONF);
spine.brokers = '$broker->{address}'
restart_after_crash = on	# as it is by default
autovacuum = off			# autovacuum would make room, and so would
wal_recycle = off
CONF
mkdir "$disks/tables/space" or die $!;
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$disks/tables/space'");
$node->safe_psql('postgres', 'CREATE DATABASE shop TABLESPACE small');
$node->safe_psql('shop', 'CREATE EXTENSION spine');

sub query
{
	return $node->safe_psql('shop', $_[0]);
}

# Sends events of some tenants' orders.  Some of the orders exist already.
my $sent = 0;
sub send_events
{
	my ($n) = @_;

	send_lines($broker->{address}, 'events', undef, join '', map {
		my $tenant = 'tenant-' . $sent % 7;
		"$tenant\t" . order_event(tenant => $tenant, order_id => 'ord-' . $sent % 1999,
			amount_cents => 500 + $sent, event_time => sprintf('2026-01-01T%02d:%02d:%02dZ', $sent / 3600, $sent / 60 % 60, $sent++ % 60)) . "\n"
	} 1 .. $n);
	return;
}

sub log_since
{
	my ($start) = @_;

	return substr slurp_file($node->logfile), $start;
}

# Takes all the room that is left on a disk; make_room gives it back.
sub fill
{
	my ($disk) = @_;

	open my $handle, '>', "$disks/$disk/filler" or die $!;
	1 while syswrite $handle, "\0" x 4096;
	ok($!{ENOSPC}, "$disk: the disk is full") or die $!;
	close $handle;
	return;
}

sub make_room
{
	my ($disk) = @_;

	unlink "$disks/$disk/filler" or die $!;
	return;
}

# The tables agree with the log: events has each event once, with its place in the log,
# and current_orders has the newest event of each order.
sub audit
{
	my ($what) = @_;

	ok(wait_applied($node, 'shop'), "$what: all is applied");
	my $log = join "\n", sort map {
		/^(\S+)\t.*"event_id":"([^"]+)"/ or die "not sent by us: $_";
		"$1 $2"
	} split /\n/, read_log($broker->{address}, 'events', "%p:%o\t%s\n");
	my $events = join "\n", sort split /\n/,
	  query(q{SELECT kafka_partition || ':' || kafka_offset || ' ' || event_id FROM events});

	ok($events eq $log, "$what: events has each event of the log once");
	is($events =~ tr/\n// + 1, $sent, "$what: nothing that was sent is missing");
	is(query(<<'SQL'), '0', "$what: current_orders has the newest event of each order");
SELECT count(*)
FROM (SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type, amount_cents, event_time
	  FROM events
	  ORDER BY tenant, order_id, event_time DESC, kafka_offset DESC) e
FULL JOIN current_orders c USING (tenant, order_id)
WHERE (e.event_type, e.amount_cents, e.event_time) IS DISTINCT FROM (c.status, c.amount_cents, c.updated_at)
SQL
	is(query('SELECT count(*) FROM spine_dead_letters'), '0', "$what: no dead letters");
	ok(wait_for_state($node, 'running', 'shop'), "$what: running");
	return;
}

send_events(2000);
audit('at first');

#
# The tables cannot grow
#
my $log_start = -s $node->logfile;
my $before = query('SELECT (SELECT count(*) FROM events), (SELECT sum(next_offset) FROM spine_offsets)');
my ($worker) = worker_pids($node);
my $rollbacks = q{SELECT xact_rollback FROM pg_stat_database WHERE datname = 'shop'};
my $rolled_back = query($rollbacks);
fill('tables');
send_events(6000);
ok($node->poll_query_until('shop', <<'SQL'), 'tables: waiting, with the reason');
SELECT bool_or(state = 'waiting' AND concat(last_error, ' HINT: ' || hint) ~ 'could not extend file .*HINT: Check free disk space') FROM spine_status
SQL

# The pauses begin at 0.1 s and double each time, which makes seven in 6.3 s.
ok($node->poll_query_until('shop', q{SELECT bool_or(last_error_at > state_since + interval '5 s') FROM spine_status}),
	'tables: the worker tries again');
$rolled_back = query($rollbacks) - $rolled_back;
note "rolled back $rolled_back times: ", query('SELECT last_error FROM spine_status LIMIT 1');
cmp_ok($rolled_back, '>', 1, 'tables: the worker tries several times');
cmp_ok($rolled_back, '<', 30, 'tables: the worker rests between attempts');
is(query(q{SELECT spine_wait('100ms')}), 'f', 'tables: spine_wait says that events are still to be applied');
cmp_ok(query('SELECT sum(lag) FROM spine_status'), '>', 0, 'tables: spine_status shows the lag');
is(query('SELECT (SELECT count(*) FROM events), (SELECT sum(next_offset) FROM spine_offsets)'), $before,
	'tables: nothing is applied, and no offset moves');
unlike(log_since($log_start), qr/continues/, 'tables: the server log does not claim that the pipeline goes on');
make_room('tables');
audit('tables, with room again');
is(join(' ', worker_pids($node)), $worker, 'tables: the worker is still the same');
like(log_since($log_start), qr/pipeline "orders" is waiting: could not extend file .*pipeline "orders" continues/s,
	'tables: the server log says that the pipeline waited and went on');

#
# pg_wal cannot grow.  The server ends and tries to restart, which needs room too.  The
# test makes room either at once, or after the server has given up.
#
foreach my $when ('late', 'at once')
{
	$log_start = -s $node->logfile;
	fill('wal');
	send_events(6000);
	for (1 .. 1000 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if log_since($log_start) =~ /PANIC: .*No space left on device/;
		usleep(1000);
	}
	make_room('wal') if $when eq 'at once';
	$node->wait_for_log(qr/database system is (shut down|ready to accept connections)/, $log_start);
	make_room('wal') if $when eq 'late';
	if (log_since($log_start) =~ /database system is shut down/)
	{
		note "$when: the test starts the server";
		$node->stop('immediate', fail_ok => 1);		# tells $node that the server has ended
		$node->start;
	}
	else
	{
		note "$when: the server has started by itself";
	}
	poll_through_restart($node, 'shop', q{SELECT bool_and(state = 'running') FROM spine_status});
	audit("wal, room made $when");
}

$node->stop;
stop_broker($broker);
done_testing();

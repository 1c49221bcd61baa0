# The embedded broker is a program of its own.  Whatever its clients send to it,
# PostgreSQL does not notice, and the records that it has acknowledged survive a crash
# restart of the server.
#
# Broken when
# - the program shares memory, descriptors or a process group with the server;
# - its end, by a packet or by kill -9, ends a session, whether the program is still a
#   child of its background worker or has become the postmaster's;
# - nobody starts another broker, or a pipeline does not say what became of the records;
# - a crash restart loses the broker's log, or lets producers overrun it;
# - the program outlives the server, or keeps running after spine.brokers is set.
#
# SPINE_TEST_SEED repeats the random choices of an earlier run.
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use FindBin;
use lib $FindBin::RealBin;
use KafkaFrames;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{SPINE_TEST_SEED} // int(rand(2**31));
srand($seed);
note "SPINE_TEST_SEED=$seed";

my $frames = 100_000;

# The postmaster adopts the orphans of its children, as process 1 of a container does.
# A signal that ends a child of the postmaster is a crash to it.
my $adopter = tempdir(CLEANUP => 1) . '/adopter';
append_to_file("$adopter.c", <<'C');
#include "postgres.h"
#include "fmgr.h"
#include <sys/prctl.h>
PG_MODULE_MAGIC;
void
_PG_init(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}
C
chomp(my $headers = `pg_config --includedir-server`);
system_or_bail($ENV{CC} // 'cc', '-shared', '-fPIC', "-I$headers", '-o', "$adopter.so", "$adopter.c");
chmod 0755, dirname($adopter);

my $node = spine_node('main', conf => <<CONF);
shared_preload_libraries = 'spine,$adopter'
restart_after_crash = on
wal_level = replica
max_wal_senders = 4
CONF

sub query { return $node->safe_psql('postgres', $_[0]) }

# A session, which a crash restart would end.
my $session;
my $session_pid;
my $server_started;

sub open_session
{
	$session = $node->background_psql('postgres');
	$session->set_query_timer_restart();
	$session_pid = $session->query_safe('SELECT pg_backend_pid()');
	$server_started = query('SELECT pg_postmaster_start_time()');
	return;
}

sub nobody_noticed
{
	my ($what) = @_;

	is($session->query_safe('SELECT pg_backend_pid()'), $session_pid, "$what: the session lives");
	is(query('SELECT pg_postmaster_start_time()'), $server_started, "$what: PostgreSQL has not restarted");
	return;
}

sub programs { return broker_programs($node) }

sub has_ended
{
	my ($what, @pids) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last unless grep { -e "/proc/$_/exe" && readlink "/proc/$_/exe" } @pids;
		usleep(100_000);
	}
	is(join(' ', grep { readlink "/proc/$_/exe" } @pids), '', "$what: the broker ends");
	return;
}

sub flows
{
	my ($what, $tenant) = @_;

	is(query("SELECT spine_produce('$tenant', 500)"), '500', "$what: events are acknowledged");
	ok(wait_applied($node), "$what: events are applied");
	is(query("SELECT count(*), count(DISTINCT event_id) FROM events WHERE tenant = '$tenant'"),
		'500|500', "$what: each event is there once");
	return;
}

open_session();
flows('at first', 'first');

#
# The program shares nothing with the server
#
my @programs = programs();
is(scalar @programs, 2, 'the program is there: a guard and the log');
foreach my $pid (@programs)
{
	my $maps = slurp_file("/proc/$pid/maps");
	my @files = grep { defined } map { readlink } glob "/proc/$pid/fd/*";
	my ($group, $its_session) = (slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr =~ /^\S+ \d+ (\d+) (\d+)/);
	my $status = slurp_file("/proc/$pid/status");
	my $data = $node->data_dir;

	unlike($maps, qr{SYSV|/dev/zero|/dev/shm|PostgreSQL\.|/postgres$|spine\.so}m, "$pid: no memory of the server's");
	unlike("@files", qr{\Q$data\E|/dev/shm|/dev/zero}, "$pid: no file of the database");
	cmp_ok(scalar @files, '<', 20, "$pid: " . scalar(@files) . ' descriptors');
	is("$group $its_session", "$programs[0] $programs[0]", "$pid: a session and process group of its own");
	my ($blocked, $ignored) = map { hex($status =~ /^$_:\s*(\S+)$/m ? $1 : 'f') & 0x7fffffff } ('SigBlk', 'SigIgn');
	is("$blocked $ignored", '0 0', "$pid: no signal is blocked or ignored");	# of the first 31
}
is(slurp_file("/proc/$programs[1]/oom_score_adj"), "1000\n", 'when memory runs out, the kernel ends the broker first');
my $address = query('SELECT spine_brokers()');
like($address, qr/^127\.0\.0\.1:\d+$/, 'the address is on loopback');

# The local addresses of the broker's listening sockets, in hexadecimal as in
# /proc/net/tcp.
my %inodes = map { /^socket:\[(\d+)\]$/ ? ($1 => 1) : () } map { readlink // '' } glob "/proc/$programs[1]/fd/*";
my @listening = map { my @f = split; $f[3] eq '0A' && $inodes{ $f[9] } ? $f[1] : () }
  map { split /\n/, slurp_file($_) } grep { -e } ('/proc/net/tcp', '/proc/net/tcp6');
is(scalar(grep { /^0100007F:/ } @listening), 1, 'the broker listens on loopback');
is(scalar @listening, 1, 'the broker listens nowhere else');

#
# A packet that kills the mock cluster
#
sub die_of_a_packet
{
	send_frames(1, sub { return query('SELECT spine_brokers()') }, \&join_group_of_death);
	return;
}

# Waits until the pipeline runs on the next broker, and says how the last one ended.
sub says_what_happened
{
	my ($what, $reason) = @_;

	comes_to($node, "$what: the pipeline says what happened, and continues", <<SQL);
SELECT bool_and(state = 'running' AND last_error =
	'the embedded broker ended ($reason); records that were acknowledged but not applied are lost')
FROM spine_status WHERE pipeline = 'orders'
SQL
	return;
}

my $log_start = -s $node->logfile;
die_of_a_packet();
has_ended('a packet', @programs);
ok($node->wait_for_log(qr/embedded broker ended \(signal (6|11)\)/, $log_start), 'the server log says how the broker ended');
says_what_happened('a packet', 'signal 6');
nobody_noticed('a packet');
isnt(query('SELECT spine_brokers()'), $address, 'another broker is started');
flows('after the packet', 'second');

@programs = programs();
kill 'KILL', $programs[1];
has_ended('kill -9', @programs);
says_what_happened('kill -9', 'signal 9');
@programs = programs();
kill 'KILL', $programs[0];
has_ended('kill -9 of its guard', @programs);
says_what_happened('kill -9 of its guard', 'without a word');
nobody_noticed('kill -9');
flows('after kill -9', 'third');

# Every record in a new log is new, even for a pipeline that starts at the end.
query(<<'SQL');
CREATE TABLE late (id text);
INSERT INTO spine_pipelines (name, start) VALUES ('late', 'latest');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('late', 'late', 'append', '{"id": "event_id"}');
SQL
comes_to($node, 'a pipeline that starts at the end has positions', q{SELECT count(*) = 3 FROM spine_offsets WHERE pipeline = 'late'});
query(q{SELECT spine_pause('late')});
comes_to($node, 'the pipeline is paused', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
@programs = programs();
kill 'KILL', $programs[1];
says_what_happened('while a pipeline is paused', 'signal 9');
is(query(q{SELECT spine_produce('late', 7)}), '7', 'the next broker takes events');
query(q{SELECT spine_resume('late')});
ok(wait_applied($node), 'the paused pipeline continues');
is(query(q{SELECT count(*) FROM late}), '7', 'it reads the new log from its start');
query(q{DELETE FROM spine_pipelines WHERE name = 'late'});

#
# A crash restart: the log is still there, with all its records
#
sub crash
{
	my ($what, $victim) = @_;
	my $start = -s $node->logfile;

	kill 'KILL', $victim;
	ok($node->wait_for_log(qr/database system is ready to accept connections/, $start), "$what: a crash restart");
	ok(poll_through_restart($node, 'postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine worker'}),
		"$what: the worker is back");
	$session->quit;
	open_session();
	return;
}

sub pid_of { return query("SELECT pid FROM pg_stat_activity WHERE backend_type = '$_[0]'") }

@programs = programs();
$address = query('SELECT spine_brokers()');
my $lock = $node->background_psql('postgres', on_error_stop => 0);
$lock->query_safe('BEGIN; LOCK TABLE events IN SHARE MODE');
is(query("SELECT spine_produce('held $_', 3000)"), '3000', "held $_: events are acknowledged") foreach 1 .. 4;
wait_for_held_batch($node);
crash('kill -9 of a worker', pid_of('spine worker'));
$lock->quit;
ok(wait_applied($node), 'what was acknowledged is applied');
is(query(q{SELECT count(*), count(DISTINCT event_id) FROM events WHERE tenant LIKE 'held %'}),
	'12000|12000', 'every acknowledged event is there once');
is(join(' ', programs()), "@programs", 'the broker is the same as before the crash');
my $postmaster = slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr;
like(slurp_file("/proc/$programs[0]/status"), qr/^PPid:\s$postmaster$/m, 'the postmaster has inherited the broker');
is(query('SELECT spine_brokers()'), $address, 'the address is the same');
is(query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'}), '1', 'one process tends the broker');
is(query(q{SELECT string_agg(last_error, ' ') FROM spine_status}), '', 'spine_status has no error');

# Producers still know how much is not applied, although shared memory is new.
sub produce_until_full
{
	my ($tenant) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '3s'; SELECT spine_produce('$tenant', 1000000)");

	like($err, qr/statement timeout/, "$tenant: spine_produce waits for room");
	return $err =~ /has acknowledged (\d+) events/ ? $1 : undef;
}

query(q{SELECT spine_pause('orders')});
comes_to($node, 'no worker runs', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
my $before = produce_until_full('before');
cmp_ok($before, '>', 1000, "$before events fill a partition");
$log_start = -s $node->logfile;
kill 'KILL', pid_of('spine embedded broker');
ok($node->wait_for_log(qr/embedded broker found listening on \Q$address\E, with its log/, $log_start),
	'kill -9 of the process that tends the broker: its successor finds the broker');
$session->quit;
poll_through_restart($node, 'postgres', 'SELECT true');
open_session();
cmp_ok(produce_until_full('after'), '<', $before / 10, 'the crash makes no room');
query(q{SELECT spine_resume('orders')});
ok(wait_applied($node), 'a worker makes room');
cmp_ok(query(q{SELECT count(*) FROM events WHERE tenant = 'before'}), '>=', $before, 'no event was overwritten');
flows('after a crash', 'fourth');
is(join(' ', programs()), "@programs", 'after a crash: the broker is still the same');

# When the process that tends the broker is terminated, the broker stays.
my $tender = pid_of('spine embedded broker');
query("SELECT pg_terminate_backend($tender)");
comes_to($node, 'another process tends the broker',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine embedded broker' AND pid <> $tender");
is(query('SELECT spine_brokers()'), $address, 'the broker is where it was');

# The broker ends while no process tends it: the next process is told how.
$log_start = -s $node->logfile;
kill 'STOP', $programs[1];
query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'});
kill 'ABRT', $programs[1];
kill 'CONT', $programs[1];
ok($node->wait_for_log(qr/embedded broker ended \(signal 6\)/, $log_start), 'ended while untended: the server log says how');
says_what_happened('ended while untended', 'signal 6');
has_ended('ended while untended', @programs);
nobody_noticed('ended while untended');
flows('after it ended untended', 'fifth');

#
# Random and mutated frames, while events flow
#
set_config($node, 'spine.producer_rate' => 200, 'spine.producer_tenants' => 'flow', 'spine.log_interval' => '1min');
comes_to($node, 'events flow', q{SELECT count(*) > 0 FROM events WHERE tenant = 'flow'});
nobody_noticed('before the frames');
my $started = time;
my $result = send_frames($frames,
	sub { return $session->query_safe('SELECT spine_brokers()') },
	sub { return random_frame(rand() < 0.02 ? 'events' : 'fuzz') });
note sprintf('%d frames in %.0f s: the broker hung up on %d, did not answer %d, and was replaced %d times',
	$result->{taken}, time - $started, $result->{hung_up}, $result->{silent}, $result->{moved});
cmp_ok($result->{taken}, '>=', $frames, "$result->{taken} frames");
nobody_noticed('the frames');
set_config($node, 'spine.producer_rate' => 0);
comes_to($node, 'the producer is off', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine producer'});
@programs = programs();
kill 'KILL', $programs[1];		# drops what the frames left in the log
has_ended('the last broker of these', @programs);
flows('after the frames', 'sixth');
nobody_noticed('after the frames');

#
# The broker ends with the server, however the server ends, and another starts with it
#
$session->quit;
foreach my $how ('fast', 'immediate', 'kill')
{
	my @before = programs();

	is(scalar @before, 2, "$how: the broker runs");
	$how eq 'kill' ? kill9_and_start($node) : $node->stop($how);
	has_ended($how, @before);
	$node->start unless $how eq 'kill';
	flows("started again after $how", "again $how");
}

# A socket that was left, or copied with the data directory, is not taken for a broker.
$node->stop;
ok(-S $node->data_dir . '/pg_stat_tmp/spine-broker', 'a socket is left');
$node->start;
flows('with a socket left behind', 'left');
$node->backup('copy');
ok(!-e $node->backup_dir . '/copy/pg_stat_tmp/spine-broker', 'a base backup has no socket');

#
# With the user's own broker, there is no embedded one
#
@programs = programs();
my $real = start_broker('events', 3);
set_config($node, 'spine.brokers' => $real->{address});
has_ended('spine.brokers', @programs);
comes_to($node, 'no process tends a broker', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'});
ok(!-e $node->data_dir . '/pg_stat_tmp/spine-broker', 'no socket is left');
comes_to($node, q{the pipeline reads from the user's broker}, q{SELECT count(*) = 3 FROM spine_offsets WHERE cluster_id NOT LIKE 'embedded-%'});
set_config($node, 'spine.brokers' => '');
ok(wait_for_state($node, 'failed'), 'the embedded broker is another cluster');
query(q{SELECT spine_seek('orders', NULL, 'earliest')});
flows('back on the embedded broker', 'back');

# A broker that no process tends at that moment is found and ended.
@programs = programs();
query(q{ALTER SYSTEM SET spine.brokers = '127.0.0.1:1'});
query(q{SELECT pg_terminate_backend(pid), pg_reload_conf() FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'});
has_ended('spine.brokers, while untended', @programs);
set_config($node, 'spine.brokers' => '');
flows('back again', 'back again');

# Without the program, the pipeline says why there is no broker.
chomp(my $program = `pg_config --bindir`);
$program .= '/spine-broker';
@programs = programs();
rename $program, "$program.away" or die $!;
END { rename "$program.away", $program if defined $program && -e "$program.away" }
kill 'KILL', @programs;
comes_to($node, 'without the program: waiting, with the reason', q{SELECT bool_and(state = 'waiting' AND
	last_error ~ 'the embedded broker is not running: could not execute ".*/spine-broker": No such file or directory') FROM spine_status});
rename "$program.away", $program or die $!;
comes_to($node, 'with the program: running', q{SELECT bool_and(state = 'running') FROM spine_status});
flows('with the program', 'again there');
@programs = programs();
query('DROP EXTENSION spine CASCADE');
has_ended('DROP EXTENSION', @programs);

$node->stop;
stop_broker($real);
done_testing();

# Workers run wherever the extension is: in every database that has it, under any
# schema, in any encoding.  After a restart, a crash or a kill they come back by
# themselves.  They make way for DROP EXTENSION, DROP DATABASE and the like, and are back
# at once when those fail.
#
# Broken when the launcher loses sight of a database, a name is not quoted, a worker does
# not end or does not start again, or an event is lost or applied twice on the way.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $broker = start_broker('events', 3);
my $node = spine_node('main',
	init => [ extra => [ '--encoding=UTF8', '--locale=C' ] ],
	extension => 0,
	conf => "spine.brokers = '$broker->{address}'\nrestart_after_crash = on\n");

my $quoted = q{a "quoted" name};
my @databases = ('postgres', 'latin', 'icu', $quoted);

# The workers of one database.  No function of the extension is called, because the
# database may not have the extension any more.
sub workers_of
{
	my ($database) = @_;

	return $node->safe_psql('template1',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'spine worker' AND datname = \$n\$$database\$n\$");
}

# Waits until a worker other than the given one is at work.
sub wait_for_new_worker
{
	my ($database, $old_pid) = @_;

	return $node->poll_query_until($database,
		"SELECT coalesce(bool_and(state = 'running' AND worker_pid <> $old_pid), false) FROM spine_status");
}

sub produce
{
	my ($n) = @_;

	is($node->safe_psql('postgres', "SELECT spine_produce('acme', $n)"), $n, "$n events are sent");
	return;
}

# Every record of the log is there once, and current_orders has the newest events.
sub audit
{
	my ($what, @names) = @_;

	foreach my $database (@names)
	{
		ok(wait_applied($node, $database), "$what: $database has caught up");
		is($node->safe_psql($database, <<'SQL'), 't|t|0', "$what: every event is there once in $database");
SELECT sum(next_offset) = (SELECT count(*) FROM events) + (SELECT count(*) FROM spine_dead_letters),
	   (SELECT count(*) = count(DISTINCT event_id) FROM events),
	   (SELECT count(*) FROM (
			SELECT DISTINCT ON (tenant, order_id) * FROM events
			ORDER BY tenant, order_id, event_time DESC, kafka_offset DESC) e
		FULL JOIN current_orders c USING (tenant, order_id)
		WHERE (c.status, c.amount_cents, c.updated_at)
			IS DISTINCT FROM (e.event_type, e.amount_cents, e.event_time))
FROM spine_offsets
SQL
	}
	return;
}

#
# Several databases, each of which consumes for itself
#
$node->safe_psql('postgres', $_) foreach (
	q{CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'},
	q{CREATE DATABASE icu TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'de'},
	q{CREATE DATABASE "a ""quoted"" name"},
	q{ALTER DATABASE "a ""quoted"" name" SET search_path = "Its own; schema"});
$node->safe_psql($quoted, q{CREATE SCHEMA "Its own; schema"; CREATE EXTENSION spine SCHEMA "Its own; schema"});
$node->safe_psql($_, 'CREATE EXTENSION spine') foreach ('postgres', 'latin', 'icu');

produce(1000);
audit('at first', @databases);

#
# What an encoding cannot hold becomes a dead letter there, and stops nothing
#
my @odd = map { order_event(@$_) } (
	[ order_id => 'ord-a', tenant => "Gr\x{fc}\x{df}e" ],
	[ order_id => 'ord-b', tenant => "1 \x{20ac}" ],
	[ order_id => 'ord-c', tenant => "\x{1f600}" ],
	[ order_id => 'ord-d', tenant => "Gr\x{fc}\x{df}e" ]);
send_lines($broker->{address}, 'events', 0, join('', map { "k\t$_\n" } @odd));
audit('other characters', @databases);

my $arrived = q{SELECT string_agg(order_id, ' ' ORDER BY order_id COLLATE "C") FROM events WHERE order_id ~ '[a-d]$'};
is($node->safe_psql($_, $arrived), 'ord-a ord-b ord-c ord-d', "$_ holds all of them")
  foreach ('postgres', 'icu', $quoted);
is($node->safe_psql('latin', $arrived), 'ord-a ord-d', 'LATIN1 holds what it can');
is($node->safe_psql('latin', q{SELECT count(*) FROM events WHERE tenant = 'Gr' || chr(252) || chr(223) || 'e'}),
	'2', 'the characters are the same in LATIN1');
is($node->safe_psql('latin', q{SELECT sqlstate, encode(value, 'hex') FROM spine_dead_letters ORDER BY kafka_offset}),
	join("\n", map { '22P05|' . unpack('H*', $_) } @odd[ 1, 2 ]), 'LATIN1 keeps the bytes of the rest as dead letters');

# and the other way: from LATIN1 into the log
is($node->safe_psql('latin', q{SELECT spine_produce('Caf' || chr(233), 10)}), '10',
	'spine_produce from LATIN1');
ok(wait_applied($node, $_) && $node->safe_psql($_,
		q{SELECT count(*) = 10 FROM events WHERE tenant = 'Caf' || chr(233)}) eq 't',
	"the events from LATIN1 arrive in $_") foreach @databases;

#
# Restart, crash, kill
#
$node->restart;
produce(100);
audit('restart', @databases);

$node->stop('immediate');
$node->start;
produce(100);
audit('immediate shutdown', @databases);

my $pid = workers_of('postgres');
my $log_start = -s $node->logfile;
kill 'KILL', $pid;
$node->wait_for_log(qr/database system is ready to accept connections/, $log_start);
ok(wait_for_new_worker('postgres', $pid), 'kill -9 of a worker: the server recovers, the worker is back');
produce(100);
audit('kill -9 of a worker', @databases);

$pid = workers_of('postgres');
my $other_pid = workers_of('icu');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ok(wait_for_new_worker('postgres', $pid), 'a terminated worker is started again');
is(workers_of('icu'), $other_pid, 'the workers of other databases never notice');

my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'spine launcher'};
my $launcher_pid = $node->safe_psql('postgres', $launcher);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher_pid)");
ok($node->poll_query_until('postgres', "SELECT pid <> $launcher_pid FROM ($launcher) l"),
	'a terminated launcher is started again');
is(workers_of('icu'), $other_pid, 'the workers outlive the launcher');

#
# SIGTERM ends a worker at once, whatever it waits for
#
sub time_to_end
{
	my ($what, $victim) = @_;
	my $start = time;

	kill 'TERM', $victim;
	usleep(2000) while -d "/proc/$victim" && time < $start + 90;
	my $took = time - $start;
	# otherwise the worker would end when librdkafka stops waiting for an answer, after a minute
	cmp_ok($took, '<', 50, sprintf('SIGTERM ends a worker %s (%.0f ms)', $what, $took * 1000));
	return;
}

$pid = workers_of('postgres');
time_to_end('in the middle of a fetch', $pid);
ok(wait_for_new_worker('postgres', $pid), 'the worker that was fetching is back');

my $broker_pid = $broker->{process}{KIDS}[0]{PID};
kill 'STOP', $broker_pid;
time_to_end('that fetches from a broker that hangs', workers_of('icu'));
$node->poll_query_until('template1',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine worker' AND datname = 'icu'});
time_to_end('that asks a broker that hangs for the partitions', workers_of('icu'));
kill 'CONT', $broker_pid;
ok(wait_for_state($node, 'running', 'icu'), 'the worker is back when the broker is');

#
# spine.enabled, per database
#
$pid = workers_of('postgres');
$node->safe_psql('postgres', 'ALTER DATABASE icu SET spine.enabled = off; SELECT pg_reload_conf()');
ok(wait_for_state($node, 'stopped', 'icu'), 'spine.enabled = off stops the workers of a database');
ok( $node->poll_query_until('template1',
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker' AND datname = 'icu'}),
	'these workers are gone');
is(workers_of('postgres'), $pid, 'the workers of other databases stay');
$node->safe_psql('postgres', 'ALTER DATABASE icu RESET spine.enabled; SELECT pg_reload_conf()');
ok(wait_for_state($node, 'running', 'icu'), 'RESET spine.enabled brings the workers back');

#
# DDL that needs the workers out of the way, while events flow
#
set_config($node, 'spine.producer_rate' => 3000, 'spine.producer_tenants' => 'a,b,c');
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM events WHERE tenant = 'c')}),
	'events flow');

# DROP EXTENSION, rolled back and committed
$pid = workers_of($quoted);
$node->safe_psql($quoted, <<'SQL');
BEGIN;
DROP EXTENSION spine;
SELECT pg_sleep(0.1);
ROLLBACK;
SQL
ok(wait_for_new_worker($quoted, $pid), 'after a DROP EXTENSION that is rolled back, workers run');

$node->safe_psql($quoted, 'DROP EXTENSION spine');
is(workers_of($quoted), '', 'DROP EXTENSION: no workers');
$node->safe_psql($quoted, q{CREATE EXTENSION spine SCHEMA "Its own; schema"});
ok(wait_for_state($node, 'running', $quoted), 'CREATE EXTENSION: workers run');

$node->safe_psql($quoted, q{DROP SCHEMA "Its own; schema" CASCADE});
is(workers_of($quoted), '', 'DROP SCHEMA CASCADE: no workers');
$node->safe_psql($quoted, q{CREATE SCHEMA "Its own; schema"; CREATE EXTENSION spine SCHEMA "Its own; schema"});
ok(wait_for_state($node, 'running', $quoted), 'CREATE EXTENSION again: workers run');

# a copy, which is then renamed
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE icu');
ok(wait_for_state($node, 'running', 'icu'), 'CREATE DATABASE TEMPLATE: the original continues');
ok(wait_for_state($node, 'running', 'copy'), 'CREATE DATABASE TEMPLATE: the copy runs');
$node->safe_psql('postgres', 'ALTER DATABASE copy RENAME TO "co py"');
ok(wait_for_state($node, 'running', 'co py'), 'ALTER DATABASE RENAME: the renamed database continues');

# a statement that is refused disturbs nobody
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN CREATEDB');
$pid = workers_of('icu');
foreach my $refused ('DROP DATABASE icu', 'ALTER DATABASE icu RENAME TO mine',
	'CREATE DATABASE mine TEMPLATE icu', 'ALTER DATABASE icu SET TABLESPACE pg_default')
{
	my ($rc, $out, $err) = $node->psql('postgres', $refused, extra_params => [ '-U', 'nobody' ]);
	like($err, qr/must be owner|permission denied/, "$refused, by a role that may not: refused");
}
my ($rc, $out, $err) = $node->psql('icu', 'DROP EXTENSION spine', extra_params => [ '-U', 'nobody' ]);
like($err, qr/must be owner/, 'DROP EXTENSION, by a role that may not: refused');
is(workers_of('icu'), $pid, 'the workers never notice refused statements');

# a role that may, but not in a transaction
$pid = workers_of('icu');
($rc, $out, $err) = $node->psql('postgres', "BEGIN;\nDROP DATABASE icu;");
like($err, qr/cannot run inside a transaction block/, 'DROP DATABASE in a transaction: refused');
ok(wait_for_new_worker('icu', $pid), 'after a refused DROP DATABASE the workers are back');

$node->safe_psql('postgres', 'DROP DATABASE "co py"');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'co py'}), '0',
	'DROP DATABASE while events flow');
$node->safe_psql('postgres', 'CREATE DATABASE "co py"');
is($node->safe_psql('co py', 'SELECT 1'), '1', 'the name is free again');
is(workers_of('co py'), '', 'a new database of that name has no workers');

#
# Nothing is lost on the way
#
set_config($node, 'spine.producer_rate' => 0);
ok($node->poll_query_until('postgres',
		q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'spine producer')}),
	'the producer is off');
audit('after all that', @databases);

#
# More pipelines than there is room for: those that were left out start later
#
$log_start = -s $node->logfile;
$node->safe_psql('postgres', <<'SQL');
SELECT spine_pause('orders');
INSERT INTO spine_pipelines (name) SELECT 'another ' || i FROM generate_series(1, 128) i;
SQL
ok($node->wait_for_log(qr/workers of spine are not started: the server has room for 128/, $log_start), 'there is not enough room for all workers');
$node->safe_psql('postgres', q{SELECT spine_resume('orders'); DELETE FROM spine_pipelines WHERE name LIKE 'another %'});
ok($node->poll_query_until('postgres', q{SELECT bool_and(state = 'running') FROM spine_status}),
	'once there is room, the pipeline that was left out runs');

$node->stop;
stop_broker($broker);
done_testing();

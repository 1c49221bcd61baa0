# Other people's locks, statements and transactions: a batch waits for them, fails
# because of them or overtakes them, and is applied once.
#
# Broken when spine_status does not show that the worker waits, when a deadlock or a
# change of a table makes a dead letter, moves the offsets or stops the pipeline for
# good, or when a user's transaction and a batch lose each other's changes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run qw(start finish);
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('events', 2);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
deadlock_timeout = '100ms'
CONF

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

# Sends events of the given orders, each event a second newer than the one before.
my $sent = 0;
sub send_events
{
	my ($partition, @orders) = @_;

	send_lines($broker->{address}, 'events', $partition, join '', map {
		"acme\t" . order_event(order_id => "ord-$_", amount_cents => 500 + $sent, event_type => 'order_' . $sent % 3,
			event_time => sprintf('2026-01-%02dT%02d:%02d:%02dZ', 1 + $sent / 86400, $sent / 3600 % 24, $sent / 60 % 60, $sent++ % 60)) . "\n"
	} @orders);
	return;
}

# The tables agree with the log: events has each event once, with its place in the log,
# current_orders has the newest event of each order, and the totals are those of
# current_orders.
sub audit
{
	my ($what) = @_;

	ok(wait_applied($node), "$what: all is applied");
	my $log = join "\n", sort map {
		/^(\S+)\t.*"event_id":"([^"]+)"/ or die "not sent by us: $_";
		"$1 $2"
	} split /\n/, read_log($broker->{address}, 'events', "%p:%o\t%s\n");
	my $events = join "\n", sort split /\n/,
	  query(q{SELECT kafka_partition || ':' || kafka_offset || ' ' || event_id FROM events});

	ok($events eq $log, "$what: events has each event of the log once");
	is(query(<<'SQL'), '0', "$what: current_orders has the newest event of each order");
SELECT count(*)
FROM (SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type, amount_cents, event_time
	  FROM events
	  ORDER BY tenant, order_id, event_time DESC) e
FULL JOIN current_orders c USING (tenant, order_id)
WHERE (e.event_type, e.amount_cents, e.event_time) IS DISTINCT FROM (c.status, c.amount_cents, c.updated_at)
SQL
	is(query(<<'SQL'), '0', "$what: the totals are those of current_orders");
SELECT count(*)
FROM (SELECT tenant, currency, status, sum(orders) AS orders, sum(amount_cents) AS cents
	  FROM spine_order_totals GROUP BY 1, 2, 3 HAVING sum(orders) <> 0) t
FULL JOIN (SELECT tenant, currency, status, count(*) AS orders, sum(amount_cents) AS cents
		   FROM current_orders GROUP BY 1, 2, 3) o USING (tenant, currency, status)
WHERE (t.orders, t.cents) IS DISTINCT FROM (o.orders, o.cents)
SQL
	is(query('SELECT count(*) FROM spine_dead_letters'), '0', "$what: no dead letters");
	ok(wait_for_state($node, 'running'), "$what: running");
	return;
}

send_events(0, 0 .. 999);
audit('at first');

my $user = $node->background_psql('postgres', on_error_stop => 0);
my $user_pid = $user->query_safe('SELECT pg_backend_pid()');

#
# Locks that are held for a long time.  The timeouts of statements, of transactions and
# of idle transactions do not apply to the worker.
#
my @timeouts = ('statement_timeout', 'idle_in_transaction_session_timeout',
	query(q{SELECT name FROM pg_settings WHERE name = 'transaction_timeout'}) || ());
query("ALTER DATABASE postgres SET $_ = '300ms'") foreach @timeouts;
$ENV{PGOPTIONS} = join ' ', map { "-c $_=0" } @timeouts;	# not for the test's own statements
my ($worker) = worker_pids($node);
query('SELECT pg_reload_conf()');
ok($node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'spine worker' AND pid <> $worker}), 'another worker starts, under the timeouts');
ok(wait_for_state($node, 'running'), 'the other worker runs');
($worker) = worker_pids($node);
foreach my $statement ('LOCK TABLE events', 'LOCK TABLE current_orders IN SHARE MODE',
	q{UPDATE current_orders SET currency = 'EUR' WHERE order_id = 'ord-5'})
{
	my $lock = $statement =~ /LOCK/ ? 'relation' : 'transactionid';

	my $start = query('SELECT clock_timestamp()');

	$user->query_safe("BEGIN; $statement");
	send_events(0, 0 .. 9);
	ok($node->poll_query_until('postgres', <<SQL), "$statement: the worker waits, and says for whom and since when");
SELECT count(*) = 2 AND bool_and(state = 'waiting' AND state_since > '$start' AND last_error_at = state_since
	AND last_error = 'a lock ($lock) is held by process $user_pid'
	AND hint = 'See pg_stat_activity for what that does.')
FROM spine_status
SQL
	is(query('SELECT sum(lag) FROM spine_status'), '10', "$statement: spine_status shows the lag");
	ok($node->poll_query_until('postgres', qq{SELECT clock_timestamp() - xact_start > '1 s' FROM pg_stat_activity WHERE pid = $worker}),
		"$statement: the worker waits for longer than the timeouts");
	$user->query_safe('COMMIT');
	audit($statement);
	is(query('SELECT count(*) FROM spine_status WHERE last_error IS NOT NULL'), '0', "$statement: no error is left in spine_status");
}
is(join(' ', worker_pids($node)), $worker, 'one worker has applied all of it');
query("ALTER DATABASE postgres RESET $_") foreach @timeouts;
delete $ENV{PGOPTIONS};

#
# A snapshot that is held
#
$user->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $seen = $user->query_safe('SELECT count(*) FROM events');
send_events(0, 0 .. 99);
audit('beside an old snapshot');
is($user->query_safe('SELECT count(*) FROM events'), $seen, 'the old snapshot sees none of the new events');
$user->query_safe('COMMIT');

# While an old snapshot is held, no version of a row can be removed.  Each batch adds
# versions of its rows in spine_offsets and spine_order_totals, and must not walk through
# all the earlier ones.  The server's statistics count the blocks that 100 batches read
# with few old versions, and with many.
set_config($node, 'spine.batch_rows' => 1, 'spine.batch_interval' => 0);
my $batches = query(q{SELECT n_tup_upd FROM pg_stat_all_tables WHERE relname = 'spine_offsets'});

sub apply_singly
{
	my ($n) = @_;

	send_events(1, map { $_ % 10 } 1 .. $n);
	$batches += $n;
	ok($node->poll_query_until('postgres',
		"SELECT n_tup_upd >= $batches FROM pg_stat_all_tables WHERE relname = 'spine_offsets'"), "$n batches");
	return;
}

sub blocks_of_100
{
	my $read = q{SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
		FROM pg_statio_all_tables WHERE relname IN ('spine_offsets', 'spine_order_totals') ORDER BY relname};
	my @before = split /\n/, query($read);

	apply_singly(100);
	my @after = split /\n/, query($read);
	return map { $after[$_] - $before[$_] } 0, 1;
}

$user->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM spine_offsets');
apply_singly(1);
my @blocks_first = blocks_of_100();
apply_singly(3000);
my @blocks_last = blocks_of_100();
note "blocks of spine_offsets and of spine_order_totals in 100 batches: @blocks_first, and @blocks_last after 3,000 more";
cmp_ok($blocks_last[0], '<', 2 * $blocks_first[0], 'beside an old snapshot, a batch does not read more of spine_offsets');
cmp_ok($blocks_last[1], '<', 4 * $blocks_first[1], 'beside an old snapshot, a batch does not read ever more of spine_order_totals');
my $more_rows = 'SELECT count(*) FROM spine_order_totals WHERE session > 262143';
cmp_ok(query($more_rows), '>', 0, 'the worker begins new rows in spine_order_totals');
$user->query_safe('COMMIT');
for (1 .. 20)
{
	last if query($more_rows) == 0;
	apply_singly(100);
}
is(query($more_rows), '0', 'the worker merges these rows once the snapshot is gone');
query("ALTER SYSTEM RESET spine.$_") foreach 'batch_rows', 'batch_interval';
query('SELECT pg_reload_conf()');
audit('after many batches beside an old snapshot');
$user->quit;

#
# The tables are rewritten, reindexed and altered repeatedly, while events arrive in
# small batches.
#
set_config($node, 'spine.batch_rows' => 20);

# Repeats the statements until the events sent before them are applied, and at least
# three times.
sub under_load
{
	my ($what, @statements) = @_;
	my $n = 0;

	send_events($_, map { $_ % 1000 } 1 .. 2000) foreach 0, 1;
	while ($n < 3 || query('SELECT sum(next_offset) FROM spine_offsets') < $sent)
	{
		$node->safe_psql('postgres', $_) foreach @statements;
		$n++;
	}
	note "$what: $n times";
	audit($what);
	return;
}

under_load('VACUUM FULL', 'VACUUM FULL current_orders', 'VACUUM FULL events');
under_load('CLUSTER', 'CLUSTER current_orders USING current_orders_pkey');
under_load('REINDEX', 'REINDEX TABLE current_orders', 'REINDEX TABLE events');
under_load('REINDEX CONCURRENTLY', 'REINDEX TABLE CONCURRENTLY current_orders');
under_load('ADD COLUMN and DROP COLUMN',
	'ALTER TABLE current_orders ADD COLUMN plain text', 'ALTER TABLE events ADD COLUMN plain text',
	'ALTER TABLE current_orders ADD COLUMN filled integer NOT NULL DEFAULT 7',
	'ALTER TABLE events ADD COLUMN filled timestamptz DEFAULT clock_timestamp()',
	'ALTER TABLE current_orders DROP COLUMN plain, DROP COLUMN filled',
	'ALTER TABLE events DROP COLUMN plain, DROP COLUMN filled');
under_load('a column of a sink dropped and added again',
	'ALTER TABLE current_orders DROP COLUMN currency',
	q{ALTER TABLE current_orders ADD COLUMN currency text NOT NULL DEFAULT 'USD'},
	'SELECT spine_recount_orders()', 'SELECT pg_reload_conf()');

#
# Users who keep changing the same orders, two in each transaction
#
sub with_users
{
	my ($level) = @_;
	my $script = $node->basedir . '/script';
	my $log = $node->basedir . '/pgbench.log';
	my $deadlocks = q{SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'};
	my $before = query($deadlocks);

	append_to_file($script, <<PGBENCH) unless -e $script;
\\set a random(0, 999)
\\set b random(0, 999)
BEGIN;
UPDATE current_orders SET currency = 'EUR' WHERE order_id = 'ord-' || :a;
UPDATE current_orders SET currency = 'GBP' WHERE order_id = 'ord-' || :b;
COMMIT;
PGBENCH
	my $users = do
	{
		local $ENV{PGAPPNAME} = 'pgbench';
		local $ENV{PGOPTIONS} = "-c default_transaction_isolation=$level";
		start([ 'pgbench', '--no-vacuum', '--file', $script, '--client', 3, '--time', 600, '--max-tries', 10,
				$node->connstr('postgres') ], '<', \undef, '>', $log, '2>&1');
	};

	ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pgbench'}), "users, $level");
	send_events($_, map { $_ * 7 % 1000 } 1 .. 2000) foreach 0, 1;
	ok(wait_applied($node), "users, $level: all is applied");
	ok($users->pumpable, "users, $level: the users are still at work") or diag slurp_file($log);
	$users->signal('TERM');
	finish $users;
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'}), "users, $level: the users are gone");
	note query($deadlocks) - $before, ' deadlocks';
	audit("users, $level");
	return;
}

set_config($node, 'spine.batch_rows' => 200);
with_users('read\\ committed');
with_users('serializable');

#
# Two workers that write the same orders, which one of them reads in reverse.  Each worker
# sorts its batch by key, so they cannot wait for each other.
#
set_config($node, 'spine.batch_rows' => 50000, 'spine.workers' => 2, 'spine.batch_interval' => '500ms');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'spine worker'}),
	'two workers start');
for my $round (1 .. 5)
{
	my $start = query(q{SELECT clock_timestamp()});

	ok(wait_for_state($node, 'running'), "round $round: both workers run");
	query(q{SELECT spine_pause('orders')});
	ok(wait_for_state($node, 'paused'), "round $round: paused");
	send_events(0, 0 .. 4999);
	send_events(1, reverse 0 .. 4999);
	query(q{SELECT spine_resume('orders')});
	audit("two workers, round $round");
	is(query(qq{SELECT count(*) FROM spine_status WHERE last_error_at > '$start' AND last_error ~ 'deadlock detected'}),
		'0', "round $round: no deadlock");
}

#
# The tables are emptied while events arrive.  The events that are applied after that
# are there.
#
set_config($node, 'spine.batch_rows' => 20, 'spine.workers' => 1);
send_events($_, 0 .. 1999) foreach 0, 1;
ok($node->poll_query_until('postgres', 'SELECT sum(next_offset) > 100 FROM spine_offsets'), 'some events are applied');
query('TRUNCATE events, current_orders');
ok(wait_applied($node), 'TRUNCATE: all is applied');
is(query(<<'SQL'), '0', 'TRUNCATE: current_orders has the newest event of each order in events');
SELECT count(*)
FROM (SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type, event_time
	  FROM events ORDER BY tenant, order_id, event_time DESC) e
FULL JOIN current_orders c USING (tenant, order_id)
WHERE (e.event_type, e.event_time) IS DISTINCT FROM (c.status, c.updated_at)
SQL
is(query(<<'SQL'), '', 'TRUNCATE: events has every event from some offset on');
SELECT kafka_partition, count(*)
FROM events JOIN spine_offsets ON partition = kafka_partition
GROUP BY kafka_partition, next_offset HAVING count(*) <> next_offset - min(kafka_offset)
SQL
is(query('SELECT count(*) FROM spine_dead_letters'), '0', 'TRUNCATE: no dead letters');

$node->stop;
stop_broker($broker);
done_testing();

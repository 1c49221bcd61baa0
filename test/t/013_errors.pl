# An error that is not a record's fault loses nothing and blames no record.  If it will
# pass by itself, the pipeline waits.  If a person has to act, the pipeline says so, with
# a hint, and continues without a restart once the cause is fixed.
#
# Broken when an error of the schema, of privileges, of locks or of the broker makes a
# dead letter, moves the offsets, stops the pipeline for good, or is missing from
# spine_status, with its reason and its time.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $broker = start_broker('events', 3);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'\n");
my $orders = 0;

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Sends an event of a new order, and returns the order.
sub send_order
{
	my $order_id = 'ord-' . ++$orders;

	send_lines($broker->{address}, 'events', 0, "acme\t" . order_event(order_id => $order_id) . "\n");
	return $order_id;
}

# Causes trouble, and checks that the pipeline says so.
sub gets_into_trouble
{
	my ($what, $pipeline, $state, $reason, $cause) = @_;
	my $start = query('SELECT clock_timestamp()');

	$cause->();
	ok($node->poll_query_until('postgres', <<SQL), "$what: $state, with the reason");
SELECT bool_or(state = '$state' AND concat(last_error, ' HINT: ' || hint) ~ \$re\$$reason\$re\$ AND last_error_at > '$start'
	AND state_since BETWEEN '$start' AND clock_timestamp())
FROM spine_status WHERE pipeline = '$pipeline'
SQL
	return;
}

# Checks that a repaired pipeline continues, and has lost nothing.
sub goes_on
{
	my ($what) = @_;

	ok(wait_applied($node), "$what: the pipeline continues");
	is(query("SELECT count(*) FROM generate_series(1, $orders) n
			WHERE NOT EXISTS (SELECT FROM events WHERE order_id = 'ord-' || n)
				OR NOT EXISTS (SELECT FROM current_orders WHERE order_id = 'ord-' || n)"),
		'0', "$what: nothing is lost");
	is(query('SELECT count(*) FROM spine_dead_letters'), '0', "$what: no dead letters");
	ok($node->poll_query_until('postgres',
			q{SELECT bool_and(state = 'running') FROM spine_status}), "$what: running again");
	return;
}

# A failed pipeline tries again every few seconds, and at once after a reload.
sub nudge { return query('SELECT pg_reload_conf()') }

send_order();
goes_on('at first');

#
# The schema
#
gets_into_trouble('a column dropped', 'orders', 'failed',
	'column "currency" of table public.current_orders does not exist HINT: Add the column',
	sub {
		query('ALTER TABLE current_orders DROP COLUMN currency');
		send_order();
	});
my $position = query('SELECT sum(next_offset) FROM spine_offsets');
send_order();
nudge();
is(query('SELECT sum(next_offset) FROM spine_offsets'), $position, 'the position stays while the pipeline is failed');
my $start = time;
query(q{ALTER TABLE current_orders ADD COLUMN currency text NOT NULL DEFAULT 'USD'});
goes_on('the column restored');
note sprintf('the worker noticed by itself after %.1f s', time - $start);

gets_into_trouble('a NOT NULL column that no record fills', 'orders', 'failed',
	'column "note" of table public.current_orders must not be null, but has no default and is not written HINT: Give it',
	sub {
		query(q{ALTER TABLE current_orders ADD COLUMN note text NOT NULL DEFAULT '';
			ALTER TABLE current_orders ALTER COLUMN note DROP DEFAULT});
		send_order();
	});
query(<<'SQL');
CREATE FUNCTION take_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'noted'; RETURN NEW; END $$;
CREATE TRIGGER take_note BEFORE INSERT ON current_orders FOR EACH ROW EXECUTE FUNCTION take_note();
SQL
nudge();
goes_on('filled by a trigger');
query('ALTER TABLE current_orders DROP COLUMN note; DROP TRIGGER take_note ON current_orders');

query('ALTER TABLE events RENAME TO history');
send_order();
ok(wait_applied($node), 'a renamed target is still the target');
is(query("SELECT count(*) FROM history"), $orders, 'the renamed target has all events');
query('ALTER TABLE history RENAME TO events');

# A crash would empty the table, but not move the position back.
gets_into_trouble('a target that is no longer logged', 'orders', 'failed',
	'table public.events is unlogged and cannot be a target: .* HINT: Use ALTER TABLE public.events SET LOGGED',
	sub {
		query('ALTER TABLE events SET UNLOGGED');
		send_order();
	});
is(query("SELECT count(*) FROM events WHERE order_id = 'ord-$orders'"), '0', 'nothing is applied to an unlogged target');
query('ALTER TABLE events SET LOGGED');
goes_on('logged again');

query(<<'SQL');
CREATE TABLE parts (order_id text) PARTITION BY HASH (order_id);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SQL
make_pipeline($node, name => 'parts', topic => 'events', target => 'parts', mode => 'append');
goes_on('a sink with a partitioned target');
gets_into_trouble('a partition that is no longer logged', 'parts', 'failed',
	'table public.parts_0 is unlogged and cannot be a target',
	sub {
		query('ALTER TABLE parts_0 SET UNLOGGED');
		send_order();
	});
query('ALTER TABLE parts_0 SET LOGGED');
nudge();
goes_on('the partition logged again');
is(query('SELECT count(DISTINCT order_id) FROM parts'), $orders, 'the partition has all events');
query(q{DELETE FROM spine_pipelines WHERE name = 'parts'; DROP TABLE parts});

gets_into_trouble('the unique index of the key dropped', 'orders', 'failed',
	'table public.current_orders has no unique index on the key \(tenant, order_id\)',
	sub {
		query('ALTER TABLE current_orders DROP CONSTRAINT current_orders_pkey');
		send_order();
	});
query('ALTER TABLE current_orders ADD PRIMARY KEY (tenant, order_id)');
nudge();
goes_on('the index restored');

# A user's table, to which a user's role applies.
query(<<'SQL');
CREATE ROLE applier;
GRANT CREATE, USAGE ON SCHEMA public TO applier;
CREATE TABLE mine (id int PRIMARY KEY);
GRANT SELECT, INSERT ON mine TO applier;
SQL
make_pipeline($node, name => 'mine', topic => 'mine', target => 'mine', mode => 'append', owner => 'applier');
sub send_mine { return send_lines($broker->{address}, 'mine', 0, qq(k\t{"id": $_[0]}\n)) }

sub mine_has
{
	my ($what, $ids) = @_;

	goes_on($what);
	is(query(q{SELECT string_agg(id::text, ',' ORDER BY id) FROM mine}), $ids, "$what: all rows are there");
	return;
}

send_mine(1);
mine_has('a pipeline that another role owns', '1');
gets_into_trouble('a privilege revoked', 'mine', 'failed', 'permission denied for table mine',
	sub { query('REVOKE INSERT ON mine FROM applier'); send_mine(2) });
query('GRANT INSERT ON mine TO applier');
nudge();
mine_has('the privilege granted', '1,2');

gets_into_trouble('the target dropped', 'mine', 'failed',
	'target .*does not exist.* HINT: Create the table again and set "target" in spine_sinks',
	sub { query('DROP TABLE mine'); send_mine(3) });
query(<<'SQL');
CREATE TABLE mine (id int PRIMARY KEY);
GRANT SELECT, INSERT ON mine TO applier;
UPDATE spine_sinks SET target = 'mine' WHERE pipeline = 'mine';
SQL
mine_has('the target set to a new table', '3');
query(q{DELETE FROM spine_pipelines WHERE name = 'mine'});

#
# Locks
#

# Waits until the worker waits for a lock, and returns its pid.
sub blocked_worker
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'spine worker' AND wait_event_type = 'Lock'});
	return query(q{SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'spine worker' AND wait_event_type = 'Lock'});
}

my $user = $node->background_psql('postgres');
$user->query_safe('BEGIN; LOCK TABLE events IN SHARE MODE');
gets_into_trouble('cancelled while it waits for a lock', 'orders', 'waiting',
	'canceling statement due to user request',
	sub {
		send_order();
		query('SELECT pg_cancel_backend(' . blocked_worker() . ')');
	});
query('SELECT pg_terminate_backend(' . blocked_worker() . ')');
blocked_worker();
$user->query_safe('COMMIT');
goes_on('cancelled, terminated, and the lock released');

# The user has the second order and wants the first, the worker has the first
# and wants the second.  The worker looks for deadlocks earlier, and gives way.
query(q{UPDATE current_orders SET updated_at = '2025-01-01Z' WHERE order_id IN ('ord-1', 'ord-2')});
$user->query_safe(q{SET deadlock_timeout = '1h'; BEGIN;
	UPDATE current_orders SET currency = 'EUR' WHERE order_id = 'ord-2'});
gets_into_trouble('a deadlock', 'orders', 'waiting', 'deadlock detected',
	sub {
		send_lines($broker->{address}, 'events', 0,
			join '', map { "acme\t" . order_event(order_id => $_, event_type => 'order_paid') . "\n" } 'ord-1', 'ord-2');
		blocked_worker();
		$user->query_until(qr/sent/, "\\echo sent\nUPDATE current_orders SET currency = 'EUR' WHERE order_id = 'ord-1';\n");
	});
$user->query_safe('COMMIT');
goes_on('after the deadlock');
is(query(q{SELECT DISTINCT status, currency FROM current_orders WHERE order_id IN ('ord-1', 'ord-2')}),
	'order_paid|EUR', q{the events are applied after the user's change, and leave alone what they do not have});

query(q{ALTER DATABASE postgres SET lock_timeout = '100ms'; SELECT pg_terminate_backend(pid)
	FROM pg_stat_activity WHERE backend_type = 'spine worker'});
$user->query_safe('SET lock_timeout = 0; BEGIN; LOCK TABLE events');
gets_into_trouble('lock_timeout', 'orders', 'waiting', 'lock timeout', \&send_order);
send_order();
$user->query_safe('COMMIT');
goes_on('the lock released');
$user->quit;

# A partition on a foreign server that is away.  A table of this server plays the part,
# reached over a connection of its own.
$node->safe_psql('postgres', sprintf(<<'SQL', $node->host, $node->port));
CREATE EXTENSION postgres_fdw;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere;
CREATE TABLE regions (id int, region text) PARTITION BY LIST (region);
CREATE TABLE here PARTITION OF regions FOR VALUES IN ('here');
CREATE TABLE remote_away (id int, region text);
CREATE FOREIGN TABLE away PARTITION OF regions FOR VALUES IN ('away')
	SERVER elsewhere OPTIONS (schema_name 'public', table_name 'remote_away');
CREATE FUNCTION not_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the foreign server is away' USING ERRCODE = 'fdw_unable_to_establish_connection';
END $$;
CREATE TRIGGER not_now BEFORE INSERT ON remote_away FOR EACH ROW EXECUTE FUNCTION not_now();
SQL
gets_into_trouble('a foreign server that is away', 'regions', 'waiting', 'the foreign server is away',
	sub {
		send_lines($broker->{address}, 'regions', 0,
			join '', map { qq(k\t{"id": $_, "region": "@{[$_ % 2 ? 'away' : 'here']}"}\n) } 1 .. 4);
		make_pipeline($node, name => 'regions', topic => 'regions', target => 'regions', mode => 'append');
	});
query('DROP TRIGGER not_now ON remote_away');
goes_on('the foreign server is back');
is(query('SELECT count(*) FILTER (WHERE region = $$here$$), count(*) FROM regions'), '2|4', 'all rows are there');
query(q{DELETE FROM spine_pipelines WHERE name = 'regions'; DROP TABLE regions});

#
# The broker
#
query('CREATE TABLE later (id int)');
tell_broker($broker, 'hide later');
gets_into_trouble('a topic that does not exist', 'later', 'waiting', 'topic "later" does not exist HINT: Create it',
	sub { make_pipeline($node, name => 'later', topic => 'later', target => 'later', mode => 'append') });
tell_broker($broker, 'show later');
send_lines($broker->{address}, 'later', 0, qq(k\t{"id": 1}\n));
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM later'), 'the topic is read once it exists');
query(q{DELETE FROM spine_pipelines WHERE name = 'later'});

my $address = $broker->{address};
gets_into_trouble('a wrong address', 'orders', 'waiting', 'broker does not answer: .*(refused|down)',
	sub { set_config($node, 'spine.brokers' => '127.0.0.1:1') });
send_order();
set_config($node, 'spine.brokers' => $address);
goes_on('the right address');

gets_into_trouble('the broker is gone', 'orders', 'waiting', 'broker does not answer: ',
	sub { stop_broker($broker) });
ok(query('SELECT count(*) FROM spine_status') > 0, 'spine_status answers without a broker');

$broker = start_broker('events', 3);
send_order();
gets_into_trouble('another cluster', 'orders', 'failed',
	q{cluster is "[^"]+", but the position in topic "events" belongs to cluster "[^"]+" HINT: .*SELECT spine_seek\('orders', NULL, 'earliest'\)},
	sub { set_config($node, 'spine.brokers' => $broker->{address}) });
is(query("SELECT count(*) FROM events WHERE order_id = 'ord-$orders'"), '0', 'nothing is read from another cluster');
query(q{SELECT spine_seek('orders', NULL, 'earliest')});
nudge();
goes_on('after spine_seek, the other cluster is read');

$node->stop;
stop_broker($broker);
done_testing();

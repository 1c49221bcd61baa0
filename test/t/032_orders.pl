# What the page is told is what the tables say.  spine_order_totals is a GROUP BY over
# current_orders, in every snapshot, whoever changes orders: with whatever statement, in
# however many sessions, rolled back, refused in the middle of a batch, killed, or
# restored from a dump.  spine_orders is the same as ORDER BY updated_at DESC LIMIT n over
# current_orders, without reading all of it.  spine_stats_summary shows the tenants with the
# most orders, and adds up to all orders, without reading the totals of every tenant.
#
# Broken when
# - a trigger misses a kind of statement, counts for the new key but not against the old
#   one, needs privileges that its caller lacks, or lets one session wait for another's
#   open transaction;
# - spine_orders stops walking before it has the newest orders, takes an order twice or
#   skips one at a tie, or trusts events that were deleted;
# - the planner starts to read whole tables;
# - an index on a column that every event changes ends HOT updates.
#
# SPINE_TEST_SEED repeats the random choices of an earlier run.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run qw(start finish);
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{SPINE_TEST_SEED} // int(rand(2**31));
srand($seed);
note "SPINE_TEST_SEED=$seed";

my $broker = start_broker('events', 3);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.workers = 2
autovacuum = off		# so that a table stays as little analyzed as the test wants
CONF
my $dir = $node->basedir;

sub query
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'postgres', $sql);
}

# Sends events of orders, given as fields for order_event, to one partition.
sub send_events
{
	send_lines($broker->{address}, 'events', 0,
		join '', map { "k\t" . order_event(%$_) . "\n" } @_);
	return;
}

# Sends events while the pipeline is paused, so that they share a batch.
sub send_as_a_batch
{
	query(q{SELECT spine_pause('orders')});
	wait_for_state($node, 'paused');
	send_events(@_);
	query(q{SELECT spine_resume('orders')});
	return;
}

# How the totals differ from the orders, in one snapshot.  Where no orders are left, no
# money may be left.  `newest` may be newer than the newest order, but not older.
my $test_functions = <<'SQL';
-- The first n tenants have as many orders as the largest n, are shown as spine_stats shows
-- them, and the others are all that is left.
CREATE FUNCTION summary_differs(n integer) RETURNS boolean LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = public AS $$
	WITH answer AS MATERIALIZED (SELECT * FROM spine_stats_summary(max_tenants => n)),
		counts AS MATERIALIZED (SELECT tenant, count(*) AS orders FROM current_orders GROUP BY 1)
	SELECT ARRAY(SELECT sum(orders) FROM answer WHERE tenant IS NOT NULL GROUP BY tenant ORDER BY 1 DESC)
			<> ARRAY(SELECT orders::numeric FROM counts ORDER BY 1 DESC LIMIT n)
		OR EXISTS (SELECT tenant, currency, orders, revenue_cents, by_status FROM answer WHERE tenant IS NOT NULL
				   EXCEPT SELECT * FROM spine_stats())
		OR EXISTS ((SELECT currency, sum(orders), sum(revenue_cents) FROM answer GROUP BY 1)
				   EXCEPT SELECT currency, sum(orders), sum(revenue_cents) FROM spine_stats() GROUP BY 1)
		OR (SELECT sum(orders) FROM answer) IS DISTINCT FROM (SELECT sum(orders) FROM counts)
		OR EXISTS (SELECT FROM answer WHERE tenant IS NULL AND tenants IS DISTINCT FROM (
				   SELECT CASE WHEN count(*) <= n + 1000 THEN count(*) - n END FROM counts))
$$;

CREATE FUNCTION totals_differ() RETURNS text LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = public AS $$
	SELECT coalesce(string_agg(d::text, E'\n'), 'nothing')
	FROM (
		(SELECT tenant, currency, status, t.orders, t.cents, t.newest, o.orders, o.cents, o.newest
		FROM (SELECT tenant, currency, status, sum(orders) AS orders,
					 sum(amount_cents) AS cents, max(newest) AS newest
			  FROM spine_order_totals GROUP BY 1, 2, 3) t
		FULL JOIN (SELECT tenant, currency, status, count(*) AS orders,
						  sum(amount_cents) AS cents, max(updated_at) AS newest
				   FROM current_orders GROUP BY 1, 2, 3) o
		USING (tenant, currency, status)
		WHERE t.orders IS DISTINCT FROM coalesce(o.orders, 0)
			OR t.cents IS DISTINCT FROM coalesce(o.cents, 0)
			OR t.newest < o.newest
		LIMIT 5)
		UNION ALL
		(SELECT 'sum', currency, status, t.orders, t.cents, NULL, o.orders, o.cents, NULL
		FROM (SELECT currency, status, sum(orders) AS orders, sum(amount_cents) AS cents
			  FROM spine_order_sums GROUP BY 1, 2) t
		FULL JOIN (SELECT currency, status, count(*) AS orders, sum(amount_cents) AS cents
				   FROM current_orders GROUP BY 1, 2) o
		USING (currency, status)
		WHERE t.orders IS DISTINCT FROM coalesce(o.orders, 0)
			OR t.cents IS DISTINCT FROM coalesce(o.cents, 0)
		LIMIT 5)
		UNION ALL
		(SELECT tenant, 'count', '', t.orders, 0, NULL, o.orders, 0, NULL
		FROM (SELECT tenant, sum(orders) AS orders FROM spine_order_counts GROUP BY 1) t
		FULL JOIN (SELECT tenant, count(*) AS orders FROM current_orders GROUP BY 1) o
		USING (tenant)
		WHERE t.orders IS DISTINCT FROM coalesce(o.orders, 0)
		LIMIT 5)
		UNION ALL
		(SELECT '', 'a summary', n::text, 0, 0, NULL, 0, 0, NULL
		FROM unnest(ARRAY[1, 3, 50]) n
		WHERE summary_differs(n)
		LIMIT 5)) d
$$;

-- How spine_orders differs from the plain query.  Orders of the same time may come in any
-- order, and any of them may be cut off by the limit.
CREATE FUNCTION orders_differ(of_tenant text, of_status text, n integer) RETURNS text
LANGUAGE sql STABLE AS $$
	WITH answer AS MATERIALIZED (
		SELECT * FROM spine_orders(of_tenant, of_status, n) WITH ORDINALITY AS a
			(order_id, tenant, status, amount_cents, currency, updated_at, place)
	), naive AS MATERIALIZED (
		SELECT updated_at, row_number() OVER (ORDER BY updated_at DESC) AS place
		FROM (SELECT updated_at FROM current_orders
			  WHERE (of_tenant IS NULL OR tenant = of_tenant) AND (of_status IS NULL OR status = of_status)
			  ORDER BY updated_at DESC LIMIT n) newest
	)
	SELECT string_agg(what, ', ')
	FROM (
		SELECT count(*) || ' rows are missing, too many, or in another order, from row ' || min(place)
		FROM answer a FULL JOIN naive USING (place)
		WHERE a.updated_at IS DISTINCT FROM naive.updated_at
		HAVING count(*) > 0
		UNION ALL
		SELECT 'an order is there twice' FROM answer
		HAVING count(*) <> count(DISTINCT (tenant, order_id))
		UNION ALL
		SELECT count(*) || ' rows are not those of the table'
		FROM answer a LEFT JOIN current_orders c ON (c.tenant, c.order_id) = (a.tenant, a.order_id)
		WHERE (a.status, a.amount_cents, a.currency, a.updated_at)
				IS DISTINCT FROM (c.status, c.amount_cents, c.currency, c.updated_at)
			OR a.tenant <> of_tenant OR a.status <> of_status
		HAVING count(*) > 0
	) d (what)
$$;

-- Compares all combinations of: no tenant, the largest, the smallest, two more and an
-- unknown one; no status, each status and an unknown one; small and large limits.
-- Returns the number of cases, and the first few that differ.
CREATE FUNCTION compare_orders(OUT cases bigint, OUT differ text) LANGUAGE sql STABLE AS $$
	WITH tenants AS MATERIALIZED (
		SELECT tenant, row_number() OVER (ORDER BY count(*) DESC) AS up, row_number() OVER (ORDER BY count(*)) AS down
		FROM current_orders GROUP BY 1
	)
	SELECT count(*), coalesce((array_agg(format('(%L, %L, %s): %s', tenant, status, n, d)) FILTER (WHERE d IS NOT NULL))[:4]::text, 'nothing')
	FROM (SELECT NULL AS tenant UNION SELECT 'nobody'
		  UNION SELECT tenant FROM tenants WHERE up = 1 OR down = 1 OR up IN (7, 60)) t
	CROSS JOIN (SELECT NULL AS status UNION SELECT 'never' UNION SELECT DISTINCT status FROM current_orders) s
	CROSS JOIN unnest(ARRAY[1, 2, 7, 100, 1000]) n
	CROSS JOIN LATERAL orders_differ(tenant, status, n) d
$$;
SQL
query($test_functions);

sub totals_agree
{
	my ($what, $database) = @_;

	is(query('SELECT totals_differ()', $database), 'nothing', "totals: $what");
	return;
}

totals_agree('without orders');

#
# Totals while two workers apply events
#
query("SELECT spine_produce('$_', 5000)") for ('acme', 'globex', q{o''hara "& <co>}, 'C');
totals_agree('while events are applied');
ok(wait_applied($node), 'events of four tenants are applied');
totals_agree('after events are applied');
is(query(q{SELECT count(DISTINCT tenant), count(DISTINCT session) FROM spine_order_totals}), '4|2',
	'each worker counted in rows of its own');

#
# Changes by a role that may change current_orders, and nothing else
#
query(<<'SQL');
CREATE ROLE clerk;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON current_orders TO clerk;
SQL
foreach my $statement ('SELECT count(*) FROM spine_order_totals', 'SELECT spine_recount_orders()',
	'UPDATE spine_order_totals SET orders = 0', 'SELECT spine_count_orders()')
{
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "SET ROLE clerk; $statement");

	like($stderr, qr/permission denied/, "refused for the clerk: $statement");
}

# Random statements, one in four of which is rolled back to a savepoint.  The totals are
# checked after each.  A statement that would make a key twice is refused.
my $random_rows = <<'SQL';
(SELECT DISTINCT ON (tenant, order_id) *
 FROM (SELECT (ARRAY['t1', 't2', 't3', 'acme', ''])[ceil(random() * 5)] AS tenant,
			  'o' || ceil(random() * 50) AS order_id,
			  (ARRAY['order_placed', 'order_paid', 'order_shipped', 'order_cancelled', ''])[ceil(random() * 5)] AS status,
			  ceil(random() * 2000 - 1000)::bigint AS amount_cents,
			  (ARRAY['USD', 'EUR', 'no currency'])[ceil(random() * 3)] AS currency,
			  timestamptz '2026-01-01Z' + random() * interval '1 day' AS updated_at
	   FROM generate_series(1, ceil(random() * 20)::integer)) r)
SQL
query(<<SQL);
SELECT setseed(@{[ ($seed % 1000) / 1000 ]});
SET ROLE clerk;
DO \$do\$
DECLARE
	statements text[] := ARRAY[
		\$\$INSERT INTO current_orders SELECT * FROM $random_rows n\$\$,
		\$\$INSERT INTO current_orders SELECT * FROM $random_rows n ON CONFLICT DO NOTHING\$\$,
		\$\$INSERT INTO current_orders AS o SELECT * FROM $random_rows n
		   ON CONFLICT (tenant, order_id) DO UPDATE SET status = EXCLUDED.status, currency = EXCLUDED.currency,
				amount_cents = EXCLUDED.amount_cents, updated_at = EXCLUDED.updated_at
				WHERE o.updated_at < EXCLUDED.updated_at\$\$,
		\$\$UPDATE current_orders SET amount_cents = amount_cents * 2 WHERE order_id LIKE 'o1%'\$\$,
		\$\$UPDATE current_orders SET status = 'order_cancelled', updated_at = now() WHERE random() < 0.01\$\$,
		\$\$UPDATE current_orders SET currency = 'EUR' WHERE tenant = 't1' AND random() < 0.5\$\$,
		\$\$UPDATE current_orders SET tenant = 't2', status = 'moved' WHERE tenant = 't1' AND random() < 0.05\$\$,
		\$\$UPDATE current_orders o SET order_id = n.order_id || '-', amount_cents = n.amount_cents, tenant = n.tenant
		   FROM $random_rows n WHERE o.order_id = n.order_id AND o.tenant = 't3'\$\$,
		\$\$UPDATE current_orders SET status = 'never' WHERE false\$\$,
		\$\$DELETE FROM current_orders WHERE tenant LIKE 't%' AND random() < 0.2\$\$,
		\$\$DELETE FROM current_orders WHERE tenant = ''\$\$,
		\$\$WITH moved AS (DELETE FROM current_orders WHERE tenant = 't1' RETURNING *),
				copied AS (INSERT INTO current_orders SELECT 't4', gen_random_uuid(), status, amount_cents, 'USD', updated_at FROM moved)
		   UPDATE current_orders SET amount_cents = 5 WHERE tenant = 't3'\$\$,
		\$\$MERGE INTO current_orders o USING $random_rows n ON (o.tenant, o.order_id) = (n.tenant, n.order_id)
		   WHEN MATCHED AND n.amount_cents < 0 THEN DELETE
		   WHEN MATCHED THEN UPDATE SET status = n.status, amount_cents = n.amount_cents, currency = n.currency
		   WHEN NOT MATCHED AND n.amount_cents < 900 THEN
				INSERT VALUES (n.tenant, n.order_id, n.status, n.amount_cents, n.currency, n.updated_at)\$\$,
		\$\$TRUNCATE current_orders\$\$];
	statement text;
	done integer := 0;
	refused integer := 0;
BEGIN
	FOR i IN 1 .. 600 LOOP
		statement := statements[ceil(random() * cardinality(statements))];
		CONTINUE WHEN statement LIKE 'TRUNCATE%' AND random() < 0.7;
		BEGIN
			EXECUTE statement;
			IF random() < 0.25 THEN
				RAISE EXCEPTION 'changed my mind' USING ERRCODE = 'SP001';
			END IF;
			done := done + 1;
		EXCEPTION WHEN unique_violation OR SQLSTATE 'SP001' THEN
			refused := refused + 1;
		END;
		IF totals_differ() <> 'nothing' THEN
			RAISE EXCEPTION 'after %: %', statement, totals_differ();
		END IF;
	END LOOP;
	IF done < 200 OR refused < 50 THEN
		RAISE EXCEPTION 'too few: % done, % refused', done, refused;
	END IF;
END
\$do\$;
SQL
totals_agree('after random statements of a clerk');

query(<<"SQL");
SET ROLE clerk;
COPY current_orders FROM STDIN;
copied\t1\torder_paid\t5\tUSD\t2026-01-01Z
copied\t2\torder_paid\t-6\tUSD\t2026-01-02Z
copied\t3\torder_placed\t7\tEUR\t-infinity
\\.
BEGIN;
UPDATE current_orders SET amount_cents = 1000;
SAVEPOINT s;
DELETE FROM current_orders;
ROLLBACK TO s;
TRUNCATE current_orders;
INSERT INTO current_orders VALUES ('gone', '1', 'order_paid', 5, 'USD', now());
ROLLBACK;
SQL
totals_agree('after COPY, and a transaction that is rolled back');
is(query(q{SELECT count(*) FROM current_orders WHERE tenant = 'copied'}), '3', 'the copied orders are still there');

#
# Several sessions at once, and the workers
#
my %script = (
	change => <<'SQL',
\set n random(1, 5000)
BEGIN;
UPDATE current_orders SET currency = 'EUR', amount_cents = :n WHERE tenant = 'acme' AND order_id = 'ord-' || :n;
INSERT INTO current_orders VALUES ('many', (:n % 50)::text, 'order_paid', :n, 'USD', now())
	ON CONFLICT (tenant, order_id) DO UPDATE SET amount_cents = EXCLUDED.amount_cents, status = 'order_shipped';
COMMIT;
SQL
	remove => <<'SQL',
\set n random(1, 5000)
BEGIN;
DELETE FROM current_orders WHERE tenant = 'many' AND order_id = (:n % 50)::text;
SAVEPOINT s;
UPDATE current_orders SET status = 'order_cancelled' WHERE tenant = 'globex' AND order_id = 'ord-' || :n;
ROLLBACK TO s;
UPDATE current_orders SET tenant = 'initech' WHERE tenant = 'globex' AND order_id = 'ord-' || (:n + 1);
END;
SQL
);
append_to_file("$dir/$_.sql", "SET ROLE clerk;\n$script{$_}") foreach keys %script;
query(q{SELECT spine_produce(t, 2000) FROM unnest('{acme,globex}'::text[]) t});
my ($log, $clients) = ('');
{
	local %ENV = $node->_get_env();
	# after a deadlock pgbench tries again
	$clients = start([ $node->installed_command('pgbench'), '-n', '-c', '4', '-j', '2', '-t', '250', '--max-tries=100',
			'-f', "$dir/change.sql", '-f', "$dir/remove.sql", $node->connstr('postgres') ],
		'<', \undef, '>', \$log, '2>&1');
}
my @differ;
while ($clients->pumpable)
{
	query(q{SELECT spine_produce(t, 500) FROM unnest('{acme,globex,many}'::text[]) t});
	push @differ, grep { $_ ne 'nothing' } query('SELECT totals_differ()');
	$clients->pump_nb;
}
finish $clients;
like($log, qr{actually processed: 1000/1000}, 'four clients beside the workers') or diag $log;
is_deeply(\@differ, [], 'totals: right at every look meanwhile');
ok(wait_applied($node), 'everything is applied');
totals_agree('after four clients');
is(query(q{SELECT count(DISTINCT session) >= 5 FROM spine_order_totals WHERE tenant = 'many'}), 't',
	'each client and the worker counted in rows of its own');

# An open transaction keeps neither the worker nor other sessions from other orders of the
# same tenant, status and currency.
send_events(map { { tenant => 'slow', order_id => $_ } } 1 .. 10);
ok(wait_applied($node), 'ten orders are applied');
my $user = $node->background_psql('postgres');
foreach my $end ('COMMIT', 'ROLLBACK')
{
	$user->query_safe(<<SQL);
BEGIN;
UPDATE current_orders SET amount_cents = amount_cents + 1, status = 'order_paid' WHERE tenant = 'slow' AND order_id = '1';
DELETE FROM current_orders WHERE tenant = 'slow' AND order_id = '2';
INSERT INTO current_orders VALUES ('slow', '$end', 'order_placed', 5, 'USD', now());
SQL
	send_events((map { { tenant => 'slow', order_id => $_, event_type => 'order_paid', event_time => '2026-01-02T00:00:00Z' } } 3 .. 10),
		map { { tenant => 'slow', order_id => "$_ $end" } } 1 .. 5);
	is(query(q{SELECT spine_wait('30s')}), 't', "orders beside those of an open transaction are applied ($end)");
	is($node->psql('postgres', q{SET lock_timeout = '30s'; SET ROLE clerk;
		UPDATE current_orders SET status = 'order_shipped' WHERE tenant = 'slow' AND order_id = '3'}), 0, "orders beside those of an open transaction can be changed ($end)");
	totals_agree("while a transaction is open ($end)");
	$user->query_safe($end);
	totals_agree("after the $end of an open transaction");
}
$user->quit;

#
# A batch with refused records in the middle
#
query(q{ALTER TABLE current_orders ADD CONSTRAINT no_poison CHECK (order_id <> 'poison')});
send_as_a_batch(map { { tenant => 'refused', order_id => ($_ == 313 || $_ == 700 ? 'poison' : $_ % 400),
	event_type => ($_ % 3 ? 'order_paid' : 'order_placed'), amount_cents => $_ } } 1 .. 1000);
ok(wait_applied($node), 'a batch with two records that a constraint refuses');
is(query(q{SELECT count(*), count(DISTINCT sqlstate), min(sqlstate) FROM spine_dead_letters}), '2|1|23514', 'the two records are dead letters');
is(query(q{SELECT count(*), count(DISTINCT applied_at) FROM events WHERE tenant = 'refused'}), '998|1', 'the others are applied in one transaction');
totals_agree('after refused records');

# A transaction whose snapshot is older than the rows that it removes: the totals are
# right, or the statement is refused.
foreach my $statement ('TRUNCATE current_orders', 'SELECT spine_recount_orders()', 'DELETE FROM current_orders')
{
	$user = $node->background_psql('postgres', on_error_stop => 0);
	$user->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events');
	query(qq{INSERT INTO current_orders VALUES ('new', '$statement', 'order_paid', 5, 'USD', now())});
	$user->query("$statement; COMMIT;");
	$user->quit;
	totals_agree("$statement with an old snapshot");
	query('SELECT spine_recount_orders()');
}

#
# Changes with the triggers disabled need a recount
#
query(<<'SQL');
SET session_replication_role = replica;
UPDATE current_orders SET status = 'order_cancelled', amount_cents = 1 WHERE tenant = 'refused';
DELETE FROM current_orders WHERE tenant = 'slow';
INSERT INTO current_orders VALUES ('unseen', '1', 'order_paid', 5, 'USD', now());
SQL
isnt(query('SELECT totals_differ()'), 'nothing', 'changes with the triggers disabled are not counted');
query('SELECT spine_recount_orders()');
totals_agree('after a recount');
send_events(map { { tenant => 'refused', order_id => $_, event_time => '2026-02-01T00:00:00Z' } } 1 .. 10);
ok(wait_applied($node), 'more events are applied');
totals_agree('after a recount and more events');

#
# Dump and restore as docs/OPERATIONS.md says: while no workers run
#
query(q{SELECT spine_pause('orders')});
wait_for_state($node, 'paused');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/dump.sql" ], 'pg_dump');
query(q{CREATE DATABASE restored});
query(q{ALTER DATABASE restored SET spine.enabled = off});
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', "$dir/dump.sql" ], 'the dump is restored');
totals_agree('of the restored orders', 'restored');
my $stats = 'SELECT * FROM spine_stats() ORDER BY 1, 2';
is(query($stats, 'restored'), query($stats), 'spine_stats is the same in both databases');
query('ALTER DATABASE restored RESET spine.enabled; SELECT pg_reload_conf()');
query(q{SELECT spine_resume('orders')}, $_) foreach ('postgres', 'restored');
send_events(map { { tenant => 'acme', order_id => "after-$_" } } 1 .. 100);
foreach my $database ('postgres', 'restored')
{
	ok(wait_applied($node, $database), "$database continues");
	totals_agree("$database continues", $database);
}
query(q{DROP DATABASE restored WITH (FORCE)});

#
# The server is killed in the middle of a batch: totals and spine_orders are still right
#
query('ALTER TABLE current_orders DROP CONSTRAINT no_poison; TRUNCATE events, current_orders');
totals_agree('after TRUNCATE');
is(query('SELECT count(*) FROM spine_order_totals'), '0', 'after TRUNCATE the totals have no rows');
set_config($node, 'spine.batch_rows' => 20);
my %held_at = ('with the orders written' => 'spine_order_totals', 'with the totals written' => 'spine_offsets');
foreach my $where ('at any moment', sort keys %held_at)
{
	my $applied = query('SELECT count(*) FROM events');
	my $holder = $node->background_psql('postgres');

	query(q{SELECT spine_produce('acme', 500)});
	ok(wait_applied($node), 'some events are applied');

	# the rest is not applied while the lock is held
	$holder->query_safe('BEGIN; LOCK TABLE ' . ($held_at{$where} // 'spine_offsets') . ' IN SHARE MODE');
	query(q{SELECT spine_produce('acme', 4500), spine_produce('globex', 5000)});
	wait_for_held_batch($node);
	is(query('SELECT count(*) FROM events'), $applied + 500, 'the rest is not');
	$holder->quit if !$held_at{$where};
	kill9_and_start($node);
	eval { $holder->quit } if $held_at{$where};	# the session ended with its server
	totals_agree("after kill -9, $where");
	is(query('SELECT differ FROM compare_orders()'), 'nothing', "orders: after kill -9, $where");
	ok(wait_applied($node), 'the rest is applied');
}
totals_agree('at the end');
is(query('SELECT count(*) FROM events'), '30000', 'all events are applied');
is(query('SELECT differ FROM compare_orders()'), 'nothing', 'orders: at the end');

#
# HOT: no index has a column that every event changes
#
set_config($node, 'spine.batch_rows' => 50000);
query('TRUNCATE events, current_orders');
query('SELECT pg_stat_reset()');
for (1 .. 2)
{
	query(q{SELECT spine_produce('acme', 50000)});
	ok(wait_applied($node), '50,000 events are applied');
}
ok($node->poll_query_until('postgres', <<'SQL'), 'the statistics are up to date');
SELECT n_tup_ins >= (SELECT count(*) FROM current_orders) AND n_tup_upd > 10000
FROM pg_stat_user_tables WHERE relname = 'current_orders'
SQL
my $hot = query(q{SELECT round(n_tup_hot_upd / n_tup_upd::numeric, 3) FROM pg_stat_user_tables WHERE relname = 'current_orders'});
cmp_ok($hot, '>=', 0.9, 'at least 90 % of the updates of current_orders are HOT');
note "HOT: $hot";
foreach my $table ('spine_order_totals', 'spine_order_sums')
{
	my $share = query(qq{SELECT round(n_tup_hot_upd / n_tup_upd::numeric, 3) FROM pg_stat_user_tables WHERE relname = '$table'});
	cmp_ok($share, '>=', 0.9, "at least 90 % of the updates of $table are HOT");
}
totals_agree('after 100,000 events');

#
# spine_orders, with tables that are filled by SQL
#
query(q{SELECT spine_pause('orders')});
wait_for_state($node, 'paused');

# Makes events of random orders, and the orders from the events.  A skew of 1 means none;
# with a larger skew the first tenants or orders have most of the events.
query(<<'SQL');
CREATE FUNCTION remake_orders() RETURNS void LANGUAGE sql AS $$
	TRUNCATE current_orders;
	INSERT INTO current_orders
	SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type, amount_cents, 'USD', event_time
	FROM events
	ORDER BY tenant, order_id, event_time DESC, kafka_offset DESC;
$$;

CREATE FUNCTION fill(n_events integer, n_tenants integer, n_orders integer,
	skew float8 DEFAULT 1, key_skew float8 DEFAULT 1, times integer DEFAULT 1000000000, rare float8 DEFAULT 0.002)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE events, current_orders;
	-- a table that was never analyzed
	DELETE FROM pg_statistic WHERE starelid IN
		('events'::regclass, 'current_orders'::regclass, 'spine_order_totals'::regclass);
	PERFORM add_events(n_events, n_tenants, n_orders, skew, key_skew, times, rare);
END
$$;

CREATE FUNCTION add_events(n_events integer, n_tenants integer, n_orders integer,
	skew float8 DEFAULT 1, key_skew float8 DEFAULT 1, times integer DEFAULT 1000000000, rare float8 DEFAULT 0.002,
	first_order integer DEFAULT 0, start timestamptz DEFAULT '2026-01-01Z')
RETURNS void LANGUAGE sql AS $$
	INSERT INTO events
	SELECT 'tenant-' || floor(n_tenants * random() ^ skew), gen_random_uuid(),
		   CASE WHEN random() < rare THEN 'rare'
				ELSE (ARRAY['order_placed', 'order_paid', 'order_cancelled'])[ceil(random() * 3)] END,
		   'ord-' || first_order + floor(n_orders * random() ^ key_skew), ceil(random() * 1000),
		   start + interval '1 day' * floor(random() * times) / times, 0, i
	FROM generate_series(1, n_events) i;
	SELECT remake_orders();
$$;
SQL

my $hot_keys = <<'SQL';
-- 400 older orders, and 5 that all newer events are about
SELECT fill(2000, %s, 400);
SELECT add_events(%s, %s, 5, times => %s, first_order => 1000, start => '2026-02-01Z');
SQL
my @cases = (
	[ 'empty tables', 'SELECT fill(0, 1, 1)' ],
	[ 'one order', 'SELECT fill(1, 1, 1)' ],
	[ 'one tenant, few orders', 'SELECT fill(500, 1, 5)' ],
	[ 'one tenant, many orders', 'SELECT fill(8000, 1, 8000)' ],
	[ 'one tenant, only a few different times', 'SELECT fill(5000, 1, 2000, times => 7)' ],
	[ 'one tenant, the same time for all', 'SELECT fill(2500, 1, 1500, times => 1)' ],
	[ 'three tenants', 'SELECT fill(9000, 3, 2000)' ],
	[ 'three tenants, skewed', 'SELECT fill(9000, 3, 3000, skew => 8)' ],
	[ '40 tenants', 'SELECT fill(12000, 40, 300)' ],
	[ '40 tenants, skewed', 'SELECT fill(12000, 40, 3000, skew => 6)' ],
	[ '40 tenants, only a few different times', 'SELECT fill(12000, 40, 300, times => 50)' ],
	[ '300 tenants', 'SELECT fill(12000, 300, 100)' ],
	[ '300 tenants, skewed, hot keys', 'SELECT fill(12000, 300, 2000, skew => 5, key_skew => 6)' ],
	[ 'few orders, many events each', 'SELECT fill(15000, 3, 25)' ],
	[ 'hot keys', 'SELECT fill(15000, 3, 3000, key_skew => 20)' ],
	[ 'one tenant, all new events about a few orders', sprintf $hot_keys, 1, 12500, 1, 1000000 ],
	[ 'three tenants, all new events about a few orders', sprintf $hot_keys, 3, 13000, 3, 1000000 ],
	[ 'three tenants, all new events about a few orders and at a few times', sprintf $hot_keys, 3, 13000, 3, 3 ],
	[ 'new events of one of three tenants, about a few orders', <<'SQL' ],
SELECT fill(1500, 3, 400);
SELECT add_events(13000, 1, 5, first_order => 1000, start => '2026-02-01Z');
SQL
	[ 'a rare status that is old', <<'SQL' ],
SELECT fill(40, 2, 40, rare => 1);
SELECT add_events(8000, 2, 3000, rare => 0, first_order => 100, start => '2026-02-01Z');
SQL
	[ 'old events deleted', q{SELECT fill(9000, 3, 3000); DELETE FROM events WHERE event_time < '2026-01-01 20:00Z'} ],
	[ 'the newest events deleted', q{SELECT fill(9000, 3, 3000); DELETE FROM events WHERE event_time > '2026-01-01 20:00Z'} ],
	[ 'all but the newest events deleted', q{SELECT fill(9000, 3, 3000); DELETE FROM events WHERE event_time < '2026-01-01 23:59Z'} ],
	[ 'events of one tenant deleted', q{SELECT fill(9000, 3, 3000); DELETE FROM events WHERE tenant = 'tenant-1'} ],
	[ 'all events deleted', q{SELECT fill(6000, 40, 1000); DELETE FROM events} ],
	[ 'orders deleted', q{SELECT fill(9000, 3, 3000); DELETE FROM current_orders WHERE updated_at > '2026-01-01 18:00Z'} ],
	[ 'all orders of one tenant deleted', q{SELECT fill(9000, 3, 3000); DELETE FROM current_orders WHERE tenant = 'tenant-0'} ],
	[ 'orders that are older than the totals say', q{SELECT fill(9000, 40, 1000, skew => 3);
		UPDATE current_orders SET status = 'rare', updated_at = updated_at WHERE tenant = 'tenant-5' AND random() < 0.5;
		DELETE FROM current_orders WHERE status = 'rare' AND random() < 0.9} ],
	[ 'infinity and -infinity', <<'SQL' ],
SELECT fill(9000, 3, 3000);
UPDATE events SET event_time = (CASE WHEN random() < 0.5 THEN '' ELSE '-' END || 'infinity')::timestamptz WHERE random() < 0.3;
SELECT remake_orders();
SQL
	[ '-infinity only', q{SELECT fill(1500, 3, 1000); UPDATE events SET event_time = '-infinity'; SELECT remake_orders()} ],
	[ 'infinity only', q{SELECT fill(6000, 40, 300); UPDATE events SET event_time = 'infinity'; SELECT remake_orders()} ],
	(map {
		my @pick = map { my $list = $_; $list->[ rand @$list ] }
			[ 1, 2, 5, 40, 150 ], [ 10, 100, 2000 ], [ 1, 1, 4, 12 ], [ 1, 3, 15 ], [ 3, 200, 1e9 ], [ 0, 0.001, 0.1 ];
		[ "at random: @pick", sprintf 'SELECT fill(%d, %s)', 100 + rand 8000, join ', ', @pick ]
	} 1 .. 8));

my @clerks;
my $seen = 0;
foreach my $case (@cases)
{
	my ($what, $sql) = @$case;
	my @answers = split /\n/, query(<<SQL);
\\o /dev/null
SELECT setseed(@{[ ($seed % 1000) / 1000 ]});
$sql;
\\o
SELECT cases, differ FROM compare_orders();
ANALYZE events, current_orders, spine_order_totals;
SELECT cases, differ FROM compare_orders();
SELECT totals_differ();
SQL
	my ($analyzed, $never, $totals) = (@answers[ -2, -3, -1 ]);

	foreach ($never, $analyzed)
	{
		$seen += $1 if s/^(\d+)\|//;
	}
	is($never, 'nothing', "orders: $what, never analyzed");
	is($analyzed, 'nothing', "orders: $what, analyzed");
	is($totals, 'nothing', "totals: $what");
}
note "$seen cases";
cmp_ok($seen, '>', 3000, 'thousands of cases were compared');

#
# A look at the newest orders reads fewer pages than the smaller table has
#
# Returns the buffers and the milliseconds of a session's first call.
sub measure
{
	my ($call) = @_;
	my $plan = query("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF, FORMAT JSON) SELECT * FROM $call");
	my ($ms) = $plan =~ /"Execution Time": ([\d.]+)/ or die $plan;

	$plan =~ /"Shared Hit Blocks": (\d+),\s+"Shared Read Blocks": (\d+)/ or die $plan;
	return ($1 + $2, $ms);
}

query(<<'SQL');
SELECT fill(0, 1, 1);
INSERT INTO events
SELECT 'tenant-' || CASE WHEN i % 2 = 0 THEN 0 ELSE i / 2 % 20 END, gen_random_uuid(), (ARRAY['order_placed', 'order_paid'])[1 + i % 2],
	   repeat('ord', 60) || i % 200000, 100, timestamptz '2026-01-01Z' + i * interval '1 s', 0, i
FROM generate_series(1, 400000) i;
SELECT remake_orders();
SQL
is(query('SELECT count(*), count(DISTINCT tenant) FROM current_orders'), '200000|20', '200,000 orders of 20 tenants');
my $bound = query(q{SELECT least(pg_relation_size('current_orders'), pg_relation_size('events')) / current_setting('block_size')::bigint});
note "$bound pages";
foreach my $when ('before ANALYZE', 'after ANALYZE')
{
	foreach my $call (q{spine_orders()}, q{spine_orders('tenant-0')}, q{spine_orders('tenant-7')}, q{spine_orders(NULL, 'order_paid')},
		q{spine_orders('tenant-7', 'order_paid')}, q{spine_orders('tenant-7', 'never')}, q{spine_orders('nobody')}, 'spine_stats()')
	{
		my ($buffers, $ms) = measure($call);

		note "$call, $when: $buffers buffers, $ms ms";
		cmp_ok($buffers, '<', $bound, "$call, $when, reads little");
	}
	query('ANALYZE events, current_orders, spine_order_totals');
}

# However many tenants there are
sub buffers
{
	my ($call) = @_;

	return (measure($call))[0];
}

my @bounded = (q{spine_orders()}, q{spine_orders(NULL, 'order_paid')}, q{spine_stats_summary()}, q{spine_stats_summary('tenant-7')},
	q{spine_stats_summary(NULL, 'tenant-1')}, q{spine_stats('tenant-7')});
my %few;
foreach my $tenants (300, 3000)
{
	query(<<SQL);
SELECT fill(0, 1, 1);
INSERT INTO events
SELECT 'tenant-' || i % $tenants, gen_random_uuid(), (ARRAY['order_placed', 'order_paid'])[1 + i / $tenants % 2],
	   'ord-' || i, 100, timestamptz '2026-01-01Z' + i * interval '1 s', 0, i
FROM generate_series(1, 4 * $tenants + 200) i;
SELECT remake_orders();
SQL
	foreach my $call (@bounded)
	{
		my $buffers = buffers($call);

		note "$call, $tenants tenants: $buffers buffers";
		$few{$call} //= $buffers;
		# the tenants beside those that are shown are counted, up to 1000
		my $most = 1.3 * $few{$call} + 100 + ($call eq 'spine_stats_summary()' ? 2500 : 0);
		cmp_ok($buffers, '<', $most, "$call reads no more for $tenants tenants than for 300");
	}
}
totals_agree('of 3000 tenants');
is(query(q{SELECT tenants FROM spine_stats_summary(max_tenants => 2500) WHERE tenant IS NULL}), '500', 'the others are counted');
is(query(q{SELECT count(*), count(tenants) FROM spine_stats_summary() WHERE tenant IS NULL}), '1|0', 'more than 1000 others are not counted');
is(query(q{SELECT string_agg(tenant, ' ') FROM spine_stats_summary(NULL, 'tenant-299', 3)}), 'tenant-299 tenant-2990 tenant-2991',
	'the first tenants whose names begin with a text');
is(query(q{SELECT string_agg(tenant, ' ' ORDER BY tenant) FROM spine_stats_summary(NULL, 'tenant-299')}),
	join(' ', 'tenant-299', map { "tenant-299$_" } 0 .. 9), 'all tenants whose names begin with a text');
is(query(q{SELECT count(*) FROM spine_stats_summary(NULL, 'nobody')}), '0', 'no tenant has such a name');
query(q{DELETE FROM current_orders WHERE tenant = 'tenant-299'});
is(query(q{SELECT count(*) FROM spine_stats_summary(NULL, 'tenant-299')}), '10', 'a tenant without orders is not found');
query(q{DELETE FROM current_orders WHERE tenant IN (SELECT tenant FROM spine_largest_tenants(50)) AND order_id LIKE '%1%'});
totals_agree('after orders of the largest tenants were deleted');

# Tenants whose orders several sessions count
foreach my $session (1 .. 3)
{
	my $other = $node->background_psql('postgres');

	push @clerks, $other;
	$other->query_safe(qq{INSERT INTO current_orders SELECT 'tenant-' || i, 'more-$session-' || j, 'order_paid', 5, 'EUR', now()
		FROM generate_series(1, 400) i, generate_series(1, (i * $session) % 17) j});
	totals_agree("orders that $session more sessions count");
}
query(q{DELETE FROM current_orders WHERE order_id LIKE 'more-2%'});
totals_agree('a session deletes what another session has counted');
$_->quit foreach @clerks;
# all sums stay as they are, but not all counts
query('SELECT spine_recount_orders()');
query(q{UPDATE current_orders SET tenant = 'moved-' || tenant WHERE tenant LIKE 'tenant-1%'});
totals_agree('after a session moved orders to other tenants');
query(q{UPDATE current_orders SET updated_at = updated_at + interval '1 day' WHERE tenant LIKE 'moved-%'});
totals_agree('after only times changed');

# The list of changes does not grow for ever, and the newest orders are right all the time.
query(<<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 1200 LOOP
		INSERT INTO current_orders
		SELECT 'tenant-' || i % 7, 'new-' || (i * 30 + j) % 9000, 'order_placed', i, 'USD', timestamptz '2026-03-01Z' + i * interval '1 s'
		FROM generate_series(1, 30) j
		ON CONFLICT (tenant, order_id) DO UPDATE SET updated_at = EXCLUDED.updated_at, amount_cents = EXCLUDED.amount_cents;
	END LOOP;
END
$$;
SQL
is(query('SELECT differ FROM compare_orders()'), 'nothing', 'orders: after many statements');
cmp_ok(query('SELECT count(*) FROM spine_order_changes'), '<', 700, 'the list of changes is cut');
query(q{DELETE FROM current_orders WHERE updated_at > '2026-03-01 00:15Z' AND random() < 0.8});
is(query('SELECT differ FROM compare_orders()'), 'nothing', 'orders: after the newest were deleted');
query(q{UPDATE current_orders SET updated_at = updated_at - interval '1 year' WHERE updated_at > '2026-03-01 00:10Z' AND random() < 0.9});
is(query('SELECT differ FROM compare_orders()'), 'nothing', 'orders: after the newest were made older');

#
# spine_stats
#
query(q{TRUNCATE events, current_orders});
query(<<'SQL');
INSERT INTO current_orders VALUES
	('acme', '1', 'order_paid', 100, 'USD', now()), ('acme', '2', 'order_placed', 20, 'USD', now()),
	('acme', '3', 'order_cancelled', 3, 'USD', now()), ('acme', '4', 'order_paid', 4000, 'EUR', now()),
	('cancelled', '1', 'order_cancelled', 7, 'USD', now()),
	('rich', '1', 'order_paid', 9223372036854775807, 'USD', now()), ('rich', '2', 'order_paid', 9223372036854775807, 'USD', now()),
	('rich', '3', 'order_placed', 9223372036854775807, 'USD', now())
SQL
is(query('SELECT tenant, currency, orders, revenue_cents FROM spine_stats()'),
	"acme|USD|3|120\nrich|USD|3|27670116110564327421\nacme|EUR|1|4000\ncancelled|USD|1|0",
	'spine_stats: a row per tenant and currency, no revenue from cancelled orders, and sums beyond 64 bits');
is(query(q{SELECT by_status FROM spine_stats('acme') WHERE currency = 'USD'}),
	'{"order_paid": {"orders": 1, "amount_cents": 100}, "order_placed": {"orders": 1, "amount_cents": 20}, "order_cancelled": {"orders": 1, "amount_cents": 3}}',
	'spine_stats: sums by status');
is(query(q{SELECT count(*) FROM spine_stats('acme')}), '2', 'spine_stats: one tenant has a row per currency');
is(query(q{SELECT count(*) FROM spine_stats('nobody')}), '0', 'spine_stats: an unknown tenant has no rows');
query(q{DELETE FROM current_orders WHERE currency = 'EUR' OR tenant = 'cancelled'; UPDATE current_orders SET amount_cents = -amount_cents WHERE tenant = 'rich'});
is(query('SELECT tenant, currency, orders, revenue_cents FROM spine_stats()'),
	"acme|USD|3|120\nrich|USD|3|-27670116110564327421", 'spine_stats: no row where no orders are left');

# The smallest bigint cannot be negated.
query(q{INSERT INTO current_orders VALUES ('poor', '1', 'order_paid', -9223372036854775808, 'USD', now())});
is($node->psql('postgres', q{UPDATE current_orders SET status = 'order_cancelled' WHERE tenant = 'poor'}), 0, 'an order with the smallest amount can be changed');
totals_agree('of extreme amounts');

$node->stop;
stop_broker($broker);
done_testing();

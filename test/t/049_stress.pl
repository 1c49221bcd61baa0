# Several pipelines, whose batches grow piece by piece, are fed with good and bad records
# while everything happens to them at once: workers are killed, ended or cancelled, their
# number changes, positions are moved back, tables are locked and altered, pipelines are
# paused, the server is stopped.  Afterwards the tables are those of a model.
#
# Broken when any of the ways that a batch takes (COPY's way, rows that are kept, statements,
# the search) loses a record, applies one twice, or takes an older one for the newest; or when
# a partition is left without a worker.
#
# SPINE_TEST_SEED repeats the random choices of an earlier run, SPINE_TEST_ROUNDS makes more.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(shuffle);
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{SPINE_TEST_SEED} // int(rand(2**31));
my $rounds = $ENV{SPINE_TEST_ROUNDS} // 6;
my $per_round = 2000;
my $partitions = 4;
srand($seed);
note "SPINE_TEST_SEED=$seed";

my $broker = start_broker('records', $partitions);
my $address = $broker->{address};
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$address'
spine.piece_rows = 50
spine.workers = 2
spine.breaker_records = 0
restart_after_crash = on
max_worker_processes = 40
lock_timeout = '2s'
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

query(<<'SQL');
CREATE TABLE sent (p int, o bigint, i int, k int, kind text, a int, b text, PRIMARY KEY (p, o));
CREATE TABLE names (k int PRIMARY KEY, name text);
INSERT INTO names SELECT k, 'name ' || k FROM generate_series(0, 9) k;

-- COPY's way into partitions, and rows that are kept
CREATE TABLE flat_all (p int, o bigint, i int CHECK (i % 1000 <> 13), txt text, double int GENERATED ALWAYS AS (i * 2) STORED) PARTITION BY LIST (p);
CREATE TABLE flat_0 PARTITION OF flat_all FOR VALUES IN (0);
CREATE TABLE flat_1 (txt text, gone int, i int CONSTRAINT flat_all_i_check CHECK (i % 1000 <> 13), o bigint, double int GENERATED ALWAYS AS (i * 2) STORED, p int);
ALTER TABLE flat_1 DROP gone;
ALTER TABLE flat_all ATTACH PARTITION flat_1 FOR VALUES IN (1);
CREATE TABLE flat_rest PARTITION OF flat_all DEFAULT;
CREATE TABLE flat_keyed (p int, o bigint, i int, PRIMARY KEY (p, o));
CREATE TABLE flat_newest (k int PRIMARY KEY, i int, txt text, a int);
CREATE TABLE flat_last (p int, k int, o bigint, i int, PRIMARY KEY (p, k)) PARTITION BY HASH (p);
CREATE TABLE flat_last_0 PARTITION OF flat_last FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE flat_last_1 PARTITION OF flat_last FOR VALUES WITH (MODULUS 2, REMAINDER 1);

-- sinks that depend on each other, and triggers that see every row
CREATE TABLE parents (k int PRIMARY KEY, i int);
CREATE TABLE children (p int, o bigint, k int REFERENCES parents, i int);
CREATE TABLE children_seen (p int, o bigint);
CREATE FUNCTION see_children() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.children_seen SELECT p, o FROM new_children;
	RETURN NULL;
END $$;
CREATE TRIGGER see_children AFTER INSERT ON children REFERENCING NEW TABLE AS new_children
	FOR EACH STATEMENT EXECUTE FUNCTION see_children();
CREATE FUNCTION refuse_child() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.i % 1000 = 13 THEN
		RAISE 'no such child' USING ERRCODE = 'check_violation';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER refuse_child BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION refuse_child();

-- partial events; the keys stay in their partitions
CREATE TABLE state (k int PRIMARY KEY, i int, a int DEFAULT -1, b text DEFAULT 'none');

-- lookups, and a filter
CREATE TABLE looked_up (p int, o bigint, i int CHECK (i % 1000 <> 13), name text);

CREATE FUNCTION make(pipeline name, VARIADIC sinks text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO spine_pipelines (name, topic) VALUES (pipeline, 'records');
	FOR i IN 1 .. array_length(sinks, 1) BY 5 LOOP
		INSERT INTO spine_sinks (pipeline, target, mode, version, columns, filter, key)
		VALUES (pipeline, sinks[i]::regclass, CASE WHEN sinks[i + 1] = 'upsert' THEN 'upsert' ELSE 'append' END,
			sinks[i + 2], sinks[i + 3]::jsonb, sinks[i + 4], CASE WHEN sinks[i + 1] = 'keyed' THEN '{p,o}'::name[] END);
	END LOOP;
END $$;
SELECT make('flat',
	'flat_all', 'append', NULL, '{"p": "$partition", "o": "$offset", "i": "i", "txt": "txt"}', NULL,
	'flat_keyed', 'keyed', NULL, '{"p": "$partition", "o": "$offset", "i": "i"}', NULL,
	'flat_newest', 'upsert', 'i', '{"k": "k", "i": "i", "txt": "txt", "a": {"sql": "(value->>''i'')::int + 1"}}', '(value->>''i'')::int % 7 <> 0',
	'flat_last', 'upsert', NULL, '{"p": "$partition", "k": "k", "o": "$offset", "i": "i"}', NULL);
SELECT make('family',
	'parents', 'upsert', 'i', '{"k": "k", "i": "i"}', NULL,
	'children', 'append', NULL, '{"p": "$partition", "o": "$offset", "k": "k", "i": "i"}', NULL);
SELECT make('partial', 'state', 'upsert', 'i', '{"k": "k", "i": "i", "a": "a", "b": "b"}', NULL);
SELECT make('lookup', 'looked_up', 'append', NULL,
	'{"p": "$partition", "o": "$offset", "i": "i", "name": {"sql": "(SELECT n.name FROM public.names n WHERE n.k = (value->>''k'')::int % 10)"}}', 'value->>''k'' <> ''3''');
SQL

my @end = (0) x $partitions;
my $number = 0;

# Sends records to all partitions.  The model is the table "sent".
sub send_records
{
	my ($n) = @_;
	my (@lines, @sent);

	for (1 .. $n)
	{
		my $p = int rand $partitions;
		my $i = ++$number;
		my $k = $partitions * int(rand(rand(10) < 1 ? 1000 : 20)) + $p;
		my $kind = $i % 1000 == 13 ? 'refused' : rand(200) < 1 ? ('json', 'type', 'key', 'long')[ rand 4 ] : 'good';
		my ($a, $b) = (rand(2) < 1 ? int rand 100 : undef, rand(2) < 1 ? 'b' . int rand 100 : undef);
		my $txt = 'x' x ($kind eq 'long' ? 20_000 : rand(500) < 1 ? 3000 : 5);
		my $line = join ',', "\"i\": " . ($kind eq 'type' ? '"one"' : $kind eq 'long' ? '12345678901' : $i), "\"k\": " . ($kind eq 'key' ? 'null' : $k),
		  "\"txt\": \"$txt\"", (defined $a ? "\"a\": $a" : ()), (defined $b ? "\"b\": \"$b\"" : ());

		$lines[$p] .= $kind eq 'json' ? "key\t{$line\n" : "key\t{$line}\n";
		push @sent, join("\t", $p, $end[$p]++, $i, $k, $kind, $a // '\N', $b // '\N');
	}
	send_lines($address, 'records', $_, $lines[$_]) foreach grep { $lines[$_] } 0 .. $partitions - 1;

	my $events = join '', map { my $t = 't' . int rand 5; "$t\t" . order_event(tenant => $t, order_id => 'ord-' . int rand 300, amount_cents => int rand 1000,
			event_time => sprintf('2026-01-01T00:%02d:%02dZ', rand 60, rand 60)) . "\n" } 1 .. $n / 2;
	send_lines($address, 'events', undef, $events);
	return join "\n", @sent, '';
}

# --------------------------------------------------------------------------
# What happens
# --------------------------------------------------------------------------

# A statement that may fail or be cut off.
sub try_query
{
	my ($sql) = @_;
	my $result = eval { $node->psql('postgres', $sql, timeout => 60) };

	note 'did not succeed: ', $sql =~ s/\n.*//sr if !defined $result || $result != 0;
	return;
}

sub any_worker
{
	my $out = '';

	eval { $node->psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'spine worker' ORDER BY random() LIMIT 1}, stdout => \$out) };
	return $out =~ /(\d+)/ ? $1 : undef;
}

my @tables = qw(flat_all flat_1 flat_keyed flat_newest flat_last parents children state looked_up events current_orders spine_offsets names spine_order_totals);
my $columns = 0;
my %actions = (
	kill => sub {
		my $pid = any_worker() // return;
		kill 'KILL', $pid;

		# or the restart that follows may end the next statement
		poll_through_restart($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	},
	term => sub { my $pid = any_worker(); kill 'TERM', $pid if $pid },
	terminate => sub { try_query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'spine worker' AND random() < 0.5}) },
	cancel => sub { try_query(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'spine worker'}) },
	workers => sub { my $n = 1 + int rand 4; try_query("ALTER SYSTEM SET spine.workers = $n"); try_query('SELECT pg_reload_conf()') },
	pieces => sub { my $n = (1, 20, 50, 200, 1000)[ rand 5 ]; try_query("ALTER SYSTEM SET spine.piece_rows = $n"); try_query('SELECT pg_reload_conf()') },
	pause => sub { my $p = (qw(flat family partial lookup orders))[ rand 5 ]; try_query("SELECT spine_pause('$p')"); usleep(rand 200_000); try_query("SELECT spine_resume('$p')") },
	seek => sub {
		my $p = int rand $partitions;
		my $o = int rand($end[$p] + 1);
		try_query("BEGIN; SET lock_timeout = '10s'; SELECT spine_seek('flat', $p, LEAST($o, (SELECT next_offset FROM spine_offsets WHERE pipeline = 'flat' AND partition = $p)));"
			  . "DELETE FROM flat_all WHERE p = $p AND o >= $o; DELETE FROM spine_dead_letters WHERE pipeline = 'flat' AND kafka_partition = $p AND kafka_offset >= $o; COMMIT");
	},
	seek_family => sub {
		my $p = int rand $partitions;
		my $o = int rand($end[$p] + 1);
		try_query("BEGIN; SET lock_timeout = '10s'; SELECT spine_seek('family', $p, LEAST($o, (SELECT next_offset FROM spine_offsets WHERE pipeline = 'family' AND partition = $p)));"
			  . "DELETE FROM children WHERE p = $p AND o >= $o; DELETE FROM children_seen WHERE p = $p AND o >= $o; DELETE FROM spine_dead_letters WHERE pipeline = 'family' AND kafka_partition = $p AND kafka_offset >= $o; COMMIT");
	},
	seek_partial => sub { my $p = int rand $partitions; try_query("BEGIN; SELECT spine_seek('partial', $p, 'earliest'); DELETE FROM spine_dead_letters WHERE pipeline = 'partial' AND kafka_partition = $p; COMMIT") },
	by_hand => sub { try_query(q{UPDATE spine_offsets SET next_offset = 0 WHERE pipeline = 'orders' AND partition = } . int rand $partitions) },
	alter => sub { my $t = (qw(flat_all flat_newest flat_last children state looked_up))[ rand 6 ]; $columns++; try_query("SET lock_timeout = '5s'; ALTER TABLE $t ADD COLUMN added_$columns int DEFAULT $columns") },
	index => sub { my $t = (qw(flat_all flat_newest flat_last children state looked_up))[ rand 6 ]; $columns++; try_query("SET lock_timeout = '5s'; CREATE INDEX added_$columns ON $t (i)") },
	lock => sub { my $t = $tables[ rand @tables ]; my $s = 0.1 + rand 3; try_query("SET lock_timeout = '5s'; BEGIN; LOCK TABLE $t; SELECT pg_sleep($s); COMMIT") },
	orders => sub { try_query("UPDATE current_orders SET amount_cents = amount_cents, status = status WHERE order_id < 'ord-2'; DELETE FROM events WHERE random() < 0") },
	rewrite => sub { my $t = $tables[ rand @tables ]; try_query("SET lock_timeout = '5s'; VACUUM FULL $t") },
	trigger => sub { try_query(q{SET lock_timeout = '5s'; BEGIN; DROP TRIGGER refuse_child ON children; CREATE TRIGGER refuse_child BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION refuse_child(); COMMIT}) },
	mapping => sub { try_query(q{UPDATE spine_sinks SET columns = columns WHERE pipeline IN ('flat', 'partial')}) },
	restart => sub { $node->stop('immediate'); $node->start },
	nothing => sub { usleep(rand 500_000) });

sub wait_for_server
{
	poll_through_restart($node, 'postgres', 'SELECT true') or die 'the server does not come back';
	return;
}

my @model;
my @bag;
my $most_memory = 0;
my $start = time;
foreach my $round (1 .. $rounds)
{
	push @model, send_records($per_round);
	for (1 .. 4)
	{
		@bag = shuffle keys %actions unless @bag;
		my $what = shift @bag;
		note sprintf '%.1f s, round %d: %s', time - $start, $round, $what;
		usleep(rand 200_000);
		wait_for_server();
		$actions{$what}->();
		wait_for_server();
		foreach my $pid (eval { worker_pids($node) })
		{
			my $status = eval { slurp_file("/proc/$pid/status") } // '';
			$most_memory = $1 if $status =~ /RssAnon:\s+(\d+)/ && $1 > $most_memory;
		}
	}
}
wait_for_server();
set_config($node, 'spine.workers' => 3, 'spine.piece_rows' => 50);

# --------------------------------------------------------------------------
# What has become of it
# --------------------------------------------------------------------------

ok(query(q{SELECT spine_wait('120s')}) eq 't', 'everything is applied')
  or diag query('SELECT pipeline, partition, worker_pid, state, next_offset, lag, last_error FROM spine_status ORDER BY 1, 2');
note sprintf '%.1f s, all applied; workers had %d kB', time - $start, $most_memory;
cmp_ok($most_memory, '<', 200_000, 'the memory of workers');

my $file = $node->basedir . '/sent';
open my $handle, '>', $file or die $!;
print $handle @model;
close $handle;
query("COPY sent FROM '$file'");

is(query(q{SELECT count(*) FROM spine_offsets WHERE pipeline <> 'orders' AND next_offset <> (SELECT count(*) FROM sent s WHERE s.p = partition)}), '0', 'the positions are at the ends');
is(query(q{SELECT count(*) FROM spine_status s WHERE worker_pid IS NULL OR state <> 'running'}), '0', 'every partition has a worker');

# Are these two queries the same, but for the order of rows?
sub same_rows
{
	my ($what, $got, $expected) = @_;
	my $sql = "SELECT count(*), min(r::text), max(r::text) FROM (%s EXCEPT ALL %s) r";

	is(query(sprintf $sql, "($got)", "($expected)"), '0||', "$what: nothing too much");
	is(query(sprintf $sql, "($expected)", "($got)"), '0||', "$what: nothing missing");
	return;
}

# The table "state" refuses nothing.
my $good = q{kind = 'good'};
my $good_state = q{kind IN ('good', 'refused')};
foreach my $pipeline (qw(flat family lookup partial))
{
	same_rows("$pipeline: dead letters", "SELECT kafka_partition, kafka_offset FROM spine_dead_letters WHERE pipeline = '$pipeline'",
		$pipeline eq 'lookup' ? q{SELECT p, o FROM sent WHERE kind = 'json' OR kind IN ('refused', 'long', 'type') AND k <> 3}
		: $pipeline eq 'partial' ? "SELECT p, o FROM sent WHERE NOT $good_state" : "SELECT p, o FROM sent WHERE NOT $good");
}
same_rows('flat_all', 'SELECT p, o, i, double FROM flat_all', "SELECT p, o, i, 2 * i FROM sent WHERE $good");
same_rows('flat_keyed', 'SELECT p, o, i FROM flat_keyed', "SELECT p, o, i FROM sent WHERE $good");
same_rows('flat_newest', 'SELECT k, i, a FROM flat_newest', "SELECT k, max(i), max(i) + 1 FROM sent WHERE $good AND i % 7 <> 0 GROUP BY k");
same_rows('flat_last', 'SELECT p, k, o, i FROM flat_last', "SELECT DISTINCT ON (p, k) p, k, o, i FROM sent WHERE $good ORDER BY p, k, o DESC");
same_rows('parents', 'SELECT k, i FROM parents', "SELECT k, max(i) FROM sent WHERE $good GROUP BY k");
same_rows('children', 'SELECT p, o, k, i FROM children', "SELECT p, o, k, i FROM sent WHERE $good");
same_rows('children_seen', 'SELECT p, o FROM children_seen', "SELECT p, o FROM sent WHERE $good");
same_rows('state', 'SELECT k, i, a, b FROM state', <<SQL);
SELECT k, max(i), coalesce((array_agg(a ORDER BY i DESC) FILTER (WHERE a IS NOT NULL))[1], -1),
	coalesce((array_agg(b ORDER BY i DESC) FILTER (WHERE b IS NOT NULL))[1], 'none')
FROM sent WHERE $good_state GROUP BY k
SQL
same_rows('looked_up', 'SELECT p, o, i, name FROM looked_up', "SELECT p, o, i, 'name ' || k % 10 FROM sent WHERE kind = 'good' AND k <> 3");

same_rows('current_orders', 'SELECT tenant, order_id, updated_at FROM current_orders', 'SELECT tenant, order_id, max(event_time) FROM events GROUP BY 1, 2');
is(query('SELECT count(*) FROM events'), $rounds * $per_round / 2, 'events');
same_rows('totals', 'SELECT tenant, currency, status, sum(orders), sum(amount_cents) FROM spine_order_totals GROUP BY 1, 2, 3 HAVING sum(orders) <> 0',
	'SELECT tenant, currency, status, count(*)::numeric, sum(amount_cents)::numeric FROM current_orders GROUP BY 1, 2, 3');
same_rows('sums', 'SELECT currency, status, sum(orders), sum(amount_cents) FROM spine_order_sums GROUP BY 1, 2 HAVING sum(orders) <> 0',
	'SELECT currency, status, count(*)::numeric, sum(amount_cents)::numeric FROM current_orders GROUP BY 1, 2');
same_rows('counts', 'SELECT tenant, sum(orders) FROM spine_order_counts GROUP BY 1 HAVING sum(orders) <> 0',
	'SELECT tenant, count(*)::numeric FROM current_orders GROUP BY 1');
query('CREATE EXTENSION amcheck');
is(query(q{SELECT count(bt_index_check(c.oid, true)) > 0 FROM pg_class c WHERE c.relkind = 'i' AND c.relnamespace = 'public'::regnamespace}), 't', 'the indexes have all rows');

my $log = slurp_file($node->logfile);
my @traces = $log =~ /^(.*(?:WARNING|PANIC|TRAP|leak|signal 11|signal 6).*)$/mg;
is(join("\n", grep { !/terminating connection because of crash/ } @traces), '', 'nothing is left open, and nothing ends by itself');

$node->stop;
stop_broker($broker);
done_testing();

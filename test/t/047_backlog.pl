# A batch grows with the backlog: one transaction applies many pieces, each of which is read,
# applied and freed before the next.  Whatever happens in the middle of it, each record is
# there once, or is one dead letter.
#
# Broken when a later piece is applied without its positions, when the records of a batch
# that was rolled back are not read again, when a refused record takes others with it, or
# when a batch goes on although somebody has asked something of the worker.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $piece = 500;
my $held_at = 15_999;	# far behind the first pieces, whichever partition they are of
my $broker = start_broker('fence', 2);	# kcat makes topics of four partitions
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.piece_rows = $piece
spine.batch_time = 1min
restart_after_crash = on
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

query(q{SELECT spine_pause('orders')});

# A table for each record, in which one that is applied twice is there twice, and one for the
# newest record of each key.  Waits in the middle of a batch for whoever has the lock.
query(<<'SQL');
CREATE SEQUENCE calls;
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.pg_advisory_xact_lock_shared(1);
	RETURN NEW;
END $$;
SQL

# Makes a topic of records i = 1 .. $count in two partitions, and a pipeline for it, whose
# worker begins with all of them as its backlog.  $line makes the values.
sub start_pipeline
{
	my ($name, $count, %options) = @_;
	my $value = $options{value} // sub { qq({"i": $_[0], "k": ) . $_[0] % 100 . '}' };
	my $columns = $options{columns} // '{"i": "i", "p": "$partition", "o": "$offset"}';

	foreach my $p (0, 1)
	{
		send_lines($broker->{address}, $name, $p,
			join('', map { "key\t" . $value->($_) . "\n" } grep { $_ % 2 == $p } 1 .. $count));
	}
	query(<<SQL);
CREATE TABLE ${name}_all (i int @{[ $options{check} // '' ]}, p int, o bigint);
CREATE TABLE ${name}_newest (k int PRIMARY KEY, i int);
@{[ defined $options{hold_at} ? "CREATE TRIGGER hold BEFORE INSERT ON ${name}_all FOR EACH ROW WHEN (NEW.i = $options{hold_at}) EXECUTE FUNCTION hold();" : '' ]}
BEGIN;
INSERT INTO spine_pipelines (name, topic) VALUES ('$name', '$name');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('$name', '${name}_all', 'append', '$columns');
INSERT INTO spine_sinks (pipeline, target, mode, version, columns) VALUES ('$name', '${name}_newest', 'upsert', 'i', '{"k": "k", "i": "i"}');
COMMIT;
SQL
	return;
}

# Waits until a worker is held, and not by another lock that it takes.
sub wait_until_held
{
	my ($name) = @_;

	comes_to($node, "$name: a worker is in the middle of a batch",
		q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'spine worker' AND wait_event = 'advisory'});
	return;
}

my $transactions = sub { query("SELECT count(DISTINCT xmin::text) FROM $_[0]_all") };

# Each record of the pipeline is there once, except for those that are dead letters.
sub audit
{
	my ($name, $count, @dead) = @_;
	my $dead = join(',', @dead) || '0';

	ok(wait_applied($node), "$name: all is applied");
	is(query("SELECT count(*), count(DISTINCT (p, o)), count(DISTINCT i) FROM ${name}_all"),
		join('|', ($count - @dead) x 3), "$name: each record is there once");
	is(query("SELECT count(*) FROM ${name}_all WHERE o <> (i - 1) / 2 OR p <> i % 2"), '0', "$name: with its place");
	is(query("SELECT count(*), sum(i) FROM ${name}_newest"),
		query("SELECT count(*), sum(max) FROM (SELECT max(i) FROM generate_series(1, $count) i WHERE i NOT IN ($dead) GROUP BY i % 100) g"),
		"$name: the newest record of each key is there");
	is(query("SELECT string_agg(i::text, ',' ORDER BY i) FROM (SELECT 2 * kafka_offset + CASE kafka_partition WHEN 0 THEN 2 ELSE 1 END AS i FROM spine_dead_letters WHERE pipeline = '$name') d"),
		join(',', sort { $a <=> $b } @dead), "$name: the dead letters");
	is(query("SELECT string_agg(next_offset::text, ',' ORDER BY partition) FROM spine_offsets WHERE pipeline = '$name' AND next_offset > 0"),
		int($count / 2) . ',' . int(($count + 1) / 2), "$name: the positions");
	return if $name eq 'killed';	# a crash restart forgets what was counted
	is(query("SELECT sum(events_total) >= $count - @{[ scalar @dead ]} AND sum(dead_letters_total) >= @{[ scalar @dead ]} FROM spine_status WHERE pipeline = '$name'"),
		't', "$name: the counts");
	return;
}

sub finish_pipeline
{
	my ($name) = @_;

	query("SELECT spine_pause('$name')");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'}), "$name: paused");
	return;
}

#
# The backlog goes in few transactions
#
my $count = 20_000;
start_pipeline('plain', $count);
audit('plain', $count);
cmp_ok($transactions->('plain'), '<', $count / $piece / 2, 'plain: in few transactions');
note 'plain: ', $transactions->('plain'), ' transactions';
is(query(q{SELECT sum(events_total), sum(dead_letters_total) FROM spine_status WHERE pipeline = 'plain'}), "$count|0", 'plain: spine_status has counted each record');
is(query(q{SELECT value FROM spine_metrics WHERE metric = 'spine_records_consumed_total' AND labels::text ~ 'plain'}), $count, 'plain: so has spine_metrics');
finish_pipeline('plain');

#
# The row of a position that does not move has been written by somebody else, so that it is
# elsewhere than the worker knows.  Batches grow all the same.
#
start_pipeline('elsewhere', 4 * $piece);
audit('elsewhere', 4 * $piece);
is(query(q{WITH u AS (UPDATE spine_offsets SET updated_at = now() WHERE pipeline = 'elsewhere' AND partition = 3 RETURNING 1) SELECT count(*) FROM u}),
	'1', 'elsewhere: a position has another place');
{
	my $session = $node->background_psql('postgres');

	$session->query_safe('BEGIN; LOCK elsewhere_all');	# until all records are there
	send_lines($broker->{address}, 'elsewhere', $_, join('', map { qq(key\t{"i": $_, "k": 1}\n) } 1 .. $count / 2)) foreach 0, 1;
	$session->query_safe('COMMIT');
	$session->quit;
}
ok(wait_applied($node), 'elsewhere: all is applied');
cmp_ok(query('SELECT max(count) FROM (SELECT count(*) FROM elsewhere_all GROUP BY xmin::text) g'), '>=', 4 * $piece, 'elsewhere: batches grow');
finish_pipeline('elsewhere');

#
# Records that cannot be decoded, and records that the database refuses, for each of its
# tables, in later pieces
#
my @dead = (7_001, 12_345, 12_346, 19_999);
start_pipeline('letters', $count,
	check => 'CHECK (i <> 12345)',
	value => sub { my ($i) = @_; $i == 7_001 || $i == 19_999 ? "{broken" : qq({"i": $i, "k": ) . ($i == 12_346 ? '"x"' : $i % 100) . '}' });
audit('letters', $count, @dead);
cmp_ok(query('SELECT max(count) FROM (SELECT count(*) FROM letters_all GROUP BY xmin::text) g'), '>=', 4 * $piece, 'letters: some of the others go in large batches');
finish_pipeline('letters');

#
# Something happens while a worker is in the middle of a large batch
#
sub in_the_middle
{
	my ($name, $what) = @_;
	my $holder = $node->background_psql('postgres');

	$holder->query_safe('SELECT pg_advisory_lock(1)');
	start_pipeline($name, $count, hold_at => $held_at);
	wait_until_held($name);
	my $applied = query("SELECT next_offset FROM spine_offsets WHERE pipeline = '$name' AND partition = 1");
	note "$name: $applied records of the partition are committed before";
	cmp_ok($applied, '<', ($held_at - 1) / 2 - 2 * $piece, "$name: the batch has several pieces");
	$what->($holder, worker_pids($node));
	$holder->query_safe('SELECT pg_advisory_unlock_all()') if $holder;
	$holder->quit if $holder;
	return;
}

sub in_background
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_until(qr/begun/, "\\echo begun\n$sql;\n\\echo ended\n");
	ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event_type = 'Lock'}),
		"$sql: waits");
	return $session;
}

# The worker is killed, and the server with it.
{
	my $holder = $node->background_psql('postgres');

	$holder->query_safe('SELECT pg_advisory_lock(1)');
	start_pipeline('killed', $count, hold_at => $held_at);
	wait_until_held('killed');
	my ($worker) = worker_pids($node);
	kill 'KILL', $worker;
	poll_through_restart($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine worker' AND pid <> $worker")
	  or die 'the worker does not come back';
	eval { $holder->quit };
	audit('killed', $count);
	finish_pipeline('killed');
}

# An error that will pass
in_the_middle('cancelled', sub {
	my ($holder, $worker) = @_;
	query("SELECT pg_cancel_backend($worker)");
	comes_to($node, 'cancelled: the worker waits, and says why',
		q{SELECT bool_or(last_error ~ 'canceling statement due to user request') FROM spine_status WHERE pipeline = 'cancelled'});
});
audit('cancelled', $count);
finish_pipeline('cancelled');

# A deadlock: the worker or the other session gives way.
in_the_middle('deadlock', sub {
	my ($holder, $worker) = @_;
	$holder->query('BEGIN; LOCK TABLE deadlock_all');
	$holder->query('COMMIT');
});
audit('deadlock', $count);
finish_pipeline('deadlock');

# spine_seek waits for the batch, and no longer
{
	my $seek;
	in_the_middle('sought', sub { $seek = in_background(q{SELECT spine_seek('sought', NULL, 'earliest')}) });
	$seek->query_until(qr/ended/, '');
	$seek->quit;
	ok(wait_applied($node), 'sought: all is applied');
	comes_to($node, 'sought: records are read again', 'SELECT count(*) > count(DISTINCT (p, o)) AND count(DISTINCT (p, o)) = 20000 FROM sought_all');
	is(query('SELECT max(n) FROM (SELECT count(*) AS n FROM sought_all GROUP BY p, o) g'), '2', 'sought: once more, and not more often');
	is(query('SELECT count(*), sum(i) FROM sought_newest'), query("SELECT 100, sum(i) FROM generate_series($count - 99, $count) i"), 'sought: the newest are there');
	finish_pipeline('sought');
}

# A position is moved by hand, and nobody tells the worker.
{
	my $update;
	in_the_middle('moved', sub { $update = in_background(q{UPDATE spine_offsets SET next_offset = 0 WHERE pipeline = 'moved' AND partition = 0}) });
	$update->query_until(qr/ended/, '');
	$update->quit;

	# it sees that with its next batch, if the one that was held was not the last
	send_lines($broker->{address}, 'moved', 0, qq(key\t{"i": 0, "k": 0}\n));
	comes_to($node, 'moved: the worker reads again from there', 'SELECT count(*) FILTER (WHERE p = 0) > 10001 FROM moved_all');
	ok(wait_applied($node), 'moved: all is applied');
	is(query('SELECT count(DISTINCT (p, o)), count(*) FILTER (WHERE p = 1) FROM moved_all'), '20001|10000', 'moved: the other partition is not read again');
	finish_pipeline('moved');
}

# A position is moved by hand, before a batch in which the other one stays where it is.
{
	start_pipeline('fence', $count);
	audit('fence', $count);
	my $update = $node->background_psql('postgres');
	my ($worker) = worker_pids($node);
	my $moved_to = $count / 2 - 2;

	kill 'STOP', $worker;	# so that it finds a backlog
	send_lines($broker->{address}, 'fence', 1, join('', map { qq(key\t{"i": $_, "k": 0}\n) } 1 .. 5 * $piece));
	$update->query_safe("BEGIN; UPDATE spine_offsets SET next_offset = $moved_to WHERE pipeline = 'fence' AND partition = 1");
	kill 'CONT', $worker;
	comes_to($node, 'fence: a batch waits for the position',
		q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'spine worker' AND wait_event_type = 'Lock'});
	$update->query_safe('COMMIT');
	$update->quit;
	ok(wait_applied($node), 'fence: all is applied');
	is(query('SELECT count(*), min(o), max(o) FROM (SELECT o FROM fence_all GROUP BY p, o HAVING count(*) > 1) g'),
		join('|', 2, $moved_to, $moved_to + 1), 'fence: the records behind the new position are read again, and no others');
	is(query('SELECT count(DISTINCT (p, o)) FROM fence_all'), $count + 5 * $piece, 'fence: each record is there');
	finish_pipeline('fence');
}

# spine_pause does not wait for the batch, which ends with its piece.
{
	in_the_middle('paused', sub { query(q{SELECT spine_pause('paused')}) });
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine worker'}), 'paused: the worker ends');
	query(q{SELECT spine_resume('paused')});
	audit('paused', $count);
	finish_pipeline('paused');
}

# ALTER TABLE waits for the batch; the batches after it have another plan.
{
	my $alter;
	in_the_middle('altered', sub { $alter = in_background('ALTER TABLE altered_all ADD added int DEFAULT 7') });
	$alter->query_until(qr/ended/, '');
	$alter->quit;
	audit('altered', $count);
	is(query('SELECT count(*) FROM altered_all WHERE added = 7'), $count, 'altered: the new column has its default');
	finish_pipeline('altered');
}

#
# An expression that looks rows up sees what small batches have written.
#
$count = 5_000;
start_pipeline('lookup', $count, columns => '{"i": "i", "p": "$partition", "o": {"sql": "\"offset\" + (SELECT 0 * count(*) FROM pg_catalog.pg_am)"}}');
audit('lookup', $count);
cmp_ok($transactions->('lookup'), '>=', $count / $piece, 'lookup: each batch has one piece');
finish_pipeline('lookup');

#
# A parent is updated before its children come, piece by piece.  Two workers that did so for
# several pieces would wait for each other, as each piece is in the order of its own keys.
#
foreach my $workers (1, 2)
{
	set_config($node, 'spine.workers' => $workers);
	query(<<SQL);
CREATE TABLE parents_$workers (k int PRIMARY KEY, i int);
CREATE TABLE children_$workers (k int REFERENCES parents_$workers, p int, o bigint);
BEGIN;
INSERT INTO spine_pipelines (name, topic) VALUES ('family_$workers', 'plain');
INSERT INTO spine_sinks (pipeline, target, mode, version, columns) VALUES ('family_$workers', 'parents_$workers', 'upsert', 'i', '{"k": "k", "i": "i"}');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('family_$workers', 'children_$workers', 'append', '{"k": "k", "p": "\$partition", "o": "\$offset"}');
COMMIT;
SQL
	ok(wait_applied($node), "family, $workers workers: all is applied");
	is(query("SELECT count(*), count(DISTINCT (p, o)) FROM children_$workers"), '20000|20000', "family, $workers workers: each record is there once");
	cmp_ok(query("SELECT max(count) FROM (SELECT count(*) FROM children_$workers GROUP BY xmin::text) g"),
		$workers == 1 ? '>' : '<=', $piece, "family, $workers workers: how many pieces a batch has");
	finish_pipeline("family_$workers");
}
set_config($node, 'spine.workers' => 1);

# spine.batch_rows bounds the batch.
set_config($node, 'spine.batch_rows' => 3 * $piece);
start_pipeline('bounded', $count);
audit('bounded', $count);
cmp_ok(query('SELECT max(count) FROM (SELECT count(*) FROM bounded_all GROUP BY xmin::text) g'), '<=', 3 * $piece, 'bounded: no batch is larger than spine.batch_rows');
finish_pipeline('bounded');

# spine.batch_time 0: batches do not grow.
set_config($node, 'spine.batch_rows' => 500_000, 'spine.batch_time' => 0);
start_pipeline('small', $count);
audit('small', $count);
cmp_ok(query('SELECT max(count) FROM (SELECT count(*) FROM small_all GROUP BY xmin::text) g'), '<=', $piece, 'small: each batch has one piece');
finish_pipeline('small');

$node->stop;
stop_broker($broker);
done_testing();

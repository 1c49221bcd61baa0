# The workers of a pipeline share its partitions by load: an idle worker gets partitions
# from one that is behind.  Each record is still applied once, and those of a partition in
# the order of the log, whatever happens around a move: a worker is killed or ended,
# spine.workers changes, positions are moved, the topic grows.  Afterwards every partition
# has a worker, and spine_status says which.
#
# Broken when a partition is read by two workers or by none, when a worker that is given a
# partition starts elsewhere than where the other one ended, when a worker gives away
# what it has in hand, or when what was said of another number of workers still holds.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('load', 3);
my $address = $broker->{address};
my %sent;

# A batch of 250 records takes a quarter of a second, see below.
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$address'
spine.workers = 2
spine.batch_rows = 250
restart_after_crash = on
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Each row takes a millisecond, and says in which order it came, and from which process.
query(<<'SQL');
DELETE FROM spine_pipelines;
CREATE TABLE arrivals (topic text, partition int, "offset" bigint, number bigserial, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(0.001);
	RETURN NEW;
END $$;
CREATE TRIGGER slowly BEFORE INSERT ON arrivals FOR EACH ROW EXECUTE FUNCTION slowly();
SQL
make_pipeline($node, name => 'load', topic => 'load', target => 'arrivals', mode => 'append',
	columns => '{"topic": "$topic", "partition": "$partition", "offset": "$offset"}');
ok(wait_for_state($node, 'running'), 'two workers run');

sub send_records
{
	my ($n, @partitions) = @_;

	foreach my $partition (@partitions)
	{
		send_lines($address, 'load', $partition, "k\t{}\n" x $n);
		$sent{$partition} += $n;
	}
	return;
}

# Checks that all records were applied, each once, and those of a partition in order.
sub check_arrivals
{
	my ($when) = @_;

	ok(wait_applied($node), "$when: everything is applied");
	is( query(<<'SQL'), join("\n", map { "$_|$sent{$_}|$sent{$_}|t" } sort keys %sent), "$when: once, and in order");
SELECT partition, count(*), count(DISTINCT "offset"), bool_and(is_next)
FROM (SELECT partition, "offset",
		"offset" = coalesce(lag("offset") OVER (PARTITION BY partition ORDER BY number), -1) + 1 AS is_next
	  FROM arrivals) a
GROUP BY 1 ORDER BY 1
SQL
	return;
}

my $readers = q{SELECT string_agg(spine_partition_worker('load', 'load', 'load', p, 2)::text, '' ORDER BY p) FROM generate_series(0, 2) p};
my $is_shared = q{SELECT count(DISTINCT worker_pid) = 2 FROM spine_status WHERE partition IN (0, 2)};

# Sends a backlog to the two partitions of the first worker, and waits until each worker
# reads one of them.
sub share_load
{
	my ($what) = @_;

	send_records(2000, 0, 2);
	comes_to($node, "$what: with a backlog in two partitions of one worker, each worker reads one", $is_shared);
	return;
}

# Kills the process that reads a partition, in this way, and waits for its successor.
sub end_reader
{
	my ($partition, $signal) = @_;
	my $pid = query("SELECT worker_pid FROM spine_status WHERE partition = $partition");

	kill $signal, $pid;
	ok( poll_through_restart(
			$node, 'postgres',
			"SELECT count(DISTINCT pid) = 2 AND bool_and(state = 'running' AND pid <> $pid) FROM spine_worker_status()"),
		"SIG$signal: two workers run again");
	return;
}

is(query($readers), '010', 'at first the number of a partition decides');
is(query($is_shared), 'f', 'so one worker has partitions 0 and 2');
share_load('at rest');
isnt(query($readers), '010', 'spine_partition_worker says the same');
check_arrivals('shared');
is(query('SELECT count(DISTINCT pid) FROM arrivals'), '2', 'both workers have applied records');

#
# A worker ends in the middle: the one that was given a partition, or the one that gave it
#
foreach my $signal ('TERM', 'KILL')
{
	foreach my $partition (0, 2)
	{
		end_reader($partition, $signal);
		is(query($readers), '010', "SIG$signal: the partitions are back") if $signal eq 'KILL';
		share_load("SIG$signal");
		end_reader($partition, $signal);
		check_arrivals("SIG$signal of the reader of partition $partition");
	}
}

#
# Positions are moved: what lies behind them is applied again, by whoever reads it
#
share_load('spine_seek');
query(q{BEGIN; SELECT spine_seek('load', NULL, 'earliest'); TRUNCATE arrivals; COMMIT});
check_arrivals('spine_seek');

#
# Another number of workers: what was said of two does not hold
#
foreach my $workers (3, 2, 1, 2)
{
	share_load("to $workers workers") if query('SELECT count(*) FROM spine_worker_status()') eq '2';
	set_config($node, 'spine.workers' => $workers);
	comes_to($node, "$workers workers run",
		"SELECT count(pid) = $workers AND bool_and(state = 'running' AND workers = $workers) FROM spine_worker_status()");
	is( query(q{SELECT string_agg(w.worker::text, '' ORDER BY s.partition)
		FROM spine_status s JOIN spine_worker_status() w ON w.pid = s.worker_pid}),
		join('', map { $_ % $workers } 0 .. 2), 'each partition has its worker') unless $workers == 2;
	check_arrivals("$workers workers");
}

#
# Topics join: the name of a topic now decides as well, but not of what was given
#
share_load('topics');
query(q{UPDATE spine_pipelines SET topic = 'load, more'});
send_lines($address, 'more', 0, "k\t{}\n");
comes_to($node, 'a topic joins', q{SELECT count(*) = 1 FROM arrivals WHERE topic = 'more'});
query(q{DELETE FROM arrivals WHERE topic = 'more'});
check_arrivals('topics');

done_testing();

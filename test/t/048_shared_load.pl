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
CREATE TABLE arrivals (partition int, "offset" bigint, number bigserial, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(0.001);
	RETURN NEW;
END $$;
CREATE TRIGGER slowly BEFORE INSERT ON arrivals FOR EACH ROW EXECUTE FUNCTION slowly();
SQL
make_pipeline($node, name => 'load', topic => 'load', target => 'arrivals', mode => 'append',
	columns => '{"partition": "$partition", "offset": "$offset"}');
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

is(query($readers), '010', 'at first the number of a partition decides');
is(query($is_shared), 'f', 'so one worker has partitions 0 and 2');
send_records(4000, 0, 2);
comes_to($node, 'with a backlog in these two, each worker reads one', $is_shared);
isnt(query($readers), '010', 'spine_partition_worker says the same');
check_arrivals('shared');
is(query('SELECT count(DISTINCT pid) FROM arrivals'), '2', 'both workers have applied records');
note query('SELECT partition, pid, count(*) FROM arrivals GROUP BY 1, 2 ORDER BY 1, 2');

done_testing();

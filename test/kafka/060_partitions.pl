# Many partitions with a deep backlog: every partition advances from early on, a worker's
# memory stays under its ceiling, and each record is applied once.
#
# Broken when a few partitions keep the others from being read, when there is no bound
# over all partitions on what a broker sends at once, or when that bound leaves out the
# keys and headers of records.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

need_own_kafka();

my $partitions = 90;
my $records = 240_000;
my $record_bytes = 2000;
my $ceiling_mb = 200;

my $kafka = start_kafka();
topic($kafka, 'create', 'events', $partitions);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.enabled = off
CONF

# A table without a key: a record that is applied twice is there twice.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE arrivals (kafka_partition int, kafka_offset bigint);
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('orders', 'arrivals', 'append',
	'{"kafka_partition": "$partition", "kafka_offset": "$offset"}');
SQL

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The private memory of a process, in MB.
sub private_memory_mb
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 / 1024 : 0;
}

# Text that compresses about as well as JSON: three to one.
my @words = map { join '', map { chr(97 + rand 26) } 1 .. 6 } 1 .. 4000;
my @notes = map { join ' ', map { $words[rand @words] } 1 .. $record_bytes / 7 } 1 .. 50;

for (my $sent = 0; $sent < $records; $sent += 10_000)
{
	send_with($kafka, 'events', -1,
		join('', map { "$_\t" . (order_event(order_id => "ord-$_", note => '?') =~ s/\?/$notes[rand @notes]/r) . "\n" }
			  $sent + 1 .. $sent + 10_000),
		'-z', 'lz4');
}

my $start = time;
set_config($node, 'spine.enabled' => 'on');
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine worker'});
my ($worker) = worker_pids($node);
my $peak_mb = 0;
my $moved;

for (my $applied = 0; $applied < $records && time < $start + 3 * $PostgreSQL::Test::Utils::timeout_default; usleep(20_000))
{
	my $now_mb = private_memory_mb($worker);

	$peak_mb = $now_mb if $now_mb > $peak_mb;
	($applied, my $with_progress) = split /\|/,
	  query('SELECT coalesce(sum(next_offset), 0), count(*) FILTER (WHERE next_offset > 0) FROM spine_offsets');
	$moved //= "$with_progress" if $applied > $records / 3;
}
note sprintf '%d records in %.1f s', $records, time - $start;

ok(wait_applied($node), 'everything is applied in the end');
is($moved, $partitions, 'every partition has advanced when a third of the records is applied');
cmp_ok(int($peak_mb), '<=', $ceiling_mb, "the worker's private memory, in MB");
note sprintf 'at most %d MB, and %d MB in the end', $peak_mb, private_memory_mb($worker);
is(query('SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)) FROM arrivals'),
	"$records|$records", 'each record is applied once');
is(query('SELECT count(*) FROM events'), $records, 'each event is in events');

#
# Records that are mostly headers
#
query('DELETE FROM spine_pipelines');
topic($kafka, 'create', 'headers', 3);
my $large = 15_000;
my $header = 'note=' . join ' ', map { $words[rand @words] } 1 .. 20_000 / 7;
send_with($kafka, 'headers', -1, join('', map { "$_\t{\"n\": $_}\n" } 1 .. $large), '-H', $header);
query('CREATE TABLE numbers (n int)');
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE numbers IN SHARE MODE');
make_pipeline($node, name => 'headers', topic => 'headers', target => 'numbers', mode => 'append');
wait_for_held_batch($node);
($worker) = worker_pids($node);
$peak_mb = 0;
for (my $quiet = 0; $quiet < 50 && $peak_mb <= $ceiling_mb; usleep(100_000))
{
	# the worker fetches more until its limits are reached
	my $now_mb = private_memory_mb($worker);

	$quiet = $now_mb > $peak_mb ? 0 : $quiet + 1;
	$peak_mb = $now_mb if $now_mb > $peak_mb;
}
cmp_ok(int($peak_mb), '<=', $ceiling_mb, "records with large headers, held up by a lock: the worker's private memory, in MB");
note sprintf 'at most %d MB', $peak_mb;
$holder->query_safe('COMMIT');
$holder->quit;
ok(wait_applied($node), 'records with large headers are applied in the end');
is(query('SELECT count(*), count(DISTINCT n) FROM numbers'), "$large|$large", 'each record with large headers is applied once');

$node->stop;
stop_kafka($kafka);
done_testing();

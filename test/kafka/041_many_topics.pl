# A regular expression over many topics of a real Kafka: all are read, by two workers; a
# topic that is made is picked up; one that is deleted, and made again, stops for itself,
# and the others go on.
#
# Broken when what happens to one topic is taken for what happens to another one, when
# asking about many topics at once goes wrong, or when a client does not get over a topic
# that is deleted while it reads it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

need_own_kafka();

my $topics = 60;
my $kafka = start_kafka();
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$kafka->{address}'
spine.workers = 2
restart_after_crash = on
CONF
my %sent;

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub send_to
{
	my ($topic, $n) = @_;

	send_with($kafka, $topic, 0, join('', map { "k\t{\"topic\": \"$topic\", \"n\": " . ++$sent{$topic} . "}\n" } 1 .. $n));
	return;
}

# Everything that was sent is applied once.
sub is_applied
{
	my ($what) = @_;
	my $sum = 0;

	$sum += $_ foreach values %sent;
	comes_to($node, $what, "SELECT count(*) = $sum FROM many");
	is(query('SELECT count(*), count(DISTINCT (topic, n)), count(DISTINCT topic) FROM many'),
		"$sum|$sum|" . keys %sent, "$what: each record once");
	return;
}

query('DELETE FROM spine_pipelines');
topic($kafka, 'create', "many.$_", 1) foreach 1 .. $topics;
topic($kafka, 'create', 'many.other', 1);
query('CREATE TABLE many (topic text, n int)');
make_pipeline($node, name => 'many', topic => '^many\.\d+$', target => 'many', mode => 'append');
send_to("many.$_", 5) foreach 1 .. $topics;
is_applied('many topics');
is(query(q{SELECT count(*), count(DISTINCT topic), bool_and(state = 'running'), sum(lag) FROM spine_status}),
	"$topics|$topics|t|0", 'spine_status has them all');
cmp_ok(query(q{SELECT min(n) FROM (SELECT count(*) AS n FROM spine_status GROUP BY worker_pid) w}), '>', $topics / 6,
	'both workers have their share');
is(query(q{SELECT count(*) FROM spine_find_topics('^many\.\d+$') WHERE partitions = 1}), $topics, 'spine_find_topics');

topic($kafka, 'create', 'many.' . ($topics + 1), 1);
send_to('many.' . ($topics + 1), 5);
is_applied('a topic that is new');

kill 'KILL', (worker_pids($node))[0];
send_to("many.$_", 5) foreach 1 .. 10;
is_applied('a worker is killed');

my $committed;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$committed = group_offsets($kafka, 'spine-postgres-many');
	last unless grep { ($committed->{$_}{0} // 0) != $sent{$_} } keys %sent;
	usleep(100_000);
}
is_deeply($committed, { map { $_ => { 0 => $sent{$_} } } keys %sent }, 'the consumer group is told the positions of all topics');

topic($kafka, 'delete', 'many.7');
comes_to($node, 'a topic is gone',
	q{SELECT count(*) FILTER (WHERE high_watermark IS NULL) = 1 AND bool_and(state = 'running') FROM spine_status});
send_to("many.8", 5);
is_applied('the others are read');
is(query(q{SELECT next_offset FROM spine_offsets WHERE topic = 'many.7'}), '10', 'its position stays');

# Kafka may refuse to create a topic until it has removed the old one of that name.
foreach (1 .. 100)
{
	last if eval { topic($kafka, 'create', 'many.7', 1); 1 };
	sleep 1;
}
send_to('many.7', 3);
comes_to($node, 'a topic is made again: it is not read',
	q{SELECT count(*) > 0 FROM spine_status WHERE topic = 'many.7' AND state = 'failed' AND last_error LIKE 'partition 0 of topic "many.7" ends at offset 3,%'
	AND hint = $$To read it from its start: SELECT spine_seek('many', 0, 'earliest', 'many.7')$$});
send_to("many.9", 5);
comes_to($node, 'the others are read', q{SELECT count(*) = 15 FROM many WHERE topic = 'many.9'});
query(q{SELECT spine_seek('many', 0, 'earliest', 'many.7')});
is_applied('as the hint says');
comes_to($node, 'the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status});

$node->stop;
stop_kafka($kafka);
done_testing();

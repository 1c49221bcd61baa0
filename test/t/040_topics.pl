# A pipeline reads several topics: a list, or all that match a regular expression.  Each
# record of each topic is applied once, whatever topics come and go, however many workers
# there are, and whichever of them is killed.
#
# Broken when positions, moves or counts of two topics are taken for one because their
# partitions have the same number; when two workers disagree on who reads a partition; when
# a topic that is new is not read from its beginning; or when one that is missing or gone
# keeps the others from being read.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $broker = start_broker('a', 2);
my $address = $broker->{address};
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$address'
spine.workers = 1
spine.batch_rows = 1000
restart_after_crash = on
CONF
my %sent;

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The error of a statement that fails.
sub refusal
{
	my ($sql) = @_;
	my $err = '';

	$node->psql('postgres', $sql, stderr => \$err);
	return $err;
}

# Sends numbered records to a partition of a topic.
sub send_to
{
	my ($topic, $partition, $n) = @_;

	send_lines($address, $topic, $partition, join('', map { sprintf("k\t{\"topic\": \"$topic\", \"n\": %d}\n", ++$sent{$topic}) } 1 .. $n));
	return;
}

# A pipeline with a table of the same name, in which a record that is applied twice would
# appear twice.
sub add_pipeline
{
	my ($name, $topic, $start) = @_;

	$start //= 'earliest';
	query(qq{
		CREATE TABLE $name (topic text, part int, off bigint, n int);
		BEGIN;
		INSERT INTO spine_pipelines (name, topic, start) VALUES ('$name', '$topic', '$start');
		INSERT INTO spine_sinks (pipeline, target, mode, columns)
		VALUES ('$name', '$name', 'append', '{"topic": "topic", "part": "\$partition", "off": "\$offset", "n": "n"}');
		COMMIT});
	return;
}

sub applied
{
	my ($table) = @_;

	return query("SELECT topic, count(*), count(DISTINCT (part, off)), count(DISTINCT n) FROM $table GROUP BY 1 ORDER BY 1");
}

# What the table has when everything that was sent to the topics is applied once.
sub once
{
	return join "\n", map { "$_|$sent{$_}|$sent{$_}|$sent{$_}" } @_;
}

query('DELETE FROM spine_pipelines');

#
# What a list and an expression stand for
#
foreach my $case (
	[ 'a', 'a', 't' ], [ 'a', 'ab', 'f' ], [ 'a, b ,c', 'b', 't' ], [ 'a,b', 'c', 'f' ], [ 'a.b', 'axb', 'f' ],
	[ '^a.b', 'axbc', 't' ], [ '^a.b$', 'axbc', 'f' ], [ '^(a|b)$', 'b', 't' ], [ '^\d+$', '12', 't' ], [ '^A', 'a', 'f' ],
	[ '^.*', '__consumer_offsets', 'f' ], [ '^__con', '__consumer_offsets', 't' ], [ '__x,y', '__x', 't' ])
{
	my ($topics, $topic, $matches) = @$case;
	is(query("SELECT spine_topic_matches('$topic', '$topics')"), $matches, "topic '$topics', and '$topic'");
}
is(query(q{SELECT string_agg(spine_partition_worker('none', 'a', 'a', p, 2)::text, '' ORDER BY p) FROM generate_series(0, 5) p}),
	'010101', 'the partitions of one topic alternate between the workers');
like(query(q{SELECT string_agg(spine_partition_worker('none', '^t', 't' || i, 0, 2)::text, '' ORDER BY i) FROM generate_series(1, 20) i}),
	qr/0.*1|1.*0/, 'topics with one partition are spread over the workers');
like(refusal(q{INSERT INTO spine_pipelines (name, topic) VALUES ('bad', '^a(')}), qr/invalid regular expression: parentheses/,
	'an expression that is not valid is refused');

#
# A list, of which one topic does not exist yet
#
tell_broker($broker, 'hide c');
send_to('a', 0, 3);
send_to('a', 1, 4);
send_to('b', 0, 5);
send_to('b', 1, 6);
add_pipeline('list', 'a, b ,c,a');
ok(wait_applied($node), 'the topics that exist are read');
is(applied('list'), once('a', 'b'), 'each record of each topic is applied once');
is(query(q{SELECT topic, partition, state, next_offset, lag, events_total FROM spine_status WHERE lag IS NOT NULL AND next_offset > 0}),
	"a|0|running|3|0|3\na|1|running|4|0|4\nb|0|running|5|0|5\nb|1|running|6|0|6",
	'spine_status has a row for each topic and partition');
is(query(q{SELECT topic, partition, state, last_error, state_since = last_error_at, hint LIKE 'Create it%' FROM spine_status WHERE partition IS NULL}),
	'c||waiting|topic "c" does not exist|t|t', 'spine_status says which topic is missing');
is(query(q{SELECT ready, report #>> '{pipelines,0,state}', report #>> '{pipelines,0,lag}' FROM spine_readiness()}),
	't|waiting|0', 'spine_readiness: the pipeline waits for a topic');
is(query(q{SELECT count(*), count(DISTINCT labels) FROM spine_metrics WHERE metric = 'spine_next_offset'}), '6|6',
	'spine_metrics tells the topics apart');

send_values($address, 'b', 1, ['no JSON']);
ok(wait_applied($node), 'a record that is refused');
is(query('SELECT topic, kafka_partition, kafka_offset FROM spine_dead_letters'), 'b|1|6', 'is a dead letter of its topic');
is(query('SELECT topic, partition, dead_letters_total FROM spine_status WHERE dead_letters_total > 0'), 'b|1|1',
	'it is counted in its topic');

tell_broker($broker, 'show c');
send_to('c', 1, 7);
ok(wait_applied($node), 'a topic of the list that exists by now is read');
is(applied('list'), once('a', 'b', 'c'), 'from its beginning, and nothing else again');
is(query(q{SELECT bool_and(state = 'running') FROM spine_status}), 't', 'no topic is missing any more');

#
# spine_seek
#
is(query(q{SELECT * FROM spine_seek('list', 0, 'earliest', 'b')}), 'b|0|5|0', 'spine_seek to the start of a partition of a topic');
ok(wait_applied($node), 'it is read again');
is(applied('list'), "a|7|7|7\nb|16|11|11\nc|7|7|7", 'no other partition is read again');
is(query(q{SELECT * FROM spine_seek('list', 1, 4, 'a')}), 'a|1|4|4', 'spine_seek to a number');
is(query(q{SELECT topic, partition, new_offset FROM spine_seek('list', NULL, 'latest', 'b') WHERE new_offset > 0}), "b|0|5\nb|1|7",
	'spine_seek in all partitions of a topic');
is(query(q{SELECT sum(new_offset), count(*) FROM spine_seek('list', NULL, 'latest')}), '26|10', 'spine_seek in all partitions of all topics');
like(refusal(q{SELECT spine_seek('list', 0, 'earliest')}),
	qr/pipeline "list" reads several topics, and each has a partition 0.*HINT:  Say which topic: spine_seek\(pipeline, partition, target, topic\)/s,
	'spine_seek wants a topic for a partition');
like(refusal(q{SELECT spine_seek('list', 0, 'earliest', 'd')}), qr/pipeline "list" does not read topic "d".*DETAIL:  It reads "a, b ,c,a"/s,
	'spine_seek: another topic');
like(refusal(q{SELECT spine_seek('list', 9, 'earliest', 'b')}), qr/topic "b" has no partition 9/, 'spine_seek: a partition that is not there');
query('TRUNCATE list');
query(q{SELECT spine_seek('list', NULL, 'earliest')});
ok(wait_applied($node), 'spine_seek to the start of everything');
is(applied('list'), once('a', 'b', 'c'), 'everything is read once more');

#
# A topic that is gone, and comes back
#
tell_broker($broker, 'hide b');
comes_to($node, 'a topic is gone', q{SELECT count(*) = 1 FROM spine_status WHERE partition IS NULL AND topic = 'b' AND state = 'waiting'});
send_to('a', 0, 10);
ok(wait_applied($node), 'the others are read');
is(query(q{SELECT count(*) FROM spine_offsets WHERE topic = 'b'}), 4, 'its positions stay');
tell_broker($broker, 'show b');
send_to('b', 0, 10);
ok(wait_applied($node), 'it is back');
is(applied('list'), once('a', 'b', 'c'), 'it is read on from where it was');

#
# A partition of one topic that cannot be read
#
query(q{UPDATE spine_offsets SET next_offset = 1000 WHERE topic = 'b' AND partition = 0});
comes_to($node, 'a position beyond the end of a log: spine_status says which topic to seek in',
	q{SELECT bool_or(last_error LIKE 'partition 0 of topic "b" ends at offset 15,%'
	AND hint = $$To read it from its start: SELECT spine_seek('list', 0, 'earliest', 'b')$$) FROM spine_status});
send_to('a', 0, 5);
comes_to($node, 'partition 0 of another topic is read', "SELECT count(*) = $sent{a} FROM list WHERE topic = 'a'");
query(q{SELECT spine_seek('list', 0, 15, 'b')});
comes_to($node, 'spine_seek mends it', q{SELECT bool_and(state = 'running') FROM spine_status});
ok(wait_applied($node), 'the pipeline goes on');
is(applied('list'), once('a', 'b', 'c'), 'everything is applied once');

#
# A batch with records of two topics that is committed in parts, as many are refused.  The
# offsets of the first are beyond the end of the second: a position of the second that is
# taken from a record of the first would skip records.
#
send_to('a', 0, 1000);
ok(wait_applied($node), 'one topic is much longer than the other');
query('ALTER TABLE list ADD CHECK (n > 0)');
set_config($node, 'spine.kafka_options' => 'fetch.wait.max.ms=10');
send_to('c', 0, 1);
ok(wait_applied($node), 'a client that soon asks again');
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE list');
foreach my $topic ('a', 'b')
{
	send_lines($address, $topic, 0, join('', map { sprintf("k\t{\"topic\": \"$topic\", \"n\": %d}\n", $_ % 2 ? ++$sent{$topic} : -$_) } 1 .. 300));
	wait_for_held_batch($node);		# with the records of the first; the others follow them
}
$holder->query_safe('COMMIT');
$holder->quit;
ok(wait_applied($node), 'many records of two topics are refused');
set_config($node, 'spine.kafka_options' => '');
is(applied('list'), once('a', 'b', 'c'), 'the others are applied once');
is(query(q{SELECT topic, count(DISTINCT kafka_offset) FROM spine_dead_letters WHERE kafka_partition = 0 GROUP BY 1 ORDER BY 1}), "a|150\nb|150",
	'each refused record is a dead letter of its topic');
is(query(q{SELECT topic, next_offset FROM spine_offsets WHERE pipeline = 'list' AND topic IN ('a', 'b') AND partition = 0 ORDER BY 1}),
	join("\n", map { "$_|" . query("SELECT end_offset FROM spine_topic_offsets('$_') WHERE partition = 0") } 'a', 'b'),
	'each position is the end of its own log');
kill9_and_start($node);
send_to($_, 0, 1) foreach ('a', 'b');
ok(wait_applied($node), 'after a restart the logs are taken for those that were read');
is(applied('list'), once('a', 'b', 'c'), 'everything is applied once');

#
# An expression
#
add_pipeline('expression', '^re\.[0-9]+$');
comes_to($node, 'no topic matches the expression yet',
	q{SELECT bool_and(state = 'waiting' AND topic = '^re\.[0-9]+$' AND partition IS NULL AND last_error = 'no topic matches the regular expression "^re\.[0-9]+$"')
	FROM spine_status WHERE pipeline = 'expression'});
is(query('SELECT ready FROM spine_readiness()'), 't', 'that is no failure');
send_to($_, 0, 20) foreach ('re.1', 're.2', 're.x');
ok(wait_applied($node), 'topics that match are read');
is(applied('expression'), once('re.1', 're.2'), 'from their beginning, and no others');
send_to($_, 3, 20) foreach ('re.2', 're.3');
ok(wait_applied($node), 'a topic that matches later is read, too');
is(applied('expression'), once('re.1', 're.2', 're.3'), 'from its beginning');
is(query(q{SELECT count(DISTINCT topic), bool_and(state = 'running') FROM spine_status WHERE pipeline = 'expression'}), '3|t',
	'all of them are in spine_status');

#
# 'latest' is where the topics end when the pipeline begins; what is new later is read all
#
tell_broker($broker, 'hide e');
send_to('d', 0, 30);
add_pipeline('late', 'd,e,f', 'latest');
comes_to($node, 'a pipeline that starts at the end', q{SELECT sum(next_offset) >= 30 FROM spine_offsets WHERE pipeline = 'late'});
tell_broker($broker, 'show e');
send_to('e', 2, 30);
ok(wait_applied($node), 'a topic that joins it');
is(applied('late'), once('e'), 'is read from its beginning');

#
# Two workers, and one again; another set of topics
#
query('DELETE FROM spine_pipelines WHERE name <> $$list$$');
set_config($node, 'spine.workers' => 2);
send_to('a', $_ % 2, 500) foreach 1 .. 4;
send_to('b', $_ % 4, 500) foreach 1 .. 4;
comes_to($node, 'two workers share the partitions', q{SELECT count(DISTINCT worker_pid) = 2 AND bool_and(state = 'running') FROM spine_status});
ok(wait_applied($node), 'they read everything');
is(applied('list'), once('a', 'b', 'c'), 'once');
query(q{UPDATE spine_pipelines SET topic = '^[a-cg]$'});
send_to('g', $_ % 4, 500) foreach 1 .. 4;
set_config($node, 'spine.workers' => 1);
ok(wait_applied($node), 'an expression instead of the list, and one worker');
is(applied('list'), once('a', 'b', 'c', 'g'), 'what was read is not read again');
query(q{UPDATE spine_pipelines SET topic = 'a,b,c'});
set_config($node, 'spine.workers' => 2);

#
# kill -9
#
foreach my $round (1 .. 8)
{
	my @workers = worker_pids($node);
	my $old = join ',', @workers;

	send_to($_, $round % 2, 2500) foreach qw(a b c);
	# a moment, not a wait for something: this is where the kill may strike
	usleep(rand(200_000));
	if ($round % 2)
	{
		kill9_and_start($node);
	}
	else
	{
		kill 'KILL', $workers[ int rand @workers ];
	}
	poll_through_restart($node, 'postgres', <<SQL) or die 'workers do not come back';
SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'spine worker' AND pid <> ALL ('{$old}')
SQL
}
ok(wait_applied($node), 'after workers and servers were killed, everything is applied');
is(applied('list'), once('a', 'b', 'c', 'g'), 'once');

$node->stop;
stop_broker($broker);
done_testing();

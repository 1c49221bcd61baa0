# What a record may be on a real Kafka: compressed in every way, with a key of any
# bytes or without one, with headers, without a value, or in a transaction.  And the log
# may have gaps where compaction removed records.
#
# Broken when an aborted record is applied, when the lag stays above 0 because the log
# ends with a marker that consumers never see, or when a gap in the offsets is taken for
# a loss.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = start_kafka();
my $node = spine_node('main', conf => "spine.brokers = '$kafka->{address}'\n", extension => 0);

# names of the test's own, because the broker may have other topics
my $run = "spine-$$";
my $plain = "$run-events";
topic($kafka, 'create', $plain, 3);
topic($kafka, 'create', "$run-transactions", 1);
topic($kafka, 'create', "$run-compacted", 1, 'cleanup.policy=compact', 'segment.ms=100',
	'min.cleanable.dirty.ratio=0.01', 'max.compaction.lag.ms=200');

$node->append_conf('postgresql.conf', "spine.topic = '$plain'\n");
$node->reload;
$node->safe_psql('postgres', 'CREATE EXTENSION spine');

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

#
# spine's own producer
#
is(query(q{SELECT spine_produce('acme', 10000)}), '10000', 'spine_produce returns the number of events');
ok(wait_applied($node), 'everything is applied');
is(query('SELECT count(*), count(DISTINCT event_id) FROM events'), '10000|10000', 'each event is there once');
is(query(q{SELECT sum(lag) FROM spine_status}), '0', 'there is no lag');
query('TRUNCATE events');

#
# Compression
#
foreach my $codec (qw(none gzip snappy lz4 zstd))
{
	send_with($kafka, $plain, 0,
		join('', map { "k\t" . order_event(order_id => $codec) . "\n" } 1 .. 1000), '-z', $codec);
}
ok(wait_applied($node), 'records in five codecs are read');
is(query('SELECT string_agg(order_id || count, \' \' ORDER BY order_id)
	FROM (SELECT order_id, count(*) FROM events GROUP BY 1) t'),
	'gzip1000 lz41000 none1000 snappy1000 zstd1000', 'all records of each codec are applied');

#
# Keys and headers, in dead letters because these show them
#
my $binary = "\x00\xff\x80\x0akey";
IPC::Run::run([ 'kcat', '-b', $kafka->{address}, '-q', '-P', '-t', $plain, '-p', 2,
		'-K', '%%', '-D', '@@', '-H', 'trace=abc', '-H', 'empty=' ],
	'<', \"$binary%%binary key@@")
  or die 'kcat failed';
IPC::Run::run([ 'kcat', '-b', $kafka->{address}, '-q', '-P', '-t', $plain, '-p', 2 ], '<', \"null key\n")
  or die 'kcat failed';
IPC::Run::run([ 'kcat', '-b', $kafka->{address}, '-q', '-P', '-t', $plain, '-p', 2 ],
	'<', \(order_event(order_id => 'no key') . "\n"))
  or die 'kcat failed';
send_tombstone($kafka->{address}, $plain, 2, 'gone');
ok(wait_applied($node), 'records with keys and headers are read');
is(query(q{SELECT encode(key, 'hex'), headers, convert_from(value, 'UTF8'), sqlstate
	FROM spine_dead_letters ORDER BY kafka_offset}),
	unpack('H*', $binary) . '|{{"\\\\x7472616365","\\\\x616263"},{"\\\\x656d707479","\\\\x"}}|binary key|22P02' . "\n"
	  . "||null key|22P02\n"
	  . unpack('H*', 'gone') . '|||22004',
	'dead letters show a binary key with headers, a null key, a tombstone');
is(query(q{SELECT count(*) FROM events WHERE order_id = 'no key'}), '1', 'an event without a key is applied');

#
# Transactions
#
query('CREATE TABLE transactions (id int, kafka_offset bigint)');
make_pipeline($node, name => 'transactions', topic => "$run-transactions", target => 'transactions',
	mode => 'append', columns => '{"id": "id", "kafka_offset": "$offset"}');
sub ids { return map { qq({"id": $_}) } @_; }

transaction($kafka, 'commit', "$run-transactions", 0, ids(1 .. 3));
transaction($kafka, 'abort', "$run-transactions", 0, ids(4 .. 6));
transaction($kafka, 'commit', "$run-transactions", 0, ids(7 .. 8));
transaction($kafka, 'abort', "$run-transactions", 0, ids(9 .. 10));
ok(wait_applied($node), 'spine_wait returns although the log ends with markers of transactions');
is(query(q{SELECT string_agg(id::text, ' ' ORDER BY kafka_offset) FROM transactions}), '1 2 3 7 8',
	'committed records are applied, aborted ones are not');
ok($node->poll_query_until('postgres',
	q{SELECT lag = 0 AND next_offset = 14 FROM spine_status WHERE pipeline = 'transactions'}),
	'the position is behind the last marker, and the lag is 0');
transaction($kafka, 'commit', "$run-transactions", 0, ids(11));
ok(wait_applied($node), 'a record behind the markers is read');
is(query('SELECT max(id) FROM transactions'), '11', 'a record behind the markers is applied');

#
# Compaction
#
query('CREATE TABLE compacted (id int PRIMARY KEY, kafka_offset bigint)');
sub first_offsets { return read_log($kafka->{address}, "$run-compacted", '%o '); }

send_with($kafka, "$run-compacted", 0, join '', map { 'k' . $_ % 3 . qq(\t{"id": $_}\n) } 0 .. 99);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	# a segment is rolled only when something is written, and compacted only after that
	send_with($kafka, "$run-compacted", 0, qq(end\t{"id": 1000}\n));
	last if first_offsets() =~ /^97 98 99 /;
	Time::HiRes::usleep(100_000);
}
like(first_offsets(), qr/^97 98 99 /, 'the log begins with a gap');
make_pipeline($node, name => 'compacted', topic => "$run-compacted", target => 'compacted',
	mode => 'append', key => '{id}', columns => '{"id": "id", "kafka_offset": "$offset"}');
ok(wait_applied($node), 'a compacted topic is read');
is(query('SELECT string_agg(id::text, \' \' ORDER BY kafka_offset) FROM compacted'), '97 98 99 1000',
	'what compaction left is applied');
is(query(q{SELECT state, lag FROM spine_status WHERE pipeline = 'compacted'}), 'running|0',
	'gaps are not taken for a loss');

is(query(q{SELECT count(*) FROM spine_status WHERE state <> 'running' OR last_error IS NOT NULL}), '0',
	'no pipeline reports trouble');

query(q{DELETE FROM spine_pipelines});
$node->stop;
topic($kafka, 'delete', "$run-$_") foreach qw(events transactions compacted);
stop_kafka($kafka);
done_testing();

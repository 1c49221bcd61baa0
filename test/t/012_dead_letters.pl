# A bad record never stops a good one, and is never lost: it becomes one dead letter
# with its exact bytes and the reason, in the commit that applies its neighbours.
#
# Broken when a decoding error or a refusal of the database fails a batch, loses the
# record or a byte of it, blames a neighbour, writes the dead letter in a different
# transaction than the offsets, or keeps the worker busy for ever.
use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $broker = start_broker('events', 3);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.batch_interval = '1s'		# what is sent at once is one batch
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# As many good events as asked for, as lines for send_lines.
sub good_lines
{
	my ($count, $order_id) = @_;

	return join '', map { "acme\t" . order_event(order_id => $order_id) . "\n" } 1 .. $count;
}

#
# One bad record in 10,000.
#
query('ALTER TABLE events ADD CONSTRAINT no_freebies CHECK (amount_cents <> 0)');

# [what, partition, value, sqlstate, reason]
my @in_ten_thousand = (
	[ 'one that is not JSON', 0, "\x00\xff not \x80 JSON", '22P02', 'not a JSON object at byte 1' ],
	[ 'one that a constraint refuses', 1, order_event(amount_cents => 0), '23514', 'no_freebies' ]);

foreach my $bad (@in_ten_thousand)
{
	my ($what, $partition, $value, $sqlstate, $reason) = @$bad;

	query(q{SELECT spine_pause('orders')});
	send_lines($broker->{address}, 'events', $partition, good_lines(5000, 'one in 10,000'));
	send_values($broker->{address}, 'events', $partition, [$value], 'trace=abc', 'empty=');
	send_lines($broker->{address}, 'events', $partition, good_lines(4999, 'one in 10,000'));
	query(q{SELECT spine_resume('orders')});
	wait_applied($node);

	is(query("SELECT count(*) FROM events WHERE kafka_partition = $partition"),
		'9999', "$what in 10,000: the other 9,999 are applied");
	is(query(<<SQL), join('|', 'orders', 'events', 5000, unpack('H*', 'k'), unpack('H*', $value),
SELECT pipeline, topic, kafka_offset, encode(key, 'hex'), encode(value, 'hex'),
	headers, record_time > now() - interval '1 hour', sqlstate
FROM spine_dead_letters WHERE kafka_partition = $partition
SQL
			'{{"\\\\x7472616365","\\\\x616263"},{"\\\\x656d707479","\\\\x"}}', 't', $sqlstate),
		"$what: one dead letter, with everything from the record");
	like(query("SELECT reason FROM spine_dead_letters WHERE kafka_partition = $partition"),
		qr/\Q$reason/, "$what: the dead letter has the reason");

	# each of these times is now(), the start of a transaction
	is(query(<<SQL), 't|t', "$what: rows, dead letter and offset come from one transaction");
SELECT failed_at IN (SELECT applied_at FROM events WHERE kafka_partition = $partition AND kafka_offset IN (4999, 5001)),
	(SELECT updated_at FROM spine_offsets WHERE partition = $partition) =
		(SELECT max(applied_at) FROM events WHERE kafka_partition = $partition)
FROM spine_dead_letters WHERE kafka_partition = $partition
SQL
}
is(query(<<'SQL'), 't|t', 'if nothing had to be undone, rows, dead letter and offset have one transaction id');
SELECT xmin::text IN (SELECT xmin::text FROM events WHERE kafka_partition = 0 AND kafka_offset IN (4999, 5001)),
	(SELECT xmin::text FROM spine_offsets WHERE partition = 0) =
		(SELECT xmin::text FROM events WHERE kafka_partition = 0 ORDER BY kafka_offset DESC LIMIT 1)
FROM spine_dead_letters WHERE kafka_partition = 0
SQL

#
# Everything that can be wrong with a record, each time between good records.
#

# An order event with one value given as JSON, valid or not.
sub with_raw
{
	my ($key, $json) = @_;

	return order_event($key => 'RAW') =~ s/"RAW"/$json/r;
}

my $random = join '', map { chr(ord('a') + rand 26) } 1 .. 900_000;

# [what, value, sqlstate, reason]
my @bad = (
	[ 'broken JSON', '{"tenant": "acme", ', '22P02', qr/JSON without an end/ ],
	[ 'two objects', order_event() . order_event(), '22P02', qr/at byte/ ],
	[ 'a JSON array', '[' . order_event() . ']', '22P02', qr/not a JSON object/ ],
	[ 'a JSON string', '"acme"', '22P02', qr/not a JSON object/ ],
	[ 'white space', " \n", '22P02', qr/nothing but white space/ ],
	[ 'invalid UTF-8', with_raw('order_id', "\"\xff\""), '22P02', qr/invalid UTF-8/ ],
	[ 'overlong UTF-8', with_raw('order_id', "\"\xc0\xaf\""), '22P02', qr/invalid UTF-8/ ],
	[ 'a surrogate in UTF-8', with_raw('order_id', "\"\xed\xa0\x80\""), '22P02', qr/invalid UTF-8/ ],
	[ '\u0000', with_raw('order_id', '"a\u0000b"'), '22021', qr/invalid byte sequence.*0x00/ ],
	[ 'NUL itself', with_raw('order_id', "\"a\0b\""), '22P02', qr/control character/ ],
	[ 'half a surrogate pair', with_raw('order_id', '"\ud83d"'), '22P02', qr/half of a surrogate pair/ ],
	[ 'the other half', with_raw('order_id', '"\ude00x"'), '22P02', qr/half of a surrogate pair/ ],
	[ 'beyond bigint', with_raw('amount_cents', '9223372036854775808'), '22003', qr/out of range/ ],
	[ 'far beyond bigint', with_raw('amount_cents', '1' . '0' x 100), '22003', qr/out of range/ ],
	[ '1e400', with_raw('amount_cents', '1e400'), '22003', qr/"1e400" is out of range.*amount_cents/ ],
	[ 'NaN', with_raw('amount_cents', 'NaN'), '22P02', qr/neither a number nor/ ],
	[ 'text for a number', order_event(amount_cents => 'much'), '22P02', qr/invalid input syntax.*much.*amount_cents/ ],
	[ 'a list for a number', with_raw('amount_cents', '[1]'), '22P02', qr/invalid input syntax/ ],
	[ 'a number for a uuid', with_raw('event_id', '7'), '22P02', qr/invalid input syntax.*event_id/ ],
	[ 'a number for a time', with_raw('event_time', '1e9'), '22007', qr/number 1e9 is not of type timestamp.*event_time.*"as" in the mapping/ ],
	[ 'no such day', order_event(event_time => '2026-02-29T00:00:00Z'), '22008', qr/out of range/ ],
	[ 'year 294277', order_event(event_time => '294277-01-01T00:00:00Z'), '22008', qr/out of range/ ],
	[ 'a missing field', order_event(amount_cents => undef), '23502', qr/null value.*amount_cents/ ],
	[ 'a missing key', order_event(tenant => undef), '23502', qr/null value.*tenant/ ],
	[ 'a missing time', order_event(event_time => undef), '23502', qr/null value in version column "updated_at"/ ],
	[ 'null', with_raw('order_id', 'null'), '23502', qr/null value.*order_id/ ],
	[ 'an empty object', '{}', '2203A', qr/none of the fields that table public.events takes/ ],
	[ 'a key too large for the index', order_event(order_id => $random), '54000', qr/index row/ ],
	[ '900 KB that are not JSON', $random, '22P02', qr/not a JSON object/ ],
	[ '10,000 brackets', with_raw('order_id', '[' x 10_000), '54000', qr/nested deeper than 512 levels/ ],
	[ '10,000 brackets, closed', with_raw('order_id', '[' x 10_000 . ']' x 10_000), '54000', qr/nested deeper than 512 levels/ ],
	[ '100,000 braces', '{"a":' x 100_000, '54000', qr/nested deeper than 512 levels/ ]);

# [what, value, what becomes of it]
my @legal = (
	[ 'duplicate keys: the last wins', with_raw('order_id', '"first", "order_id": "last"'), 'last|1000' ],
	[ 'unknown keys, 900 KB of them', order_event(order_id => 'large', unknown => $random), 'large|1000' ],
	[ 'the largest bigint', order_event(order_id => 'max', amount_cents => '9223372036854775807'), 'max|9223372036854775807' ],
	[ 'a number as order', with_raw('order_id', '12.50'), '12.50|1000' ],
	[ 'escapes and characters beyond 16 bits', with_raw('order_id', '"\u00e9\n\ud83d\ude00"'), "\xc3\xa9\n\xf0\x9f\x98\x80|1000" ]);

my $offset = 9_999;
send_values($broker->{address}, 'events', 0,
	[ map { (order_event(order_id => 'neighbour'), $_->[1]) } @bad ]);
send_values($broker->{address}, 'events', 0, [ map { $_->[1] } @legal ]);
send_lines($broker->{address}, 'events', 0, "k\t\n");
send_tombstone($broker->{address}, 'events', 0, 'k');
send_lines($broker->{address}, 'events', 0, good_lines(1, 'after'));
wait_applied($node);

foreach my $bad (@bad)
{
	my ($what, $value, $sqlstate, $reason) = @$bad;

	$offset += 2;
	my ($got_state, $same, $got_reason) = split /\|/, query(<<SQL), 3;
SELECT sqlstate, md5(value) = '@{[ md5_hex($value) ]}' AND length(value) = @{[ length $value ]} AND key = 'k', reason
FROM spine_dead_letters WHERE kafka_partition = 0 AND kafka_offset = $offset
SQL
	ok($same && $same eq 't', "$what: a dead letter with its bytes");
	is($got_state, $sqlstate, "$what: SQLSTATE");
	like($got_reason, $reason, "$what: the reason");
}
foreach my $legal (@legal)
{
	$offset++;
	is(query("SELECT order_id, amount_cents FROM events WHERE kafka_partition = 0 AND kafka_offset = $offset"),
		$legal->[2], $legal->[0]);
}
is(query(<<SQL), "t|f|0|empty value\nt|t||tombstone", 'dead letters for an empty value and for a tombstone');
SELECT key = 'k', value IS NULL, length(value), reason FROM spine_dead_letters
WHERE kafka_partition = 0 AND kafka_offset > $offset ORDER BY kafka_offset
SQL
is(query('SELECT count(*) FROM spine_dead_letters WHERE kafka_partition = 0'), 1 + @bad + 2,
	'nothing else is a dead letter');
is(query("SELECT count(*) FROM events WHERE kafka_partition = 0 AND kafka_offset >= 10000"),
	@bad + @legal + 1, 'all other records are applied');

#
# Records that the user's own constraints and triggers refuse.
#
query(<<'SQL');
CREATE TABLE guarded (id int PRIMARY KEY, amount int, parent int, path jsonpath,
	CHECK (amount > 0),
	UNIQUE (amount) DEFERRABLE INITIALLY DEFERRED,
	FOREIGN KEY (parent) REFERENCES guarded DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.amount = 666 THEN
		RAISE EXCEPTION 'not this one' USING DETAIL = 'Because.';
	END IF;
	IF NEW.amount = 888 THEN
		RAISE EXCEPTION 'as extensions written in C say it' USING ERRCODE = 'internal_error';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE FUNCTION refuse_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.amount = 777 THEN
		RAISE EXCEPTION 'not this one either' USING ERRCODE = 'check_violation';
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER refuse_later AFTER INSERT ON guarded
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_later();
SQL
make_pipeline($node, name => 'guarded', topic => 'guarded', target => 'guarded', mode => 'append', key => '{id}');
send_lines($broker->{address}, 'guarded', 0, join '', map { "k\t$_\n" }
	  '{"id": 1, "amount": 1}',
	'{"id": 2, "amount": -1}',
	'{"id": 3, "amount": 3}',
	'{"id": 4, "amount": 666}',
	'{"id": 5, "amount": 777}',
	'{"id": 6, "amount": 3}',
	'{"id": 7, "amount": 7, "parent": 99}',
	'{"id": 8, "amount": 8, "parent": 3}',
	'{"id": 9, "amount": 9, "path": "$["}',
	'{"id": 10, "amount": 888}',
	'{"id": 11, "amount": 11, "path": "$[0]"}');
wait_applied($node);
is(query('SELECT id FROM guarded ORDER BY id'), "1\n3\n8\n11", 'the rows that nothing refuses are applied');
is(query(q{SELECT kafka_offset + 1, sqlstate FROM spine_dead_letters WHERE topic = 'guarded' ORDER BY id}),
	"2|23514\n4|P0001\n5|23514\n6|23505\n7|23503\n9|42601\n10|XX000",
	'CHECK, trigger, deferred trigger, deferred UNIQUE and FOREIGN KEY, a type with a syntax, '
	  . 'an internal error: each refuses only its row');
is(query(q{SELECT reason FROM spine_dead_letters WHERE topic = 'guarded' AND sqlstate = 'P0001'}),
	'not this one DETAIL: Because.', 'the reason has the message and the detail of the trigger');

#
# A topic with only bad records: some cannot be decoded, the others are refused by the
# database.
#
sub cpu_ticks
{
	my ($pid) = @_;

	# utime and stime, counted from the state after the name in parentheses
	my @fields = split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //sr;
	return $fields[11] + $fields[12];
}

# True once the process has used almost no CPU time for a second.
sub comes_to_rest
{
	my ($pid) = @_;

	for (1 .. $PostgreSQL::Test::Utils::timeout_default)
	{
		my $before = cpu_ticks($pid);
		usleep(1_000_000);
		return 1 if cpu_ticks($pid) - $before <= 2;
	}
	return 0;
}

my $start = time;
send_lines($broker->{address}, 'events', 2, "acme\tbad\n" x 10_000 . "acme\t{}\n" x 10_000);
wait_applied($node);
note sprintf('20,000 bad records: %.1f s', time - $start);
is(query('SELECT count(*), count(DISTINCT kafka_offset) FROM spine_dead_letters WHERE kafka_partition = 2'),
	'20000|20000', 'a topic of bad records: each becomes one dead letter');
is(query(q{SELECT next_offset, dead_letters_total, state FROM spine_status
		WHERE pipeline = 'orders' AND partition = 2}),
	'20000|20000|running', 'the position is behind the bad records, and the pipeline runs');
ok(comes_to_rest(query(q{SELECT worker_pid FROM spine_status WHERE pipeline = 'orders' AND partition = 2})),
	'the worker becomes idle');
send_lines($broker->{address}, 'events', 2, good_lines(10, 'after the bad ones'));
wait_applied($node);
is(query(q{SELECT count(*) FROM events WHERE order_id = 'after the bad ones'}), '10',
	'good records behind the bad ones are applied');

$node->stop;
stop_broker($broker);
done_testing();

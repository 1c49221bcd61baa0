# Looking before leaping: spine_peek shows what is on a topic and changes nothing there,
# nor in the database; spine_infer writes a table and a pipeline for it that run as they are.
#
# Broken when a look creates a topic, moves a position, misses a record, hangs on a gap or
# on a broker that is away, or fails because one record is no JSON; and when what is
# inferred does not take the records that it was inferred from, or runs what a record says.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('plain', 3);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'\n");
my $address = $broker->{address};

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Checks that a statement fails with an error of this SQLSTATE that matches.
sub refused
{
	my ($what, $sql, $sqlstate, $error) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	like($err, qr/ERROR:  $sqlstate: .*$error/, $what);
	return;
}

#
# spine_peek
#
send_lines($address, 'plain', 0, join '', map { "k$_\t{\"n\": $_}\n" } 0 .. 29);
send_lines($address, 'plain', 1, join '', map { "$_\t{\"n\": $_}\n" } 100 .. 104);
my $rows = q{SELECT partition, "offset", key, value ->> 'n', error FROM spine_peek};

is(query("$rows('plain', 3, 'earliest') ORDER BY 1, 2"), qq{0|0|"k0"|0|\n0|1|"k1"|1|\n0|2|"k2"|2|}, 'the first records');
is(query("$rows('plain', 2) ORDER BY 1, 2"), "1|3|103|103|\n1|4|104|104|", 'the last records, by their time');
is(query("$rows('plain', 3, '28') ORDER BY 1, 2"), qq{0|28|"k28"|28|\n0|29|"k29"|29|}, 'from an offset on');
is(query(qq{$rows('plain', 2, '{"1": 1}') ORDER BY 1, 2}), "1|1|101|101|\n1|2|102|102|", 'from an offset of one partition on');
is(query("SELECT count(*), count(DISTINCT (partition, \"offset\")) FROM spine_peek('plain', 10000, 'earliest')"), '35|35', 'all records');
is(query("SELECT count(*) FROM spine_peek('plain', 10000)"), '35', 'no more than there are, from the end');
is(query(q{SELECT bool_and("timestamp" BETWEEN now() - interval '10 min' AND now() + interval '1 min') FROM spine_peek('plain')}), 't', 'timestamps');
is(query('SELECT count(*) FROM spine_peek(\'plain\', 10, \'{"2": 0}\')'), '0', 'an empty partition');

send_values($address, 'odd', 0, [ "\xff", 'no json', '"\u0000"', '7', 'null', '{"deep": [1, {"a": 12345678901234567890.10}]}', '[' x 20000 ],
	'trace=abc', 'n=5', 'o={"x": true}', 'trace=def');
send_tombstone($address, 'odd', 0, 'gone');
is(query(q{SELECT "offset", key, value, headers, error FROM spine_peek('odd')}), <<'ROWS' =~ s/\n$//r, 'what is not JSON says so, and the rest is shown');
0|"k"||{"n": 5, "o": {"x": true}, "trace": "def"}|value: not UTF-8
1|"k"||{"n": 5, "o": {"x": true}, "trace": "def"}|value: invalid input syntax for type json DETAIL: Token "no" is invalid.
2|"k"||{"n": 5, "o": {"x": true}, "trace": "def"}|value: unsupported Unicode escape sequence DETAIL: \u0000 cannot be converted to text.
3|"k"|7|{"n": 5, "o": {"x": true}, "trace": "def"}|
4|"k"|null|{"n": 5, "o": {"x": true}, "trace": "def"}|
5|"k"|{"deep": [1, {"a": 12345678901234567890.10}]}|{"n": 5, "o": {"x": true}, "trace": "def"}|
6|"k"||{"n": 5, "o": {"x": true}, "trace": "def"}|value: jsonb of it would take more memory than spine.max_record_memory allows
7|"gone"||||
ROWS

query('CREATE ROLE nobody');
refused('nobody may look by default', "SET ROLE nobody; SELECT spine_peek('plain')", 42501, 'permission denied for function spine_peek');
refused('too many', "SELECT spine_peek('plain', 10001)", 22023, 'between 1 and 10000');
refused('none', "SELECT spine_peek('plain', 0)", 22023, 'between 1 and 10000');
refused('no such place', "SELECT spine_peek('plain', 1, 'somewhere')", 22007, 'somewhere');
refused('no such partition', q{SELECT spine_peek('plain', 1, '{"3": 1}')}, 22023, 'partition that the topic does not have');
refused('no such server', q{SELECT spine_peek('plain', server => 'moon')}, 42704, 'server "moon" does not exist');

tell_broker($broker, 'hide plain');
refused('a topic that does not exist', "SELECT spine_peek('plain')", 42704, 'topic "plain" does not exist');
tell_broker($broker, 'show plain');
is(query("SELECT count(*) FROM spine_peek('plain')"), '10', 'after errors');

# the session has no thread and no descriptor left
is(query(<<'SQL'), "0", 'a look leaves nothing behind');
CREATE FUNCTION pg_temp.threads() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM pg_ls_dir('/proc/' || pg_backend_pid() || '/task')$$;
CREATE FUNCTION pg_temp.files() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM pg_ls_dir('/proc/' || pg_backend_pid() || '/fd')$$;
SELECT FROM spine_peek('plain', 1);
SELECT pg_temp.threads() + pg_temp.files() AS before \gset
SELECT FROM spine_peek('plain', 1);
DO $$ BEGIN PERFORM spine_peek('plain', 1, '{"7": 0}'); EXCEPTION WHEN invalid_parameter_value THEN NULL; END $$;
SELECT pg_temp.threads() + pg_temp.files() - :before;
SQL

#
# A broker that is away: an error with the reason; and it can be cancelled
#
set_config($node, 'spine.brokers' => '127.0.0.1:1');
refused('a broker that is away', "SELECT spine_peek('plain')", '08006', 'the broker does not answer');
my $start = time;
refused('cancelled', "SET statement_timeout = '500ms'; SELECT spine_peek('plain')", 57014, 'statement timeout');
cmp_ok(time - $start, '<', 4, 'at once');
set_config($node, 'spine.brokers' => $address);

stop_broker($broker);
$node->stop;
done_testing();

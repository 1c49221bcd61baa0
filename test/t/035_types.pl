# A row is what json_populate_record makes of the record, for every type; and the exceptions
# from that are those that are documented.
#
# Broken when a fast path, or what stands between the record and PostgreSQL's own code, makes
# another value of any type, refuses what PostgreSQL takes, or takes what it refuses; when a
# value depends on the session's settings; when a number is taken for a time; when a record
# that has nothing of what a sink asks for becomes a row of nulls; when a mapping that cannot
# be meant is accepted; or when a type is altered and the worker goes on with the old one.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use JSON::PP ();
use SpineTest;
use Test::More;

my $module = "$FindBin::RealBin/../../build/test_records.so";
my $broker = start_broker('types', 2);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.topic = 'types'
spine.breaker_records = 0		# one type refuses many values in a row
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The error of a statement that fails: SQLSTATE, message, detail and hint.
sub refusal
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stdout => \$out, stderr => \$err);
	return $err;
}

query(<<SQL);
SELECT spine_pause('orders');
ALTER DATABASE postgres SET timezone = 'UTC';

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
CREATE DOMAIN short AS varchar(3) CHECK (VALUE <> 'no');
CREATE DOMAIN shorter AS short CHECK (length(VALUE) < 3);
CREATE DOMAIN evens AS int[] CHECK (cardinality(VALUE) % 2 = 0);
CREATE DOMAIN documents AS jsonb CHECK (VALUE <> '{}');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN full_pair AS pair CHECK ((VALUE).x <> 0);
CREATE TYPE deep AS (p pair, q pair[], j jsonb, s json, e even, t timestamptz, m mood, f full_pair, a evens);
CREATE TYPE real_range AS RANGE (subtype = float8);
CREATE DOMAIN days AS daterange CHECK (NOT isempty(VALUE));

CREATE SCHEMA module;
CREATE FUNCTION module.make_plan(name) RETURNS int STRICT LANGUAGE c AS '$module', 'test_make_plan';
CREATE FUNCTION module.free_plan(int) RETURNS void STRICT LANGUAGE c AS '$module', 'test_free_plan';
CREATE FUNCTION module.apply_one(plan int, key bytea, value bytea, names text[] = '{}', contents bytea[] = '{}')
RETURNS text LANGUAGE c AS '$module', 'test_apply_one';
SQL

#
# A column of each type, and each value in each column
#
my @types = split /\n/, query(<<'SQL');
WITH base AS (
	SELECT format_type(t.oid, NULL) AS name
	FROM pg_type t
	WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
		AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
	UNION
	SELECT unnest('{mood, even, short, shorter, evens, documents, pair, full_pair, deep, real_range, real_multirange, days}'::text[])
)
SELECT name FROM base
UNION ALL
SELECT name || '[]' FROM base WHERE to_regtype(name || '[]') IS NOT NULL
UNION ALL
SELECT unnest('{char(3), varchar(3), "numeric(5,2)", bit(3), varbit(4), timestamp(0), timestamptz(1), time(1), timetz(0),
	interval day to second(1), varchar(2)[], "numeric(4,1)[]", timestamp(0)[], bit(2)[]}'::text[])
ORDER BY 1
SQL
cmp_ok(scalar @types, '>', 180, 'types of the server and ours, and their arrays: ' . @types);

query('CREATE TABLE target (id int, ' . join(', ', map { "c$_ $types[$_]" } 0 .. $#types) . ');
	CREATE TABLE expected (LIKE target);');
make_pipeline($node, name => 'types', topic => 'types', target => 'target', mode => 'append');

my @values = split /\n/, <<'JSON';
null
true
false
0
1
-1
42
-0
3.14
-2.5e-3
32768
-32768
2147483648
9223372036854775807
9223372036854775808
12345678901234567890.1234567890123456789
1.7976931348623157e308
1e400
""
"a"
"abc"
"abcd"
"abc "
"no"
"ok"
"sad"
" 12 "
"1"
"-7"
"3.5"
"1e3"
"9223372036854775808"
"t"
"yes"
"off"
"NaN"
"Infinity"
"-infinity"
"2026-02-03"
"2026-02-03 04:05:06"
"2026-02-03T04:05:06.7896543Z"
"2026-02-03 04:05:06.5+05:30"
"2026-02-30"
"03/02/2026"
"2026-06-30 23:59:60"
"04:05:06.789"
"04:05:06-08"
"24:00"
"1 day 2:03:04.56"
"P1DT2H"
"epoch"
"0044-03-15 BC"
"{}"
"{1,2}"
"{{1,2},{3,4}}"
"[2:3]={1,2}"
"{a,NULL,\"b c\"}"
"[1,5)"
"(1.5,)"
"empty"
"{[1,2),[5,7)}"
"[2026-01-01,2026-02-01)"
"(1,2)"
"(1,two)"
"((1,2),(3,4))"
"<(1,2),3>"
"{1,2,3}"
"[(1,2),(3,4)]"
"10.0.0.0/8"
"1.2.3.4"
"::1"
"08:00:2b:01:02:03"
"08:00:2b:01:02:03:04:05"
"01234567-89ab-cdef-0123-456789abcdef"
"{01234567-89AB-cdef0123-456789abcdef}"
"101"
"x1F"
"\\x41ff"
"\\101\\\\"
"a & !b"
"fat:1A cat:2"
"<a>b</a>"
"$.a[*] ? (@ > 1)"
"0/16B3748"
"$1,234.56"
"pg_class"
"pg_catalog.int4"
"no such thing"
"10:20:10,14"
"(0,1)"
"{\"a\": 1, \"a\": 2}"
"é € 😀 \u00e9 \ud83d\ude00 \" \\ \/ \b\f\n\r\t \u0001"
[]
{}
[1,2]
[1,null,3]
[2, 4 ]
["a","b","c"]
["abc",""]
[[1,2],[3,4]]
[["a"],["b"]]
[[1],[2,3]]
[1,[2]]
[[],[]]
[[[[[[[1]]]]]]]
[true,false]
[1.5,2.25]
[12345678901234567890, 0.1]
["2026-02-03","2026-02-03 04:05:06+02"]
[1731011215, 20260203]
["sad","happy"]
["sad","glad"]
["[1,5)","(2,3]"]
[{"x":1,"y":"a"},{"x":null},{}]
[{"x":"2","y":{"z":[1, 2]}},null]
[[{"x":1}],[{"y":2}]]
["(1,a)"]
{"x":1}
{"x":2,"y":"why","z":0}
{"x":null,"y":"a"}
{"x":1.5}
{"y": [1,  2],"x":-3}
{"a":12345678901234567890,"b":"\u00e9"}
{"p":{"x":1,"y":"b"},"q":[{"x":2},{"y":"c"}],"j":"a string","s":"a \u00e9 string","e":4,"t":"2026-02-03 04:05:06","m":"ok","f":{"x":1},"a":[1,2]}
{"p":"(1,b)","q":"{\"(2,)\"}","j":[1,{"k":1.0}],"s":[1,  {"k":1.0}],"f":{"x":1},"a":"{1,2}"}
{"f":{"x":1},"e":3}
{"f":{"x":1},"a":[1]}
{"f":{"x":1},"t":1731011215}
{"f":{"x":0}}
{"f":{"x":1},"m":"glad"}
JSON
push @values, '"' . 'long ' x 500 . '"', '[' . join(',', 1 .. 500) . ']', '1' x 200, '0.' . '3' x 200;

# What a record may be although PostgreSQL says otherwise: see the exceptions below.
sub is_exception
{
	my ($type, $value) = @_;

	return $value =~ /^-?[0-9.]/ && $type =~ /^(date|time|timestamp|interval)\b.*(?<!\])$/;
}

my @records;
foreach my $column (0 .. $#types)
{
	push @records, map { sprintf '{"id":%d,"c%d":%s}', 0, $column, $_ } grep { !is_exception($types[$column], $_) } @values;
}
$records[$_] =~ s/"id":0/"id":$_/ for 0 .. $#records;
send_lines($broker->{address}, 'types', undef, join '', map { "$_\t$records[$_]\n" } 0 .. $#records);

# What PostgreSQL makes of the same records
query(<<'SQL');
CREATE TABLE records (id int, value text);
CREATE TABLE refused (id int);
CREATE FUNCTION populate(records) RETURNS void LANGUAGE plpgsql SET search_path = 'pg_temp' SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
AS $$
BEGIN
	INSERT INTO public.expected SELECT * FROM json_populate_record(NULL::public.target, $1.value::json);
EXCEPTION WHEN OTHERS THEN
	INSERT INTO public.refused VALUES ($1.id);
END
$$;
SQL
query(<<'SQL');
-- some values of type int2vector, json_populate_record makes but cannot be shown
CREATE FUNCTION shown(anyelement) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN $1::text || to_jsonb($1)::text;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END
$$;
SQL
{
	my $file = "$FindBin::RealBin/../../tmp_check/records";
	open my $handle, '>', $file or die $!;
	print $handle map { ($_ =~ s/\\/\\\\/gr) . "\n" } map { "$_\t$records[$_]" } 0 .. $#records;
	close $handle;
	query("COPY records FROM '$file'; SELECT populate(r) FROM records r");
}
ok(wait_applied($node), scalar @records . ' records are applied');

is(query('SELECT count(*) FROM target'), query('SELECT count(*) FROM expected'), 'as many rows as PostgreSQL makes');

# The column and the value of each record that is in the query's result.
sub describe
{
	my ($sql) = @_;
	my $found = query("SELECT id FROM ($sql) f ORDER BY 1 LIMIT 30");

	return join '', map { $records[$_] =~ /"c(\d+)":(.*)}$/; "$types[$1]: " . substr($2, 0, 60) . "\n" } split /\n/, $found;
}

my $dead = q{SELECT (convert_from(value, 'UTF8')::json->>'id')::int AS id FROM spine_dead_letters};
is(describe("$dead EXCEPT SELECT id FROM refused"), '', 'nothing is refused that PostgreSQL takes');
is(describe("SELECT id FROM refused EXCEPT $dead"), '', 'nothing is taken that PostgreSQL refuses');
is(describe('SELECT e.id FROM target t JOIN expected e USING (id) WHERE shown(t) <> shown(e)'),
	'', 'each value is what PostgreSQL makes of it');
cmp_ok(query('SELECT count(*) FROM refused'), '>', 3000, 'PostgreSQL refuses many');
cmp_ok(query('SELECT count(*) FROM expected'), '>', 3000, 'and takes many');
is(query(q{SELECT DISTINCT sqlstate FROM spine_dead_letters WHERE sqlstate !~ '^(22|23|3F|42|0A|54|XX)'}), '', 'each refusal has a reason');
query(q{DELETE FROM spine_pipelines WHERE name = 'types'; DELETE FROM spine_dead_letters});

#
# Types are altered while the worker runs
#
query(<<'SQL');
CREATE DOMAIN amount AS int DEFAULT 1;
CREATE DOMAIN code AS text;
CREATE TABLE live (id int PRIMARY KEY, a amount, m mood DEFAULT 'sad', c code, e even, p pair);
INSERT INTO spine_pipelines (name, topic) VALUES ('live', 'live');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('live', 'live', 'append');
SQL
send_values($broker->{address}, 'live', 0, ['{"id": 1}']);
comes_to($node, 'a worker applies to a table with a domain, an enum and a composite type', 'SELECT count(*) = 1 FROM live');
query(<<'SQL');
ALTER DOMAIN amount SET DEFAULT 2;
ALTER TYPE mood RENAME VALUE 'sad' TO 'gloomy';
ALTER TYPE mood ADD VALUE 'glad';
ALTER DOMAIN code ADD CHECK (VALUE <> 'x');
ALTER TYPE even RENAME TO even_number;
ALTER TYPE pair RENAME ATTRIBUTE y TO z;
SQL
send_values($broker->{address}, 'live', 0, ['{"id": 2}', '{"id": 3, "m": "glad", "c": "y", "e": 4, "p": {"x": 1, "z": "new"}}', '{"id": 4, "c": "x"}',
	'{"id": 5, "m": "sad"}', '{"id": 6}']);
comes_to($node, 'it goes on after the types were altered', 'SELECT count(*) = 4 FROM live');
is(query('SELECT * FROM live ORDER BY id'), <<'ROWS' =~ s/\n$//r, 'with the new default, labels and names');
1|1|gloomy|||
2|2|gloomy|||
3|2|glad|y|4|(1,new)
6|2|gloomy|||
ROWS
is(query(q{SELECT sqlstate, reason FROM spine_dead_letters WHERE pipeline = 'live' ORDER BY kafka_offset}) =~ s/ COLUMN.*//mgr, <<'ROWS' =~ s/\n$//r, 'and the new checks');
23514|value for domain public.code violates check constraint "code_check"
22P02|invalid input value for enum public.mood: "sad"
ROWS

query('ALTER TYPE pair ADD ATTRIBUTE added int');
send_values($broker->{address}, 'live', 0, ['{"id": 7, "p": {"x": 1, "z": "new", "added": 9}}']);
comes_to($node, 'also after one that the table does not know of', 'SELECT count(*) = 5 FROM live');
is(query('SELECT p FROM live WHERE id = 7'), '(1,new,9)', 'with the new attribute');
query('ALTER TYPE pair DROP ATTRIBUTE added');

#
# From here on, records are applied by a backend
#
set_config($node, 'spine.enabled' => 'off');
my $ntables = 0;

# Makes a table of these columns and a pipeline to it with this mapping (NULL if it is
# undef), and applies a record: its row, or why it was refused.  %record: key and headers as
# SQL.
sub row
{
	my ($columns, $mapping, $value, %record) = @_;
	my $name = 't' . ++$ntables;

	$mapping = defined $mapping ? "\$q\$$mapping\$q\$" : 'NULL';
	return applied($name, $value, %record, first => "CREATE TABLE $name ($columns); INSERT INTO spine_pipelines (name, topic) VALUES ('$name', 'x');
		INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('$name', '$name', 'append', $mapping);");
}

# Applies a record to a table of that name by the pipeline of that name.
sub applied
{
	my ($name, $value, %record) = @_;
	my $first = $record{first} // '';
	my $key = $record{key} // 'NULL';
	my $headers = $record{headers} ? ", $record{headers}" : '';
	my ($out, $err) = ('', '');

	$node->psql('postgres', <<SQL, stdout => \$out, stderr => \$err);
$first
SELECT module.make_plan('$name') AS plan \\gset
SELECT module.apply_one(:plan, $key, convert_to(\$q\$$value\$q\$, 'UTF8') $headers);
SELECT module.free_plan(:plan);
SELECT t FROM $name t;
SQL
	return $err =~ s/.*?ERROR:  //sr if $err;
	return $out =~ s/\n.*//sr unless $out =~ s/^applied\n\n//;
	return $out;
}

# A column of this type, from the key "v" of the record
sub value_of
{
	my ($type, $json) = @_;

	return row("v $type", undef, "{\"v\": $json}");
}

#
# Strings, and numbers to the last digit
#
is(value_of('json', '"42"'), '("""42""")', 'a string in a json column stays a string');
is(value_of('json', '"plain"'), '("""plain""")', 'also one that is not JSON');
is(value_of('jsonb', '"42"'), '("""42""")', 'as in a jsonb column');
my $long = '{"n": 12345678901234567890123, "d": 0.1234567890123456789012345}';
is(value_of('text', $long), '("' . ($long =~ s/"/""/gr) . '")', 'long numbers inside of what becomes text');
is(value_of('json', $long), '("' . ($long =~ s/"/""/gr) . '")', 'and json');
is(value_of('numeric[][]', '[[12345678901234567890123.5, 1e2], [0.1, null]]'), '("{{12345678901234567890123.5,100},{0.1,NULL}}")', 'and an array');

#
# An exception: integers that are spelled in another way
#
foreach my $type (qw(smallint int bigint even_number))
{
	foreach ([ '5.0', '5' ], [ '-0.0', '0' ], [ '0e1000000000', '0' ], [ '-1.2e2', '-120' ], [ '1200e-2', '12' ])
	{
		my ($json, $value) = @$_;
		$value = qr/violates check/ if $type eq 'even_number' && $value eq '5';
		like(value_of($type, $json), ref $value ? $value : qr/^\($value\)$/, "$json is an integer, in $type");
	}
	like(value_of($type, $_), qr/^22P02 invalid input syntax for type \w+: "\Q$_\E"/, "$_ is none, in $type") foreach qw(1.5 1e-1000000000);
	like(value_of($type, $_), qr/^22003 value "\Q$_\E" is out of range for type \w+/, "$_ is out of range, in $type") foreach qw(1e19 -1e1000000000 9223372036854775808);
	like(value_of($type, qq{"$_"}), qr/^22P02/, "the string $_ is refused, in $type") foreach qw(5.0 1e6);
}
is(value_of('smallint', '32767.0'), '(32767)', 'the largest smallint');
like(value_of('smallint', '32768.0'), qr/^22003 value "32768.0" is out of range for type smallint/, 'one more');
like(value_of('int', '2147483648'), qr/^22003 value "2147483648" is out of range for type integer/, 'an integer that is too large');
is(value_of('bigint', '-9.223372036854775808e18'), '(-9223372036854775808)', 'the smallest bigint');
like(value_of('int[]', '[5.0]'), qr/^22P02/, 'inside of an array, PostgreSQL decides');

#
# An exception: a number is no time
#
foreach my $type ('date', 'time', 'timetz', 'timestamp', 'timestamptz(3)', 'timestamptz', 'interval')
{
	like(value_of($type, $_), qr/^22007 number \Q$_\E is not of type /, "$_ is not taken for a $type") foreach qw(1731011215 120000 20260203 5);
}
like(value_of('date', '20260203'), qr/HINT: Say how to read it: "as" in the mapping is "epoch_s"/, 'the hint says what to do');
is(value_of('date[]', '[20260203]'), '({2026-02-03})', 'inside of an array, PostgreSQL decides');

query(q{ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; ALTER DATABASE postgres SET datestyle = 'SQL, DMY'});
is(row('a timestamptz, b timestamptz[], c timestamptz, d date', undef, '{"a": "2026-01-02 03:04", "b": ["2026-01-02T03:04:00"], "c": "2026-01-02T03:04:00+09", "d": "2026-02-03"}'),
	q{("02/01/2026 12:04:00 JST","{""02/01/2026 12:04:00 JST""}","02/01/2026 03:04:00 JST",03/02/2026)},
	'a time without a zone is in UTC, also inside of an array');
query(q{ALTER DATABASE postgres SET timezone = 'UTC'; ALTER DATABASE postgres RESET datestyle});

#
# Readings
#
sub reading
{
	my ($type, $as, $json, %record) = @_;

	return row("v $type", qq({"v": {"path": "\$.v", "as": "$as"}}), "{\"v\": $json}", %record) =~ s/^\("?(.*?)"?\)$/$1/r;
}

my @readings = (
	[ 'timestamptz', 'epoch_s', '1731011215', '2024-11-07 20:26:55+00' ],
	[ 'timestamptz', 'epoch_s', '"1731011215"', '2024-11-07 20:26:55+00' ],
	[ 'timestamptz', 'epoch_s', '1731011215.123456', '2024-11-07 20:26:55.123456+00' ],
	[ 'timestamptz', 'epoch_s', '1.731011215123456e9', '2024-11-07 20:26:55.123456+00' ],
	[ 'timestamptz', 'epoch_s', '-0.000001', '1969-12-31 23:59:59.999999+00' ],
	[ 'timestamptz', 'epoch_s', '9007199254.740993', '2255-06-05 23:47:34.740993+00' ],
	[ 'timestamptz(0)', 'epoch_s', '1000000000.5', '2001-09-09 01:46:41+00' ],
	[ 'timestamptz', 'epoch_ms', '1731011215123', '2024-11-07 20:26:55.123+00' ],
	[ 'timestamptz', 'epoch_ms', '1731011215123.4565', '2024-11-07 20:26:55.123457+00' ],
	[ 'timestamptz', 'epoch_us', '1731011215123456', '2024-11-07 20:26:55.123456+00' ],
	[ 'timestamp', 'epoch_us', '-1', '1969-12-31 23:59:59.999999' ],
	[ 'timestamp(3)', 'epoch_us', '1000000000001500', '2001-09-09 01:46:40.002' ],
	[ 'timestamp', 'epoch_us', '9223372036854775807', '294247-01-10 04:00:54.775807' ],
	[ 'date', 'epoch_s', '1731011215', '2024-11-07' ],
	[ 'date', 'epoch_ms', '-1', '1969-12-31' ],
	[ 'date', 'epoch_us', '0', '1970-01-01' ],
	[ 'date', 'days', '20000', '2024-10-04' ],
	[ 'date', 'days', '-1.0', '1969-12-31' ],
	[ 'bytea', 'hex', '"00ffAB"', '\\\\x00ffab' ],
	[ 'bytea', 'base64', '"aGVs\nbG8="', '\\\\x68656c6c6f' ],
	[ 'bytea', 'base64', '""', '\\\\x' ],
	[ 'timestamptz', 'epoch_s', 'null', '' ]);
is(reading(@$_[ 0 .. 2 ]), $_->[3], "$_->[2] as $_->[1] in a $_->[0]") foreach @readings;

my @misread = (
	[ 'timestamptz', 'epoch_s', '"2026-01-01"', qr/^22P02 value "2026-01-01" cannot be read as "epoch_s"/ ],
	[ 'timestamptz', 'epoch_s', 'true', qr/^22P02 value "true"/ ],
	[ 'timestamptz', 'epoch_s', '[1]', qr/^22P02 value "\[1\]"/ ],
	[ 'timestamptz', 'epoch_s', '""', qr/^22P02 value ""/ ],
	[ 'timestamptz', 'epoch_s', '1e1000000000', qr/^22008 value "1e1000000000", read as "epoch_s", is out of range for type timestamp with time zone/ ],
	[ 'timestamptz', 'epoch_ms', '9223372036854775807', qr/^22008/ ],
	[ 'timestamptz', 'epoch_us', '-9223372036854775808', qr/^22008/ ],
	[ 'date', 'days', '1.5', qr/^22P02 value "1.5" cannot be read as "days"/ ],
	[ 'date', 'days', '2147483647', qr/^22008 value "2147483647", read as "days", is out of range for type date/ ],
	[ 'date', 'days', '-2147483648', qr/^22008/ ],
	[ 'bytea', 'hex', '"0g"', qr/^22023 invalid hexadecimal digit/ ],
	[ 'bytea', 'hex', '10', qr/^22P02 value "10" cannot be read as "hex"/ ],
	[ 'bytea', 'base64', '"a"', qr/^22023 invalid base64 end sequence/ ]);
like(reading(@$_[ 0 .. 2 ]), $_->[3], "$_->[2] is not read as $_->[1]") foreach @misread;

like(reading(@$_, '1'), qr/^column "v" of type .* cannot be read as "$_->[1]"/, "no $_->[1] in a $_->[0]")
  foreach [qw(text epoch_s)], [qw(time epoch_s)], [qw(timestamptz days)], [qw(timestamptz base64)], [qw(text hex)], [qw(timestamptz[] epoch_s)];
is(row('v timestamptz, k date', '{"v": {"path": "$key", "as": "epoch_ms"}, "k": {"path": "$headers.day", "as": "days"}}', '{}',
		key => q{'1000'}, headers => q{'{day}', '{20000}'}), '("1970-01-01 00:00:01+00",2024-10-04)', 'a key and a header can be read, too');

#
# Places
#
is(row('a text, b int, c text, d text, e text, f int, g text, h jsonb, i text',
		'{"a": "a.b", "b": "$.a.b[1].c", "c": "$.x.*", "d": "$.a.b[last].c", "e": "$", "f": "$.q[*] ? (@.k == \"z\").n", "g": "$.\"$ofset\"", "h": "$.a.nothing", "i": "$.q[*].k"}',
		'{"a.b": "dot", "a": {"b": [{"c": 1}, {"c": 2}]}, "x": {"y": "\u00e9"}, "q": [{"k": "y", "n": 1}, {"k": "z", "n": 2.0}], "$ofset": "dollar"}'),
	'(dot,2,é,2,"{""a.b"": ""dot"", ""a"": {""b"": [{""c"": 1}, {""c"": 2}]}, ""x"": {""y"": ""\\\\u00e9""}, ""q"": [{""k"": ""y"", ""n"": 1}, {""k"": ""z"", ""n"": 2.0}], ""$ofset"": ""dollar""}",2,dollar,,y)',
	'keys, paths, and what only jsonpath finds');
like(row('a int', '{"a": "strict $.b"}', '{"strict $.b": 1}'), qr/^\(1\)$/, 'what does not begin with $ is a key');
is(row('a boolean, b jsonb, c text, d int', '{"a": "$.**.x", "b": "$.**.o", "c": "$.n.size() ? (@ > 5)", "d": {"path": "$.**.none", "default": 7}}', '{"n": {"x": true, "o": {"k": [1, null]}}}'),
	'(t,"{""k"": [1, null]}",,7)', 'a jsonpath finds a boolean, an object, or nothing');
is(row('a text', q{{"a": "$.b ? (@ == \"$\\\\\\"x\")"}}, q{{"b": "$\"x"}}), '("$""x")', 'a dollar sign in a string is no variable');
like(row('a int', '{"a": "$.a / $.b"}', '{"a": 1, "b": 0}'), qr/^22012 division by zero/, 'an error of a jsonpath is the record\'s');
is(row('a text, b int, c bigint, d timestamptz, e timestamp, f text',
		'{"a": "$topic", "b": "$partition", "c": "$offset", "d": "$timestamp", "e": "$timestamp", "f": "$timestamp"}', '{}'),
	'("made here",7,12,"2026-01-01 00:00:00.123+00","2026-01-01 00:00:00.123","2026-01-01 00:00:00.123+00")', 'topic, partition, offset and timestamp');
is(row('a bytea, b jsonb, c json', '{"a": "$value", "b": "$value", "c": "$value"}', '{"x":  1.0}'),
	'("\\\\x7b2278223a2020312e307d","{""x"": 1.0}","{""x"":  1.0}")', '$value is the bytes, or the JSON');
is(row('a numeric(3,1)[]', '{"a": "$value"}', '[1.25, null]'), '("{1.3,NULL}")', 'or the value of another type');

my $keys = '{"a": "$key", "b": "$key", "c": "$key", "d": "$key"}';
my $key_columns = 'a bytea, b jsonb, c json, d text';
is(row($key_columns, $keys, '{}', key => q{'\\\\x41'}), '("\\\\x5c783431","""\\\\\\\\x41""","""\\\\\\\\x41""","\\\\x41")', 'a key of the characters \x41 is these four');
is(row('a bytea', '{"a": "$key"}', '{}', key => q{'\xff00'}), '("\\\\xff00")', 'a key may be any bytes');
like(row('a text', '{"a": "$key"}', '{}', key => q{'\xff00'}), qr/^22021/, 'but not in a text column');
is(row($key_columns, $keys, '{}', key => q{'{"id":  7}'}), '("\\\\x7b226964223a2020377d","{""id"": 7}","{""id"":  7}","{""id"":  7}")', 'a key that is JSON');
is(row($key_columns, $keys, '{}', key => q{'7 up'}), '("\\\\x37207570","""7 up""","""7 up""","7 up")', 'and one that is not');
is(row($key_columns, $keys, '{}'), '(,,,)', 'no key');
is(row('a int, b text, c int, d int', '{"a": "$key.id", "b": "$key.who[1].name", "c": "$key[1]", "d": "$key ? (@.id > 5).id"}', '{}', key => q{'{"id": 7, "who": [{}, {"name": "n"}]}'}), '(7,n,,7)', 'paths into the key');
is(row('a int', '{"a": "$key[1]"}', '{}', key => q{'[4, 5]'}), '(5)', 'a key that is an array');
is(row('a int, k text', '{"a": "$key.id", "k": "$key"}', '{}', key => q{'no JSON'}), '(,"no JSON")', 'a path into a key that is not JSON finds nothing');

my $headers = '{"a": "$headers.trace-id", "b": "$headers.trace-id", "c": "$headers.trace-id", "d": "$headers.trace-id", "e": "$headers"}';
my $header_columns = q{a text DEFAULT 'absent', b bytea, c jsonb, d int, e jsonb};
is(row($header_columns, $headers, '{}', headers => q{'{trace-id,other,trace-id,none}', '{1,"\\\\x22c3a9",42,NULL}'}),
	'(42,"\\\\x3432",42,42,"{""none"": null, ""other"": ""\\\\""é"", ""trace-id"": ""42""}")', 'the last of several headers of a name, and all headers');
is(row($header_columns, $headers, '{}'), '(absent,,,,{})', 'a header that the record does not have is absent');
is(row($header_columns, $headers, '{}', headers => q{'{trace-id}', '{NULL}'}), '(,,,,"{""trace-id"": null}")', 'a header without a value is null');
is(row('a jsonb, b json', '{"a": "$headers.h", "b": "$headers.h"}', '{}', headers => q{'{h}', '{[1]x}'}), '("""[1]x""","""[1]x""")', 'a header that is not JSON is a string');
like(row('e jsonb', '{"e": "$headers"}', '{}', headers => q{'{fine,broken}', '{a,"\\\\xff"}'}), qr/^22021 header "broken" of the record is not text in UTF-8/, 'a header that is not text is named');
is(row('b bytea', '{"b": "$headers.broken"}', '{}', headers => q{'{broken}', '{"\\\\xff00"}'}), '("\\\\xff00")', 'a bytea takes it');

is(row('id int, rest jsonb', '{"id": null, "*": "$value"}', '{"id": 1, "more": [2]}'), '(1,"{""id"": 1, ""more"": [2]}")', '"*" is the one jsonb column');
is(row('id int, doc json, rest json', '{"id": null, "doc": "$.d", "*": "$value"}', '{"id":1,"d":2}'), '(1,2,"{""id"":1,""d"":2}")', 'that no other mapping names');
is(query(qq{SELECT * FROM spine_explain('t$ntables') e WHERE e LIKE '%rest:%'}), '  column rest: from $value', 'spine_explain says so');
like(row('id int, a json, b documents', '{"id": null, "*": "$value"}', '{}'), qr/^table public.t\d+ has more than one column of type json or jsonb that no other mapping names, for "\*"\nDETAIL:  These are "a", "b"/, 'if there are several, the error names them');
like(row('id int', '{"id": null, "*": "$value"}', '{}'), qr/^table public.t\d+ has no column of type json or jsonb/, 'or none');

#
# Defaults
#
my $defaults = '{"a": {"path": "$.a", "default": 5}, "b": {"default": "{x,y}"}, "c": {"path": "c", "default": true}, "d": {"path": "$headers.d", "default": "2026-01-01"}, "id": null}';
my $default_columns = q{id int, a even_number DEFAULT 8, b text[], c text, d timestamptz};
like(row($default_columns, $defaults, '{}'), qr/^value for domain public.even_number violates check constraint.*CONTEXT:.*default of column "a"/s, 'a default that the type refuses');
$defaults =~ s/5/6/;
is(row($default_columns, $defaults, '{"id": 1}'), '(1,6,"{x,y}",true,"2026-01-01 00:00:00+00")', 'a default of the mapping is for what is absent');
is(row($default_columns, $defaults, '{"id": 1, "a": null, "b": null, "c": null}', headers => q{'{d}', '{NULL}'}), '(1,6,"{x,y}",true,"2026-01-01 00:00:00+00")', 'or null');
is(row($default_columns, $defaults, '{"id": 1, "a": 2, "b": [], "c": ""}', headers => q{'{d}', '{1999-12-31}'}), '(1,2,{},"","1999-12-31 00:00:00+00")', 'and for nothing else');
is(row('v timestamptz', '{"v": {"path": "v", "as": "epoch_s", "default": "-infinity"}}', '{"v": null}'), '(-infinity)', 'a default is a value of the type, also beside a reading');
like(row('v date', '{"v": {"default": "soon"}}', '{}'), qr/^invalid input syntax for type date: "soon"\n.*default of column "v"/s, 'a default that is none');

#
# A record that has nothing of what its sink asks for
#
like(row('a int, b int DEFAULT 5', undef, '{"c": 1}'), qr/^2203A the record has none of the fields that table public.t\d+ takes from it/, 'it is refused');
like(row('a int, b int', '{"a": "$.x.a", "b": {"path": "$.x.b", "default": 1}}', '{"x": {}}'), qr/^2203A/, 'also if there are defaults');
like(row('a int, o bigint', '{"a": null, "o": "$offset"}', '{}'), qr/^2203A/, 'or an offset');
is(row('a int, b int', undef, '{"a": null}'), '(,)', 'null is something');
is(row('o bigint, k text', '{"o": "$offset", "k": "$key"}', '{}'), '(12,)', 'a sink that asks for nothing in the value takes it');
is(row('a int, v jsonb', '{"a": null, "v": "$value"}', '{}'), '(,{})', 'and one that takes all of it');

#
# Identity columns take the value of the record, as COPY does
#
is(row('id int GENERATED ALWAYS AS IDENTITY, n int', undef, '{"id": 77, "n": 1}'), '(77,1)', 'GENERATED ALWAYS');
is(row('id int GENERATED ALWAYS AS IDENTITY, n int', undef, '{"n": 1}'), '(1,1)', 'the sequence is the default');
is(row('id int GENERATED BY DEFAULT AS IDENTITY, n int', undef, '{"id": 77, "n": 1}'), '(77,1)', 'GENERATED BY DEFAULT');
like(row('id int GENERATED ALWAYS AS IDENTITY, n int', undef, '{"id": null, "n": 1}'), qr/^23502 null value in column "id"/, 'null is refused');
query(<<'SQL');
CREATE TABLE numbered (id int PRIMARY KEY, row_number int GENERATED ALWAYS AS IDENTITY, version int);
INSERT INTO spine_pipelines (name, topic) VALUES ('numbered', 'x');
INSERT INTO spine_sinks (pipeline, target, mode, key, version) VALUES ('numbered', 'numbered', 'upsert', '{id}', 'version');
SQL
is(applied('numbered', '{"id": 1, "version": 1}'), '(1,1,1)', 'upsert: a new row');
is(applied('numbered', '{"id": 1, "version": 2, "row_number": 5}'), '(1,1,2)', 'an identity column is not updated');

#
# Targets
#
query(<<'SQL');
CREATE TABLE base (id int PRIMARY KEY, name text DEFAULT 'from the table', n int NOT NULL DEFAULT 3, serial int GENERATED ALWAYS AS IDENTITY, hidden text DEFAULT 'hidden');
CREATE VIEW lower_view AS SELECT serial, n AS number, name, id FROM base WHERE id > 0 WITH CHECK OPTION;
CREATE VIEW view AS SELECT id, name, number, id * 2 AS twice, serial FROM lower_view;
ALTER VIEW view ALTER name SET DEFAULT 'from the view';
INSERT INTO spine_pipelines (name, topic) VALUES ('view', 'x');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('view', 'view', 'append');
SQL
is(applied('view', '{"id": 1}'), '(1,"from the view",3,2,1)', 'a view, with the defaults of the view and the table');
is(query('SELECT * FROM base'), '1|from the view|3|1|hidden', 'and of the columns that it does not have');
query('DELETE FROM base');
is(applied('view', '{"id": 2, "name": "x", "number": 4, "twice": 0, "serial": 9}'), '(2,x,4,4,9)', 'the values of the record');
like(applied('view', '{"id": -1}'), qr/^44000/, 'a check option refuses the record');
query(q{DELETE FROM base; UPDATE spine_sinks SET mode = 'upsert', key = '{id}', version = 'number' WHERE pipeline = 'view'});
like(applied('view', '{"id": 2, "name": "x", "number": 4}'), qr/^\(2,x,4,4,\d\)$/, 'upsert into a view');
is(applied('view', '{"id": 2, "name": "y", "number": 5}') =~ s/,\d+\)$//r, '(2,y,5,4', 'updates through it');
query(<<'SQL');
CREATE TABLE measurements (at date, v int) PARTITION BY RANGE (at);
CREATE TABLE measurements_2026 PARTITION OF measurements FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO spine_pipelines (name, topic) VALUES ('measurements', 'x');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('measurements', 'measurements', 'append');
SQL
is(applied('measurements', '{"at": "2026-05-06", "v": 1}'), '(2026-05-06,1)', 'a partitioned table');
like(applied('measurements', '{"at": "2027-05-06", "v": 1}'), qr/^23514 no partition of relation/, 'without a partition for the record');

query(<<'SQL');
CREATE SEQUENCE a_sequence;
CREATE MATERIALIZED VIEW a_materialized_view AS SELECT 1 AS id;
CREATE VIEW a_group AS SELECT n, count(*) FROM base GROUP BY n;
CREATE VIEW with_trigger AS SELECT id FROM base;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER instead INSTEAD OF INSERT ON with_trigger FOR EACH ROW EXECUTE FUNCTION instead();
CREATE VIEW with_rule AS SELECT id FROM base;
CREATE RULE elsewhere AS ON INSERT TO with_rule DO ALSO NOTHING;
CREATE INDEX an_index ON base (n);
CREATE VIEW above AS SELECT id FROM with_trigger;
INSERT INTO spine_pipelines (name, topic) VALUES ('targets', 'x');
SQL
foreach (
	[ a_sequence => qr/42809: public.a_sequence cannot be a target: it is neither a table nor a view/ ],
	[ a_materialized_view => qr/42809: public.a_materialized_view cannot be a target/ ],
	[ an_index => qr/42809: public.an_index cannot be a target/ ],
	[ pair => qr/42809: public.pair cannot be a target/ ],
	[ a_group => qr/42809: view public.a_group cannot be a target.*DETAIL:  Views containing GROUP BY are not automatically updatable/s ],
	[ with_trigger => qr/42809: view public.with_trigger cannot be a target.*DETAIL:  It has an INSTEAD OF trigger/s ],
	[ with_rule => qr/42809: view public.with_rule cannot be a target.*DETAIL:  It has a rule/s ],
	[ above => qr/42809: view public.with_trigger cannot be a target/ ])
{
	my ($target, $reason) = @$_;

	like(refusal("INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('targets', '$target', 'append')"), $reason, "$target is no target");
}
query('CREATE TABLE gone (id int); ' . q{INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('targets', 'gone', 'append'); DROP TABLE gone});
like(refusal(q{SELECT module.make_plan('targets')}), qr/42P01: the target of a sink does not exist any more/, 'a table that was dropped');

#
# What cannot be meant is refused when it is written down
#
foreach (
	[ '{"a": "$ofset"}', qr/22023: unknown source "\$ofset" of column "a"\nDETAIL:  A record has "\$topic", .*A key that begins with "\$" is written as \$\."\$ofset"/s ],
	[ '{"a": "$op"}', qr/22023: unknown source "\$op"/ ],
	[ '{"a": "$topic.x"}', qr/22023: unknown source "\$topic.x"/ ],
	[ '{"a": "$value.x"}', qr/22023: unknown source "\$value.x"/ ],
	[ '{"a": "$headers."}', qr/22023: unknown source "\$headers\."/ ],
	[ '{"a": "$headers[0]"}', qr/22023: unknown source/ ],
	[ '{"a": "$\"x\""}', qr/22023: unknown source/ ],
	[ '{"a": "$."}', qr/42601: .*jsonpath.*source "\$\." of column "a"/s ],
	[ '{"a": "$.b["}', qr/42601: .*jsonpath.*source "\$\.b\[" of column "a"/s ],
	[ '{"a": "$.b ? (@.c == $max)"}', qr/22023: the path of source "\$\.b \? \(@\.c == \$max\)" of column "a" has a variable/ ],
	[ '{"a": "$key.b[$n]"}', qr/22023: the path of source .* has a variable/ ],
	[ '{"a": "$key.b c"}', qr/42601: .*source "\$key\.b c" of column "a"/s ],
	[ '{"a": 5}', qr/22023: the source of column "a" is neither a string nor an object nor null/ ],
	[ '{"a": ["b"]}', qr/22023: the source of column "a" is neither/ ],
	[ '{"a": {"pth": "b"}}', qr/22023: unknown key "pth" in the source of column "a".*HINT:  A source that is an object has "path"/s ],
	[ '{"a": {"path": 5}}', qr/22023: "path" of column "a" is not a string/ ],
	[ '{"a": {"as": "epoch"}}', qr/22023: unknown reading "epoch" of column "a".*HINT:  "as" is "epoch_s"/s ],
	[ '{"a": {"default": [1]}}', qr/22023: "default" of column "a" is neither a string nor a number nor a boolean/ ],
	[ '{"a": {"default": null}}', qr/22023: "default" of column "a" is neither/ ],
	[ '{"a": {"sql": "1", "path": "b"}}', qr/22023: the source of column "a" has something beside "sql"/ ],
	[ '{"a": {"path": "$offset", "as": "epoch_s"}}', qr/22023: source "\$offset" of column "a" cannot be read as "epoch_s"/ ],
	[ '{"*": "x"}', qr/22023: the source of "\*" is not "\$value"/ ],
	[ '{"*": null}', qr/22023: the source of "\*"/ ])
{
	my ($columns, $reason) = @$_;

	like(refusal("INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('targets', 'base', 'append', \$q\$$columns\$q\$)"), $reason, "$columns is refused");
}
query(q{INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('targets', 'base', 'append', '{"id": {}}')});
like(refusal(q{UPDATE spine_sinks SET columns = '{"id": "$ofset"}' WHERE pipeline = 'targets' AND target = 'base'::regclass}), qr/22023: unknown source/, 'also in an UPDATE');

#
# A record's memory is bounded by its size, not by its shape
#
like(value_of('pair[]', '[' . join(',', ('{}') x 1000) . ']'), qr/^54000 .*pair\[\] of the record's value would take more memory to make than spine.max_record_memory allows/, 'many objects take more memory than allowed');
is(value_of('pair[]', '[' . join(',', ('{}') x 3) . ']'), '("{""(,)"",""(,)"",""(,)""}")', 'a few do not');

$node->stop;
done_testing();

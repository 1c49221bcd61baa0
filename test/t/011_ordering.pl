# An older event never overwrites a newer one.  Of two events with the same version,
# the one later in the log wins.  An event that is sent twice is there once.  This holds
# however the batches fall, and whatever types the key, the version and the columns have.
#
# Broken when reducing a batch and updating the table disagree on which version is newer
# or which keys are equal, when a replay changes anything, or when a value in a column
# differs from what the input function of the column's type makes of it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('events', 1);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.batch_interval = '200ms'	# what is sent at once is one batch
timezone = 'Asia/Kathmandu'		# neither this nor datestyle may change what a record means
datestyle = 'SQL, DMY'
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; $sql");
}

# Sends records, given as JSON.
sub send_records
{
	my ($topic, @records) = @_;

	send_lines($broker->{address}, $topic, 0, join '', map { "the key\t$_\n" } @records);
	return;
}

sub apply
{
	send_records(@_);
	wait_applied($node) or die 'not applied';
	return;
}

# How records share batches.
my @ways = ('in one batch', 'in a batch each');

sub choose
{
	my ($way) = @_;

	set_config($node, 'spine.batch_rows' => $way eq 'in one batch' ? 50000 : 1);
	return;
}

#
# Orders.  Each case is a list of events, "status at minute", and the state
# that the order must have in the end.
#
my @cases = (
	[ 'in order', [qw(placed@1 paid@2 shipped@3)], 'shipped@3' ],
	[ 'out of order', [qw(shipped@3 placed@1 paid@2)], 'shipped@3' ],
	[ 'newest in the middle', [qw(placed@1 shipped@3 paid@2)], 'shipped@3' ],
	[ 'older after newer', [qw(paid@2 placed@1)], 'paid@2' ],
	[ 'same time: the later in the log wins', [qw(placed@1 paid@1 shipped@1)], 'shipped@1' ],
	[ 'same time, with an older one in between', [qw(placed@2 paid@1 shipped@2)], 'shipped@2' ]);

sub minute { return sprintf '2026-01-01T00:%02d:00Z', $_[0] }

foreach my $way (@ways)
{
	my @events;

	foreach my $case (@cases)
	{
		foreach my $event (@{ $case->[1] })
		{
			my ($status, $minute) = split /@/, $event;
			push @events, order_event(order_id => "$case->[0], $way",
				event_type => $status, event_time => minute($minute));
		}
	}
	choose($way);
	apply('events', @events);
	foreach my $case (@cases)
	{
		my ($status, $minute) = split /@/, $case->[2];
		is(query("SELECT status, updated_at = '" . minute($minute)
				. "' FROM current_orders WHERE order_id = '$case->[0], $way'"),
			"$status|t", "$case->[0], $way: $case->[2]");
	}
}
is(query(q{SELECT count(DISTINCT applied_at) FROM events WHERE order_id LIKE '%, in one batch'}),
	'1', 'one batch was one transaction');
is(query(q{SELECT count(*) = count(DISTINCT applied_at) FROM events WHERE order_id LIKE '%, in a batch each'}),
	't', 'a batch each was a transaction each');

# The same event twice, in one batch and in a later one.
choose('in one batch');
my $event = order_event(order_id => 'twice');
my $other = order_event(order_id => 'beside');
apply('events', $event, $other, $event);
is(query(q{SELECT order_id, count(*) FROM events WHERE order_id IN ('twice', 'beside') GROUP BY 1 ORDER BY 1}),
	"beside|1\ntwice|1", 'an event that is twice in a batch is applied once, and its neighbour too');
my $once = query(q{SELECT * FROM events WHERE order_id = 'twice'});
apply('events', $other, $event);
is(query(q{SELECT * FROM events WHERE order_id = 'twice'}), $once, 'a later batch with the same event leaves its row as it is');
is(query('SELECT count(*) FROM spine_dead_letters'), '0', 'repeated events make no dead letters');

# A replay.  The worker is not told: with the next batch it sees that somebody
# has moved the offsets.
my $everything = q{SELECT md5(string_agg(t::text, E'\n' ORDER BY t::text)) FROM
	(SELECT events::text FROM events UNION ALL SELECT current_orders::text FROM current_orders) t};
my $before = query($everything);
my $log_end = query('SELECT next_offset FROM spine_offsets');
my $applied = query('SELECT events_total FROM spine_status');
query('UPDATE spine_offsets SET next_offset = 0');
apply('events', $event);
is(query('SELECT events_total FROM spine_status') - $applied, $log_end + 1,
	'after next_offset was set back, the whole log is applied again');
is(query($everything), $before, 'the replay changes nothing');

#
# Keys and versions of other types: the type, or the column's collation, decides
# which are equal and which is newer.
#
# [what, column definitions, [[key, version, value] ...], version and value in the end]
#
query(<<'SQL');
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE size AS ENUM ('small', 'large', 'huge');
SQL
my @typed = (
	[
		'numeric key, numeric version', 'k numeric, v numeric',
		[ [ '1', '10', 'a' ], [ '1.0', '9.5', 'b' ], [ '1.00', '1e1', 'c' ], [ '2', '1', 'd' ] ],
		"10|c\n1|d"
	],
	[
		'text key without regard to case', 'k text COLLATE ignore_case, v integer',
		[ [ '"Key"', '2', 'a' ], [ '"KEY"', '1', 'b' ], [ '"key"', '2', 'c' ], [ '"other"', '1', 'd' ] ],
		"2|c\n1|d"
	],
	[
		'text version in the order of its collation', 'k integer, v text COLLATE "en-x-icu"',
		[ [ '1', '"B"', 'a' ], [ '1', '"a"', 'b' ] ],
		'B|a'
	],
	[
		'text version in the order of bytes', 'k integer, v text COLLATE "C"',
		[ [ '1', '"B"', 'a' ], [ '1', '"a"', 'b' ], [ '1', '"A"', 'c' ] ],
		'a|b'
	],
	[
		'enum version', 'k uuid, v size',
		[
			map { [ '"00000000-0000-0000-0000-000000000001"', "\"$_->[0]\"", $_->[1] ] }
			  [ 'small', 'a' ], [ 'huge', 'b' ], [ 'large', 'c' ]
		],
		'huge|b'
	],
	[
		'float key, where 0 is -0', 'k double precision, v bigint',
		[ [ '0', '1', 'a' ], [ '-0.0', '2', 'b' ], [ '0.0', '1', 'c' ] ],
		'2|b'
	],
	[
		'date version, jsonb key', 'k jsonb, v date',
		[
			[ '{"x":1,"y":2}', '"2026-01-02"', 'a' ], [ '{"y":2,"x":1}', '"2026-01-03"', 'b' ],
			[ '{"x":1,"y":2}', '"2026-01-01"', 'c' ]
		],
		'2026-01-03|b'
	],
	[
		'version that the column rounds', 'k integer, v timestamptz(0)',
		[ [ '1', '"2026-01-01T00:00:00.4Z"', 'a' ], [ '1', '"2026-01-01T00:00:00.2Z"', 'b' ] ],
		'2026-01-01 00:00:00+00|b'
	]);

foreach my $i (0 .. $#typed)
{
	query("CREATE TABLE typed_$i ($typed[$i]->[1], value text, PRIMARY KEY (k))");
	make_pipeline($node, name => "typed_$i", topic => "typed_$i", target => "typed_$i",
		mode => 'upsert', key => '{k}', version => 'v');
}
foreach my $way (@ways)
{
	choose($way);
	foreach my $i (0 .. $#typed)
	{
		send_records("typed_$i",
			map { qq({"k": $_->[0], "v": $_->[1], "value": "$_->[2]"}) } @{ $typed[$i]->[2] });
	}
	wait_applied($node) or die 'not applied';
	foreach my $i (0 .. $#typed)
	{
		is(query("SELECT v, value FROM typed_$i ORDER BY k"),
			$typed[$i]->[3], "$typed[$i]->[0], $way");

		# a search for records to blame would get there too, but slowly
		is(query("SELECT bool_and(t.xmin::text = o.xmin::text) FROM typed_$i t, spine_offsets o
				WHERE o.topic = 'typed_$i' AND o.partition = 0"),
			't', "$typed[$i]->[0], $way, at the first attempt")
		  if $way eq 'in one batch';
		query("TRUNCATE typed_$i");
	}
}
is(query('SELECT count(*) FROM spine_dead_letters'), '0', 'keys and versions of other types make no dead letters');

#
# Columns of many types, each read by the type's input function, with unusual names.
#
query(<<'SQL');
CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
CREATE SCHEMA "Odd ""schema""";
CREATE TABLE "Odd ""schema"""."a table; with 'quotes'" (
	"the ""key""" text PRIMARY KEY,
	"select" bigint NOT NULL,
	"a percent" percent,
	size size,
	numbers integer[],
	day date,
	"local time" timestamp,
	instant timestamptz,
	"rough instant" timestamptz,
	bytes bytea,
	exact numeric(30, 5),
	ratio double precision,
	yes boolean,
	document jsonb,
	as_text text,
	address inet,
	fixed character(5),
	"with default" text DEFAULT 'the default',
	"with null" text DEFAULT 'the default',
	doubled integer GENERATED ALWAYS AS (cardinality(numbers) * 2) STORED,
	number integer GENERATED BY DEFAULT AS IDENTITY
);
SQL
make_pipeline($node, name => 'odd "pipeline"', topic => 'odd', mode => 'upsert',
	target => q{"Odd ""schema"""."a table; with 'quotes'"}, key => '{"the \"key\""}', version => 'select');

apply('odd', <<'JSON' =~ s/\n//gr);
{"the \"key\"": "\u00e9\u20ac\ud83d\ude00 \\ ' \"", "select": 9223372036854775807, "a percent": 100,
"size": "large", "numbers": "{1,NULL,3}", "day": "2026-02-28", "local time": "2026-02-28 12:00:00",
"instant": "2026-02-28T12:00:00.123456", "rough instant": "03/02/01 12:00",
"bytes": "\\x00ff", "exact": 1234567890123456789012345.67891,
"ratio": 1e-3, "yes": true, "document": {"list": [1, 2.50, null], "text": "x"}, "as_text": [1, {"a": "b"}],
"address": "192.0.2.1/24", "fixed": "ab", "with null": null, "unknown": "ignored"}
JSON
my $columns = q{"the ""key""", "select", "a percent", size, numbers, day, "local time", instant, "rough instant", bytes,
	exact, ratio, yes, document, as_text, address, fixed || '.', "with default", "with null", doubled, number};
is(query(qq{SET client_encoding = 'UTF8'; SELECT $columns FROM "Odd ""schema"""."a table; with 'quotes'"}),
	"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \\ ' \"|9223372036854775807|100|large|{1,NULL,3}|2026-02-28"
	. '|2026-02-28 12:00:00|2026-02-28 12:00:00.123456+00|2003-02-01 12:00:00+00|\x00ff|1234567890123456789012345.67891|0.001|t'
	. '|{"list": [1, 2.50, null], "text": "x"}|[1, {"a": "b"}]|192.0.2.1/24|ab.|the default||6|1',
	'each value is what its type makes of it; a missing key gives the default, null gives NULL');

# A bad value harms only its own record.
apply('odd',
	'{"the \"key\"": "good 1", "select": 1}',
	'{"the \"key\"": "bad 1", "select": 1, "a percent": 101}',
	'{"the \"key\"": "bad 2", "select": 1, "size": "medium"}',
	'{"the \"key\"": "bad 3", "select": 1, "day": "2026-02-30"}',
	'{"the \"key\"": "bad 4", "select": 1, "numbers": "{1,x}"}',
	'{"select": 1, "as_text": "bad 5"}',
	'{"the \"key\"": "bad 6"}',
	'{"the \"key\"": "bad 7", "select": "x"}',
	'{"the \"key\"": "good 2", "select": 2}');
is(query(q{SELECT "the ""key""" FROM "Odd ""schema"""."a table; with 'quotes'"
		WHERE "the ""key""" ~ 'good|bad' ORDER BY 1}),
	"good 1\ngood 2", 'a value that does not fit harms only its record');
is(query('SELECT kafka_offset, sqlstate FROM spine_dead_letters ORDER BY 1'),
	"2|23514\n3|22P02\n4|22008\n5|22P02\n6|23502\n7|23502\n8|22P02", 'each record with such a value is a dead letter');
is(query('SELECT reason FROM spine_dead_letters WHERE kafka_offset >= 6 ORDER BY kafka_offset'),
	qq{null value in key column "the "key""\nnull value in version column "select"\n}
	. 'invalid input syntax for type bigint: "x" COLUMN: select', 'the reason says what is wrong with a key or version');

# A mapping: keys with other names, and where the record came from.
query('CREATE TABLE mapped (id bigint, who text, part int, off bigint, at timestamptz, by text, off_text text, untouched text)');
make_pipeline($node, name => 'mapped', topic => 'mapped', target => 'mapped', mode => 'append',
	columns => '{"id": "some id", "who": "who", "part": "$partition", "off": "$offset", "off_text": "$offset", "at": "$timestamp", "by": "$key"}');
apply('mapped', '{"some id": 7, "who": 12.50, "untouched": "x"}');
is(query(q{SELECT id, who, part, off, off_text, at > now() - interval '1 hour', by, untouched FROM mapped}),
	'7|12.50|0|0|0|t|the key|', 'a column mapping');

#
# Defaults are the same as in a row that PostgreSQL inserts by itself.
#
query(<<'SQL');
CREATE DOMAIN short AS varchar(3) DEFAULT 1.5;
CREATE DOMAIN shorter AS short;
CREATE TABLE defaults (
	id bigint PRIMARY KEY,
	at text DEFAULT now(),
	day text DEFAULT date '2026-01-02',
	by_domain short,
	by_inner_domain shorter,
	own_in_domain short DEFAULT 7,
	no_default_in_domain short DEFAULT NULL,
	limited varchar(4) DEFAULT 2026,
	fixed character(5) DEFAULT 'ab'::text,
	one character DEFAULT 'c',
	letter "char" DEFAULT 'x'::text,
	named name DEFAULT ('y'::text COLLATE "C"),
	collated text COLLATE "C" DEFAULT ('z' COLLATE "POSIX"),
	rounded integer DEFAULT 2.7,
	small smallint DEFAULT 70000 - 69999,
	scaled numeric(5, 1) DEFAULT 2.26,
	ratio real DEFAULT 1.5::numeric,
	bits bit(3) DEFAULT B'101',
	varbits varbit DEFAULT B'1',
	list text[] DEFAULT ARRAY[1, 2],
	document jsonb DEFAULT '{"a": 1}',
	instant timestamptz DEFAULT date '2026-01-02',
	span interval(0) DEFAULT '1.6 s',
	serial smallserial,
	identity smallint GENERATED BY DEFAULT AS IDENTITY
);
CREATE TABLE too_long (id bigint PRIMARY KEY, text varchar(3) DEFAULT 'abcdef');
SQL
make_pipeline($node, name => 'defaults', topic => 'defaults', target => 'defaults', mode => 'append', key => '{id}');
apply('defaults', '{"id": 1}');
query('INSERT INTO defaults (id) VALUES (2)');
is(query(<<'SQL'), '', 'a default is cast to its column as in an INSERT');
SELECT a.key, a.value, b.value
FROM jsonb_each((SELECT to_jsonb(d) FROM defaults d WHERE id = 1)) a
JOIN jsonb_each((SELECT to_jsonb(d) FROM defaults d WHERE id = 2)) b USING (key)
WHERE a.value <> b.value AND key NOT IN ('id', 'at', 'serial', 'identity')
SQL
is(query('SELECT count(DISTINCT (serial, identity)) FROM defaults WHERE at IS NOT NULL'), '2',
	'a default that is computed for each row is computed for each record');
make_pipeline($node, name => 'too long', topic => 'too_long', target => 'too_long', mode => 'append', key => '{id}');
apply('too_long', '{"id": 1}', '{"id": 2, "text": "abc"}');
is(query(q{SELECT sqlstate, reason FROM spine_dead_letters WHERE topic = 'too_long'}),
	'22001|value too long for type character varying(3)', 'a default that does not fit is refused, not cut');

#
# As many columns as a table can have.
#
query(<<'SQL');
DO $$
BEGIN
	EXECUTE (SELECT format('CREATE TABLE wide (%s)', string_agg(format(
				'f%s smallint %s', n, CASE n WHEN 1 THEN 'PRIMARY KEY' ELSE 'DEFAULT ' || n END), ', '))
			 FROM generate_series(1, 1600) n);
	EXECUTE (SELECT format('CREATE TABLE wide_keyed (%s)', string_agg(format(
				'f%s %s %s', n, CASE WHEN n < 3 THEN 'numeric' ELSE 'smallint' END, CASE n WHEN 1 THEN 'PRIMARY KEY' ELSE 'DEFAULT ' || n END), ', '))
			 FROM generate_series(1, 1600) n);
END
$$;
SQL
make_pipeline($node, name => 'wide', topic => 'wide', target => 'wide', mode => 'append', key => '{f1}');
query(q{INSERT INTO spine_sinks VALUES ('wide', 'wide_keyed', 'upsert', '{f1}', 'f2')});
apply('wide', '{"f1": 1, "f2": 1, "f800": 0, "f1600": null}', '{"f1": 2, "f2": 1}', '{"f1": 1, "f2": 2, "f1600": 3}');
foreach my $result ([ 'wide', '1|1|3|0|NULL' ], [ 'wide_keyed', '1|2|3|0|3' ])
{
	my ($table, $first) = @$result;

	is(query("SELECT f1, f2, f3, f800, coalesce(f1600::text, 'NULL') FROM $table ORDER BY 1"),
		"$first\n2|1|3|800|1600", "1,600 columns with defaults: $table");
}

#
# Columns of any name.  Each name is once the key, once the version and otherwise a plain
# column, in each form of the statement.
#
my $names = q{ARRAY['ordinality', 'ordinal', 'excluded', 't', 'u', 'r', 'c0', 'c1', 'c2', 'm0', 'm1', 'missing',
	'spine_rows', 'target', 'value', 'new', 'old', 'select', 'default']};
query(<<SQL);
CREATE SCHEMA named;
DO \$\$
DECLARE
	names	text[] := $names;
	columns	text := (SELECT string_agg(format('%I numeric DEFAULT 5', name), ', ') FROM unnest($names) name);
	version	text;
BEGIN
	INSERT INTO spine_pipelines VALUES ('names', 'names');
	FOR n IN 1 .. cardinality(names) LOOP
		version := names[1 + n % cardinality(names)];
		EXECUTE format('CREATE TABLE named.in_sql_%1\$s (%2\$s, UNIQUE (%3\$I));
						CREATE TABLE named.in_c_%1\$s (LIKE named.in_sql_%1\$s INCLUDING ALL);
						CREATE TABLE named.keyed_%1\$s (LIKE named.in_sql_%1\$s INCLUDING ALL);
						ALTER TABLE named.in_c_%1\$s ALTER %3\$I TYPE text, ALTER %4\$I TYPE integer',
					   n, columns, names[n], version);
		INSERT INTO spine_sinks
		SELECT 'names', format('named.%s_%s', kind, n)::regclass, mode, ARRAY[names[n]],
			CASE mode WHEN 'upsert' THEN version END
		FROM (VALUES ('in_sql', 'upsert'), ('in_c', 'upsert'), ('keyed', 'append')) AS v (kind, mode);
	END LOOP;
END
\$\$;
SQL
apply('names', map { my $value = $_; query(qq{SELECT json_object_agg(name, $value) FROM unnest($names) name}) } 2, 3, 2);
my $counts = query(q{SELECT string_agg(format('SELECT %L AS name, count(*) AS rows FROM named.%I', relname, relname), ' UNION ALL ')
	FROM pg_class WHERE relnamespace = 'named'::regnamespace AND relkind = 'r'});
is(query("SELECT count(*) = 3 * cardinality($names), string_agg(name, ', ') FILTER (WHERE rows <> 2) FROM ($counts) c"),
	't|', 'columns of any name');
is(query(q{SELECT topic, kafka_offset, sqlstate, reason FROM spine_dead_letters WHERE topic IN ('defaults', 'wide', 'names')}), '',
	'neither defaults nor width nor names make dead letters');

$node->stop;
stop_broker($broker);
done_testing();

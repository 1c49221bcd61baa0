# Absent is not null: an upsert leaves a column alone that the record does not have, and
# partial events of one key add up, however many of them share a batch.
#
# Broken when a column that is absent is overwritten, or one that is null is not; when a
# partial event needs more of a row that exists than it has; when an older event wins in
# any column; when the statements for partial rows take more or fewer rows than those that
# have the key, or scan the table; or when a row that another session inserts at the same
# time costs the record.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use Test::More;

my $seed = $ENV{SPINE_TEST_SEED} // time;
srand $seed;
note "SPINE_TEST_SEED=$seed";

my $module = "$FindBin::RealBin/../../build/test_records.so";

# No worker reads these pipelines.
my $node = spine_node('main', conf => "spine.enabled = off\n");

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

query(<<SQL);
CREATE SCHEMA module;
CREATE FUNCTION module.make_plan(name) RETURNS int STRICT LANGUAGE c AS '$module', 'test_make_plan';
CREATE FUNCTION module.apply(int, text, bytea[], int) RETURNS text[] STRICT LANGUAGE c AS '$module', 'test_apply';

-- a batch of records; what became of each that was not applied
CREATE FUNCTION module.batch(plan int, VARIADIC records text[]) RETURNS SETOF text LANGUAGE sql
AS \$\$
	SELECT o
	FROM unnest(module.apply(plan, 'plain', (SELECT array_agg(convert_to(r, 'UTF8') ORDER BY i)
											 FROM unnest(records) WITH ORDINALITY AS u(r, i)), 1000)) AS o
	WHERE o <> 'applied'
\$\$;
SQL

# Makes a table and a pipeline of its name.
sub make_target
{
	my ($name, $columns, $key, $version) = @_;

	query("CREATE TABLE $name ($columns)");
	make_pipeline($node, name => $name, topic => 'x', target => $name, mode => 'upsert', key => $key, version => $version);
	return;
}

# Applies batches, each a list of records, and returns what the query says then.
sub after
{
	my ($pipeline, $query, @batches) = @_;

	return query("SELECT module.make_plan('$pipeline') AS plan \\gset\n"
		  . join('', map { 'SELECT module.batch(:plan, ' . join(', ', map { "'$_'" } @$_) . ");\n" } @batches) . "$query;");
}

#
# One event at a time
#
make_target('plain', q{id int PRIMARY KEY, version int, a int, b text DEFAULT 'b', needed text NOT NULL}, '{id}', 'version');
my $plain = q{SELECT id, version, coalesce(a::text, 'NULL'), coalesce(b, 'NULL'), needed FROM plain ORDER BY id};
is(after('plain', $plain,
		[ '{"id": 1, "version": 1, "a": 1, "b": "x", "needed": "n"}', '{"id": 2, "version": 1, "needed": "n"}' ],
		[ '{"id": 1, "version": 2, "a": 2}' ]),
	"1|2|2|x|n\n2|1|NULL|b|n", 'what is absent stays, in a new row it is the default; even if it must not be null');
is(after('plain', $plain, [ '{"id": 1, "version": 2, "a": null, "b": null}' ]),
	"1|2|NULL|NULL|n\n2|1|NULL|b|n", 'null sets NULL, also where there is a default');
is(after('plain', $plain, [ '{"id": 1, "version": 1, "a": 7}' ]),
	"1|2|NULL|NULL|n\n2|1|NULL|b|n", 'an event that is older than the row is left out as a whole');
is(after('plain', $plain, [ '{"id": 1, "version": 2, "a": 8}' ], [ '{"id": 1, "version": 3}', '{"id": 2, "version": 3}' ]),
	"1|3|8|NULL|n\n2|3|NULL|b|n", 'an event of the same version counts, and an event with no more than key and version');
like(($node->psql('postgres', q{SELECT module.batch(module.make_plan('plain'), '{"id": 3, "version": 1, "a": 1}')}))[2],
	qr/null value in column "needed" of relation "plain" violates not-null constraint/, 'a new row has to have what it needs');
like(query(q{SELECT module.apply(module.make_plan('plain'), 'search', ARRAY['{"id": 3, "version": 1, "a": 1}', '{"id": 1, "version": 4}']::bytea[], 0)}),
	qr/^\{"23502 null value in column \\"needed\\" .*",applied\}$/s, '... or is a dead letter, which harms no other record');

# a mapping's default stands for what is absent, so that nothing is missing
make_target('given', 'id int PRIMARY KEY, version int, a int', '{id}', 'version');
query(q{UPDATE spine_sinks SET columns = '{"id": "id", "version": "version", "a": {"path": "a", "default": 7}}' WHERE pipeline = 'given'});
my $given = 'SELECT id, version, a FROM given ORDER BY id';
is(after('given', $given, [ '{"id": 1, "version": 1, "a": 5}', '{"id": 1, "version": 2}', '{"id": 2, "version": 1, "a": 5}' ]),
	"1|2|7\n2|1|5", 'a default of the mapping wins over an older event');
is(after('given', $given, [ '{"id": 1, "version": 3, "a": 5}' ], [ '{"id": 2, "version": 2}', '{"id": 1, "version": 4}' ]),
	"1|4|7\n2|2|7", 'and over the row that is there, also if no event of the batch has the column');

#
# Several events of one key in a batch
#
is(after('plain', "$plain LIMIT 1",
		[ '{"id": 1, "version": 5, "a": 5, "b": "five"}', '{"id": 1, "version": 7, "a": 7}', '{"id": 1, "version": 6, "a": 6, "b": "six"}' ]),
	'1|7|7|six|n', 'each column comes from the newest event that has it');
is(after('plain', "$plain LIMIT 1",
		[ '{"id": 1, "version": 9, "a": 9}', '{"id": 1, "version": 8, "a": null, "b": "eight", "needed": "m"}', '{"id": 1, "version": 7, "b": "seven"}' ]),
	'1|9|9|eight|m', '... and none from before an event that has all');
is(after('plain', "$plain LIMIT 1",
		[ '{"id": 1, "version": 8, "b": "old"}', '{"id": 1, "version": 10}', '{"id": 1, "version": 9, "a": 99}' ]),
	'1|10|99|eight|m', 'events that are older than the row are left out, the newer ones of the batch are not');
is(after('plain', "$plain OFFSET 2",
		[ '{"id": 5, "version": 1, "needed": "first"}', '{"id": 5, "version": 2, "a": 2}', '{"id": 6, "version": 1, "a": 1, "b": "b6", "needed": "n6"}' ]),
	"5|2|2|b|first\n6|1|1|b6|n6", 'a new row is made of several events, beside one that is whole');

#
# What has a default in the mapping is never absent; what a path of PostgreSQL's jsonpath does
# not find, and a header that is not there, are.
#
query(q{CREATE TABLE sources (id int PRIMARY KEY, a int[] DEFAULT '{7}', b text, c int, h text)});
make_pipeline($node, name => 'sources', topic => 'x', target => 'sources', mode => 'upsert',
	columns => '{"id": "id", "a": {"default": "{1,2}"}, "b": "b", "c": "$.c[*] ? (@ > 0)", "h": "$headers.h"}');
query(q{INSERT INTO sources VALUES (1, '{0}', 'one', 1, 'h1'), (2, '{0}', 'two', 2, 'h2')});
my $sources = 'SELECT * FROM sources ORDER BY id';
is(after('sources', $sources, [ '{"id": 1}' ], [ '{"id": 2, "b": "second"}', '{"id": 3, "c": 3}' ]),
	"1|{1,2}|one|1|h1\n2|{1,2}|second|2|h2\n3|{1,2}||3|", 'a default of the mapping is written, what is not found is not');
is(after('sources', $sources, [ '{"id": 1, "a": [5], "c": [0, 9]}', '{"id": 1, "b": "I"}', '{"id": 2, "c": null}', '{"id": 2, "c": -1, "b": null}' ]),
	"1|{1,2}|I|9|h1\n2|{1,2}||2|h2\n3|{1,2}||3|", '... also where events of one key add up');

#
# Columns that no record has, and what may look at a row before it is known to exist
#
query('CREATE SEQUENCE used');
make_target('never', q{id int PRIMARY KEY, a int, never int, counted int DEFAULT nextval('used'), number int GENERATED BY DEFAULT AS IDENTITY}, '{id}');
is(after('never', 'SELECT id, a, never, counted, number FROM never ORDER BY 1',
		[ '{"id": 1, "a": 1}', '{"id": 2, "a": 2}' ],
		[ '{"id": 1, "never": 5, "counted": 50}' ],
		[ '{"id": 1, "a": 3}' ]),
	"1|3|5|50|1\n2|2||2|2", 'columns that no record of a batch has keep their values');
make_target('checked', q{id int PRIMARY KEY, state text, paid int, CHECK (state <> 'paid' OR paid IS NOT NULL)}, '{id}');
is(after('checked', 'SELECT * FROM checked', [ '{"id": 1, "state": "new", "paid": 5}' ], [ '{"id": 1, "state": "paid"}' ]),
	'1|paid|5', 'a constraint sees the row that comes of it, not the event');
query('CREATE DOMAIN needed AS int NOT NULL');
make_target('domains', 'id int PRIMARY KEY, a int, d needed', '{id}');
is(after('domains', 'SELECT * FROM domains', [ '{"id": 1, "a": 1, "d": 1}' ], [ '{"id": 1, "a": 2}' ]),
	'1|2|1', 'a domain that does not take null does not mind');
make_target('parts', 'id int, a int, b int DEFAULT 0, PRIMARY KEY (id)', '{id}');
query('ALTER TABLE parts RENAME TO part_1; CREATE TABLE parts (LIKE part_1 INCLUDING ALL) PARTITION BY RANGE (id); ALTER TABLE part_1 ADD CHECK (b > 0);'
	  . q{ALTER TABLE parts ATTACH PARTITION part_1 FOR VALUES FROM (1) TO (2); UPDATE spine_sinks SET target = 'parts' WHERE pipeline = 'parts'});
is(after('parts', 'SELECT * FROM parts', [ '{"id": 1, "a": 1, "b": 1}' ], [ '{"id": 1, "a": 2}' ]),
	'1|2|1', 'a partition with a constraint of its own');

# Types whose operators are not in pg_catalog, and collations
query('CREATE EXTENSION citext');
make_target('foreign_types', 'k citext, "order" text COLLATE "C", v citext, a int, b text COLLATE "POSIX" DEFAULT 1.5, PRIMARY KEY ("order", k)', '{k,order}', 'v');
is(after('foreign_types', 'SELECT * FROM foreign_types',
		[ '{"k": "Key", "order": "x", "v": "b", "a": 1}' ],
		[ '{"k": "KEY", "order": "x", "v": "B", "b": "two"}', '{"k": "kEY", "order": "x", "v": "A", "a": 3}' ],
		[ '{"k": "KEY", "order": "x", "v": "a", "b": "old"}' ]),
	'Key|x|B|1|two', 'keys and versions of a type with operators of its own');

#
# Rows are found by the key, not by a scan, also when the plan is older than they are, and
# when they are inserted by the statement that looks for them.
#
make_target('large', 'id int, part int, version bigint, a int, b int NOT NULL, PRIMARY KEY (part, id)', undef, 'version');
my $read = q{SELECT seq_tup_read + idx_tup_read FROM pg_stat_xact_user_tables JOIN
	(SELECT indrelid, sum(pg_stat_get_xact_tuples_returned(indexrelid)) AS idx_tup_read FROM pg_index GROUP BY 1) i ON indrelid = relid WHERE relname = 'large'};
foreach my $first ('', 'INSERT INTO large VALUES (0, 1, 1, 1, 1);')
{
	is(query(<<"SQL"), "0\n200", "partial events do not scan a table, whose statistics say: $first");
TRUNCATE large;
$first
VACUUM ANALYZE large;
SELECT module.make_plan('large') AS plan \\gset
BEGIN;
SELECT module.apply(:plan, 'plain', (SELECT array_agg(convert_to(format('{"id": %s, "part": 1, "version": 1, "b": 1%s}', n,
	CASE WHEN n % 2 = 0 THEN ', "a": 1' END), 'UTF8')) FROM generate_series(1, 2000) n), 0) \\gset
$read;
COMMIT;
BEGIN;
SELECT module.apply(:plan, 'plain', (SELECT array_agg(convert_to(format('{"id": %s, "part": 1, "version": 1%s}', n,
	CASE WHEN n % 2 = 0 THEN ', "a": 1' END), 'UTF8')) FROM generate_series(1, 100) n), 0) \\gset
$read;
COMMIT;
SQL
}

#
# Another session inserts the row between the two statements.
#
my $other = $node->background_psql('postgres');
my $session = $node->background_psql('postgres');
$other->query_safe(q{BEGIN; INSERT INTO plain VALUES (10, 1, 1, 'theirs', 'theirs')});
$session->query_until(qr/begins/, <<'SQL');
\echo begins
SELECT module.apply(module.make_plan('plain'), 'plain, then search', ARRAY['{"id": 10, "version": 2, "a": 2, "needed": "mine"}', '{"id": 11, "version": 2, "b": "x", "needed": "mine"}', 'no JSON']::bytea[], 0);
SQL
comes_to($node, 'the INSERT waits for the other session', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%then search%' AND wait_event_type = 'Lock'});
$other->query_safe('COMMIT');
$other->quit;
like($session->query_safe('SELECT 1'), qr/^\{applied,applied,"22P02/, 'the unique violation is not the fault of the record');
$session->quit;
is(query("$plain OFFSET 4"), "10|2|2|theirs|mine\n11|2|NULL|x|mine", 'both have written their columns');

# ... and again, while the search has only this record left
make_target('raced', 'id int PRIMARY KEY, version int, a int, b text', '{id}', 'version');
query(<<'SQL');
CREATE SEQUENCE runs;
CREATE FUNCTION race() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('public.runs') < 3 THEN
		RAISE unique_violation USING MESSAGE = 'as if another session had inserted it';
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER race BEFORE INSERT ON raced FOR EACH ROW EXECUTE FUNCTION race();
SQL
is(query(q{SELECT module.apply(module.make_plan('raced'), 'search', ARRAY['{"id": 1, "version": 1, "a": 1}']::bytea[], 0)}),
	'{applied}', 'a single record is run again');

#
# Random streams against a model: the batch in the order of versions, then the row
#
my @columns = qw(a b c d);

sub random_event
{
	my ($id, $whole) = @_;
	my %event = (id => $id, version => 1 + int rand 6);

	foreach my $column (@columns)
	{
		next if !$whole && rand() < 0.5;
		$event{$column} = $column ne 'b' && rand() < 0.2 ? 'null' : int rand 1000;
	}
	return \%event;
}

# Changes the rows as a batch should.
sub apply_to_model
{
	my ($rows, $defaults, $is_versioned, @events) = @_;
	my %of_key;

	push @{ $of_key{ $_->{id} } }, $_ foreach @events;
	foreach my $id (keys %of_key)
	{
		# sort is stable, so that of equal versions the later in the log comes last
		my @sorted = $is_versioned ? sort { $a->{version} <=> $b->{version} } @{ $of_key{$id} } : @{ $of_key{$id} };
		my $row = $rows->{$id};

		@sorted = grep { $_->{version} >= $row->{version} } @sorted if $row && $is_versioned;
		next unless @sorted;
		$row = $rows->{$id} //= {%$defaults};
		%$row = (%$row, %$_) foreach @sorted;
	}
	return;
}

my @targets = (
	{   name => 'model_new', defaults => { a => 'null', b => 7, c => 'null', d => 40 },
		columns => 'id int PRIMARY KEY, version int, a int, b int NOT NULL DEFAULT 7, c int, d int DEFAULT 40' },
	{   name => 'model_log', defaults => { a => 'null', b => 7, c => 'null', d => 40 }, unversioned => 1,
		columns => 'id numeric PRIMARY KEY, version int, a int, b int NOT NULL DEFAULT 7, c int, d int DEFAULT 40' },
	{   name => 'model_rows', first => 1, defaults => {},
		columns => 'version numeric, id text COLLATE "C", a int, b int NOT NULL, c int CHECK (c >= 0), d int, PRIMARY KEY (id)' });
make_target($_->{name}, $_->{columns}, undef, $_->{unversioned} ? undef : 'version') foreach @targets;

my ($nrounds, $nwrong) = (0, 0);
foreach my $round (1 .. 120)
{
	my $target = $targets[$round % @targets];
	my $size = (1, 2, 5, 100)[ int rand 4 ];
	my $ids = 1 + int rand 4;
	my @events = map { random_event(1 + int rand $ids, rand() < 0.2) } 1 .. 40;
	my %rows;
	my $sql = "TRUNCATE $target->{name}; SELECT module.make_plan('$target->{name}') AS plan \\gset\n";

	unshift @events, map { random_event($_, 1) } 1 .. $ids if $target->{first};
	while (my @batch = splice @events, 0, $target->{first} && !%rows ? $ids : $size)
	{
		apply_to_model(\%rows, $target->{defaults}, !$target->{unversioned}, @batch);
		$sql .= 'SELECT module.batch(:plan, ' . join(', ', map {
			my $event = $_;
			q{'} . '{' . join(', ', map { "\"$_\": $event->{$_}" } keys %$event) . q(}')
		} @batch) . ");\n";
	}
	my $expected = join "\n", map { my $id = $_; join '|', $id, map { $rows{$id}{$_} } 'version', @columns } sort keys %rows;
	my $got = query($sql . 'SELECT id, version, ' . join(', ', map { "coalesce($_\::text, 'null')" } @columns) . " FROM $target->{name} ORDER BY id");

	$nrounds++;
	next if $got eq $expected;
	is($got, $expected, "round $round, $target->{name}, batches of $size:\n$sql") if $nwrong++ < 3;
}
is($nwrong, 0, "$nrounds random streams end as the model says");

$node->stop;
done_testing();

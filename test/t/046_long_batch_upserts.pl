# Upserts in a long batch: its pieces come one after another, and the newest row of each key is
# kept until the end.  What is in the table then is what the same records leave in one piece.
#
# Broken when a key is looked up by less than all of its bytes; when an older row replaces a
# newer one, or a later one of the same version does not; when rows are kept that somebody could
# miss: a foreign key, a trigger, an expression that looks rows up, an earlier row that lacks
# other columns; when memory grows with the records of a key; when a row that does not
# change is written, or one that changes is not.
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
CREATE FUNCTION module.apply_pieces(int, bytea[], int[]) RETURNS text STRICT LANGUAGE c AS '$module', 'test_apply_pieces';
CREATE FUNCTION module.pieces(plan int, sizes int[], VARIADIC records text[]) RETURNS text LANGUAGE sql
AS \$\$
	SELECT module.apply_pieces(plan, (SELECT array_agg(convert_to(r, 'UTF8') ORDER BY i)
									  FROM unnest(records) WITH ORDINALITY AS u(r, i)), sizes)
\$\$;
SQL

# Applies records in pieces of these sizes to a pipeline.  Returns upserts, unchanged, filtered
# and the bytes that were held at most.
sub apply
{
	my ($pipeline, $sizes, @records) = @_;

	return split / /, query("SELECT module.pieces(module.make_plan('$pipeline'), '{" . join(',', @$sizes) . "}', VARIADIC ARRAY["
		  . join(', ', map { "'$_'" } @records) . '])');
}

sub random_sizes
{
	my ($n, $max) = @_;
	my @sizes;

	while ($n > 0)
	{
		push @sizes, 1 + int rand($n < $max ? $n : $max);
		$n -= $sizes[-1];
	}
	return \@sizes;
}

#
# Random records: the same in pieces, in one piece, and as a model has it
#
# [columns, key, version, how a key is written]
my %targets = (
	whole => [ 'k text, n int, version bigint, a text, b int', '{k,n}', 'version', sub { sprintf '"k": "%s", "n": %d', 'k' x ($_[0] % 3), $_[0] - 20 } ],
	unversioned => [ 'k int PRIMARY KEY, version bigint, a text, b int', undef, undef, sub { sprintf '"k": %d', $_[0] - 20 } ],
	negative => [ 'k uuid PRIMARY KEY, version timestamp, a text, b int', undef, 'version', sub { sprintf '"k": "%032d"', $_[0] } ],
	ranked => [ 'k numeric PRIMARY KEY, version bigint, a text, b int', undef, 'version', sub { sprintf '"k": %d.%s', $_[0], '0' x rand 3 } ],
	sorted => [ 'k int PRIMARY KEY, version numeric, a text, b int', undef, 'version', sub { sprintf '"k": %d', $_[0] } ]);

foreach my $name (sort keys %targets)
{
	my ($columns, $key, $version, $write_key) = @{ $targets{$name} };

	query("CREATE TABLE ${_}_$name ($columns" . ($key ? ', PRIMARY KEY (k, n)' : '') . ')') foreach 'long', 'short';
	make_pipeline($node, name => "${_}_$name", topic => 'x', target => "${_}_$name", mode => 'upsert', key => $key, version => $version)
	  foreach 'long', 'short';
	query("UPDATE spine_sinks SET filter = 'value->>''a'' IS DISTINCT FROM ''3''' WHERE target::text LIKE '%unversioned'") if $name eq 'unversioned';
	foreach my $round (1 .. 4)
	{
		my $n = 1 + int rand 400;
		my $nkeys = 1 + int rand 60;
		my $is_mixed = $round == 4;
		my %newest;
		my @records = map {
			my $k = int rand $nkeys;
			my $v = int rand 50;
			my $a = int rand 5;
			my @fields = ($write_key->($k), '"version": ' . ($name eq 'negative' ? sprintf('"2026-01-01 00:00:%02d"', $v) : $v), "\"a\": \"$a\"");

			push @fields, '"b": ' . (rand() < 0.2 ? 'null' : $_) unless $is_mixed && rand() < 0.3;
			$newest{$k} = [ $v, $a, $_ ]
			  unless ($name eq 'unversioned' && $a == 3) || ($version && $newest{$k} && $newest{$k}[0] > $v);
			'{' . join(', ', @fields) . '}'
		} 1 .. $n;

		# in the order of their versions, partial records add up however they are batched
		@records = sort { ($a =~ /"version": "?([^,"]*)/)[0] <=> ($b =~ /"version": "?([^,"]*)/)[0] } @records if $is_mixed && $name ne 'negative';
		@records = sort { ($a =~ /"version": ("[^"]*")/)[0] cmp ($b =~ /"version": ("[^"]*")/)[0] } @records if $is_mixed && $name eq 'negative';
		query("TRUNCATE long_$name, short_$name") if $round != 3;
		my ($upserts, $unchanged, $filtered) = apply("long_$name", random_sizes($n, $n / 3 + 1), @records);
		apply("short_$name", [$n], @records);
		is(query("TABLE long_$name EXCEPT TABLE short_$name"), '', "$name, round $round: pieces leave what one batch leaves");
		is(query("SELECT count(*) FROM long_$name"), query("SELECT count(*) FROM short_$name"), '... and no other rows');
		next if $is_mixed || $round == 3 || $name eq 'ranked';
		is(query("SELECT count(*) FROM long_$name"), scalar keys %newest, '... as many as there are keys');
		is(query("SELECT count(*) FROM long_$name WHERE a = ANY ('{" . join(',', map { $_->[1] } values %newest) . "}')"), scalar keys %newest, '... of the newest');
		is($upserts, scalar keys %newest, '... each written once') unless $name eq 'sorted';
	}
}

#
# Memory: of the keys, not of the records
#
query('CREATE TABLE flat (k int PRIMARY KEY, version int, a text)');
make_pipeline($node, name => 'flat', topic => 'x', target => 'flat', mode => 'upsert', version => 'version');
my $few = q{SELECT split_part(module.apply_pieces(module.make_plan('flat'), (SELECT array_agg(convert_to(format('{"k": %s, "version": %s, "a": "%s"}', n % 100, n, repeat('x', n * 7919 % 100)), 'UTF8') ORDER BY n) FROM generate_series(1, };
my $some = query("$few 1000) n), array_fill(100, ARRAY[10])), ' ', 4)");
my $many = query("$few 100000) n), array_fill(1000, ARRAY[100])), ' ', 4)");
cmp_ok($many, '<', $some * 2, "100,000 records of 100 keys take as much memory as 1,000 do: $some and $many bytes");

#
# Rows that do not change are not written
#
query(<<'SQL');
CREATE TABLE same (k int PRIMARY KEY, version int, t text, n numeric, j json, d date, always int GENERATED ALWAYS AS (version) STORED);
CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE TABLE same_unversioned (k int PRIMARY KEY, t text, n numeric, d small);
CREATE TABLE same_domain_key (k small PRIMARY KEY, v numeric);
SQL
make_pipeline($node, name => 'same', topic => 'x', target => 'same', mode => 'upsert', version => 'version');
make_pipeline($node, name => 'same_unversioned', topic => 'x', target => 'same_unversioned', mode => 'upsert');
make_pipeline($node, name => 'same_domain_key', topic => 'x', target => 'same_domain_key', mode => 'upsert', version => 'v');

# [records, upserts, unchanged, why]
sub expect_written
{
	my ($pipeline, $records, $upserts, $unchanged, $why) = @_;
	my @counts = apply($pipeline, [ scalar @$records ], @$records);

	is("$counts[0] $counts[1]", "$upserts $unchanged", $why);
	return;
}
my $a = '{"k": 1, "version": 1, "t": "a", "n": 1.0, "j": {"a": 1}, "d": "2026-01-01"}';
my $b = '{"k": 2, "version": 1, "t": null, "n": null, "j": null, "d": null}';
expect_written('same', [ $a, $b ], 2, 0, 'new rows');
my $ctids = query('SELECT ctid, xmin FROM same');
expect_written('same', [ $a, $b ], 0, 2, 'the same again: nothing is written');
is(query('SELECT ctid, xmin FROM same'), $ctids, '... indeed');
expect_written('same', [ $a =~ s/1\.0/1.00/r, $b ], 1, 1, 'equal, but not the same');
is(query('SELECT n FROM same WHERE k = 1'), '1.00', '... is written');
expect_written('same', [ $a =~ s/1\.0/1.00/r =~ s/"a": 1/"a":1/r, $b ], 1, 1, 'json that is spelled in another way');
expect_written('same', [ $b =~ s/null/"t"/r ], 1, 0, 'a value for null');
expect_written('same', [$b], 1, 0, 'null for a value');
expect_written('same', [ $b =~ s/1/2/r ], 1, 0, 'a greater version');
expect_written('same', [ $b, $b =~ s/1/0/r ], 0, 1, 'a row that is newer is not written, and counted');
expect_written('same', [ '{"k": 2, "version": 2, "t": null}', '{"k": 1, "version": 1, "n": 1.00}' ], 0, 2, 'partial records that change nothing');
expect_written('same', [ '{"k": 2, "version": 2, "t": "t"}', '{"k": 1, "version": 1, "n": 1.00}' ], 1, 1, '... or one of them something');
expect_written('same', [ '{"k": 2, "version": 2, "d": null}', '{"k": 1, "version": 1, "n": 1.0}', '{"k": 3, "version": 1, "j": null}' ], 2, 1, '... one nothing, one another spelling, one a new row');
expect_written('same_unversioned', [ '{"k": 1, "t": "a", "n": 1, "d": 7}' ], 1, 0, 'without a version');
expect_written('same_unversioned', [ '{"k": 1, "t": "a", "n": 1, "d": 7}' ], 0, 1, '... the same again');
expect_written('same_unversioned', [ '{"k": 1, "d": 7}', '{"k": 1, "n": 1}' ], 0, 1, '... in parts');
expect_written('same_unversioned', [ '{"k": 1, "d": 8}', '{"k": 1, "n": 1.0}' ], 1, 0, '... other parts');
is(query('TABLE same_unversioned'), '1|a|1.0|8', '... are written');
expect_written('same_domain_key', [ '{"k": 1, "v": 1.0}' ], 1, 0, 'a version ...');
expect_written('same_domain_key', [ '{"k": 1, "v": 1.00}' ], 1, 0, '... is written in its newest spelling');
expect_written('same_domain_key', [ '{"k": 1, "v": 1.00}' ], 0, 1, '... once');

# Comparing needs no right that proposing a row does not need.
query(<<'SQL');
CREATE ROLE writer;
GRANT INSERT, UPDATE, SELECT (k, version, t, n, j, d) ON same TO writer;
UPDATE spine_pipelines SET owner = 'writer' WHERE name = 'same';
SQL
expect_written('same', [ $a =~ s/"a"/"b"/r ], 1, 0, 'a role that has the rights to the columns, and no others');

#
# Rows that somebody would miss are written with their piece
#
query(<<'SQL');
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers);
CREATE TABLE plain_orders (id int PRIMARY KEY, customer int);
CREATE TABLE watched_orders (id int PRIMARY KEY, customer int, customers int);
CREATE FUNCTION count_customers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.customers = (SELECT count(*) FROM public.customers);
	RETURN NEW;
END $$;
CREATE TRIGGER count_customers BEFORE INSERT ON watched_orders FOR EACH ROW EXECUTE FUNCTION count_customers();
CREATE TABLE looked_up (id int PRIMARY KEY, customers int);
CREATE FUNCTION customers() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM public.customers';
CREATE TABLE checked_orders (id int PRIMARY KEY, customer int CHECK (customer <= customers()));
CREATE TABLE default_orders (id int PRIMARY KEY, customers int DEFAULT customers());
CREATE DOMAIN known AS int CHECK (VALUE <= customers());
CREATE TABLE domain_orders (id int PRIMARY KEY, customer known);
CREATE TABLE parted_orders (id int PRIMARY KEY, customer int) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parted_orders FOR VALUES FROM (0) TO (1000);
ALTER TABLE part ADD FOREIGN KEY (customer) REFERENCES customers;
CREATE VIEW seen_customers AS SELECT * FROM customers;
CREATE TABLE people (id int PRIMARY KEY, boss int REFERENCES people);
SQL

my $child = 0;

# A pipeline with customers, and behind them this table; and whether customers are kept.
sub keeps
{
	my ($target, $columns, $sizes, @records) = @_;
	my $name = 'with_' . $target . ++$child;

	query(<<"SQL");
TRUNCATE customers CASCADE;
DELETE FROM $target;
INSERT INTO spine_pipelines (name, topic) VALUES ('$name', 'x');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('$name', 'customers', 'upsert', '{"id": "customer", "name": "name"}');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('$name', '$target', 'append', '$columns');
SQL
	return (apply($name, $sizes, @records))[3] > 0;
}
my @orders = map { sprintf '{"order": %d, "customer": %d, "name": "c"}', $_, $_ } 1 .. 6;
my $ids = '{"id": "order", "customer": "customer"}';
ok(keeps('plain_orders', $ids, [ 1, 2, 3 ], @orders), 'a table that nothing leads from: rows are kept');
ok(!keeps('orders', $ids, [ 1, 2, 3 ], @orders), 'a foreign key leads to the rows: each piece is written');
is(query('SELECT count(*) FROM orders JOIN customers ON customers.id = customer'), '6', '... so that it finds them');
ok(!keeps('parted_orders', $ids, [ 1, 2, 3 ], @orders), '... from a partition, too');
ok(!keeps('watched_orders', $ids, [ 1, 2, 3 ], @orders), 'a trigger counts the rows');
is(query('SELECT customers FROM watched_orders ORDER BY id'), "1\n3\n3\n6\n6\n6", '... of the pieces before, and of its own');
ok(!keeps('looked_up', '{"id": "order", "customers": {"sql": "(SELECT count(*) FROM public.customers)"}}', [ 1, 2, 3 ], @orders), 'an expression looks rows up');
is(query('SELECT customers FROM looked_up ORDER BY id'), "1\n3\n3\n6\n6\n6", '... and finds them');
ok(!keeps('checked_orders', $ids, [ 1, 2, 3 ], @orders), 'a check reads them');
ok(!keeps('default_orders', '{"id": "order"}', [ 1, 2, 3 ], @orders), 'a default reads them');
ok(!keeps('domain_orders', $ids, [ 1, 2, 3 ], @orders), 'a domain reads them');
ok(!keeps('seen_customers', q{{"id": {"sql": "(value->>''order'')::int + 100"}, "name": "name"}}, [ 1, 2, 3 ], @orders), 'a view of the table is another target');

make_pipeline($node, name => 'people', topic => 'x', target => 'people', mode => 'upsert');
is((apply('people', [ 1, 1 ], '{"id": 1, "boss": null}', '{"id": 2, "boss": 1}'))[3], 0, 'a foreign key to the table itself');

# the default pipeline, whose table has triggers of the extension
query(q{UPDATE spine_pipelines SET topic = 'x' WHERE name = 'orders'});
is(query(<<'SQL'), "t\npaid|1", 'current_orders are kept, and counted');
SELECT split_part(module.pieces(module.make_plan('orders'), '{1,1}', VARIADIC ARRAY(
	SELECT format('{"tenant": "t", "event_id": "%s", "event_type": "%s", "order_id": "o", "amount_cents": 5, "event_time": "2026-01-01T00:00:0%sZ"}',
		gen_random_uuid(), CASE n WHEN 1 THEN 'created' ELSE 'paid' END, n)
	FROM generate_series(1, 2) n)), ' ', 4)::int > 0;
SELECT status, (SELECT sum(orders) FROM spine_order_totals) FROM current_orders;
SQL

done_testing();

# The sinks of a pipeline: their order, the keys and versions that they may leave out, and
# views as their targets.
#
# Broken when a child's foreign key does not find the parent that comes from the same
# record; when a key that no unique index has is noticed only by the first batch; when without
# a version an earlier record wins; or when the table below a view is looked at as if nobody
# wrote to it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use Test::More;

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

-- what became of each record, as one batch
CREATE FUNCTION module.batch(pipeline name, how text, VARIADIC records text[]) RETURNS text LANGUAGE sql
AS \$\$
	SELECT array_to_string(module.apply(module.make_plan(pipeline), how,
		(SELECT array_agg(convert_to(r, 'UTF8') ORDER BY i) FROM unnest(records) WITH ORDINALITY AS u(r, i)), 0), E'\\n')
\$\$;
SQL

# The error of a batch, or of making the plan, with its SQLSTATE and hint.
sub error_of
{
	my ($pipeline, @records) = @_;
	my $records = join ', ', map { "'$_'" } @records;
	my ($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n" . (@records ? "SELECT module.batch('$pipeline', 'plain', $records)" : "SELECT module.make_plan('$pipeline')"));

	return $err =~ s/\nLOCATION.*//sr;
}

#
# Sinks in the order in which they were defined
#
query(<<'SQL');
CREATE TABLE customers (id int PRIMARY KEY, name text CHECK (name <> ''));
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers);
CREATE TABLE latest (customer int PRIMARY KEY REFERENCES customers, last_order int REFERENCES orders);
INSERT INTO spine_pipelines (name, topic) VALUES ('family', 'x'), ('reversed', 'x');
INSERT INTO spine_sinks (pipeline, target, mode, key, columns) VALUES ('family', 'customers', 'upsert', NULL, '{"id": "customer", "name": "name"}');
INSERT INTO spine_sinks (pipeline, target, mode, key, columns) VALUES ('family', 'orders', 'append', '{id}', '{"id": "order", "customer": "customer"}');
INSERT INTO spine_sinks (pipeline, target, mode, key, columns) VALUES ('family', 'latest', 'upsert', NULL, '{"customer": "customer", "last_order": "order"}');
INSERT INTO spine_sinks (pipeline, target, mode, key, columns, ordinal) VALUES ('reversed', 'customers', 'upsert', NULL, '{"id": "customer", "name": "name"}', 9);
INSERT INTO spine_sinks (pipeline, target, mode, key, columns, ordinal) VALUES ('reversed', 'orders', 'append', '{id}', '{"id": "order", "customer": "customer"}', 8);
SQL
my $family = 'SELECT o.id, c.id, c.name, l.last_order FROM orders o JOIN customers c ON c.id = o.customer JOIN latest l ON l.customer = c.id ORDER BY 1';
is(query(q{SELECT module.batch('family', 'plain', '{"order": 1, "customer": 10, "name": "a"}', '{"order": 2, "customer": 11, "name": "b"}', '{"order": 3, "customer": 10, "name": "c"}')}),
	"applied\napplied\napplied", 'parent and child of one record, in a plain attempt');
is(query($family), "1|10|c|3\n2|11|b|2\n3|10|c|3", 'each child has its parent');
is(query(q{SELECT module.batch('family', 'plain, then search', '{"order": 4, "customer": 12, "name": "d"}', '{"order": 5, "customer": 13, "name": ""}', '{"order": 6, "customer": 14, "name": "f"}', '{"order": 7, "customer": 13}')}) =~ s/ DETAIL.*//r,
	"applied\n23514 new row for relation \"customers\" violates check constraint \"customers_name_check\"\napplied\napplied", '... and in the search for the record to blame');
is(query("$family OFFSET 3"), "4|12|d|4\n6|14|f|6\n7|13||7", 'a record that is refused leaves nothing in any of the tables');
like(error_of('reversed', '{"order": 8, "customer": 15, "name": "h"}'), qr/23503: insert or update on table "orders" violates foreign key/, 'the child first: refused');

#
# Keys
#
query(<<'SQL');
CREATE TABLE composite (a int, b int, c int, PRIMARY KEY (b, a) INCLUDE (c));
CREATE TABLE keyless (a int, b int, c int);
CREATE UNIQUE INDEX ON keyless (a) WHERE b > 0;
CREATE UNIQUE INDEX ON keyless ((a + 0));
CREATE UNIQUE INDEX ON keyless (a, c);
CREATE INDEX ON keyless (b);
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE late (a int PRIMARY KEY DEFERRABLE, b int UNIQUE, c text COLLATE ignore_case);
CREATE UNIQUE INDEX ON late (c COLLATE "C");
CREATE TABLE parted (a int, b int, c int, PRIMARY KEY (b, a)) PARTITION BY LIST (a);
CREATE TABLE parted_1 PARTITION OF parted DEFAULT;
SQL

# [target, mode, key, what comes of it]
my @keys = (
	[ 'composite', 'upsert', undef, qr/^$/ ],
	[ 'composite', 'upsert', '{a,b}', qr/^$/ ],
	[ 'composite', 'append', '{b,a}', qr/^$/ ],
	[ 'composite', 'append', undef, qr/^$/ ],
	[ 'parted', 'upsert', undef, qr/^$/ ],
	[ 'composite', 'append', '{a}', qr/42P10: table public.composite has no unique index on the key \(a\)/ ],
	[ 'composite', 'upsert', '{a,b,c}', qr/42P10: table public.composite has no unique index on the key \(a, b, c\)/ ],
	[ 'keyless', 'upsert', undef, qr/42P10: table public.keyless has no primary key to recognize rows by.*HINT:  Add a primary key/s ],
	[ 'keyless', 'append', undef, qr/^$/ ],
	[ 'keyless', 'upsert', '{c,a}', qr/^$/ ],
	[ 'keyless', 'append', '{a}', qr/42P10: table public.keyless has no unique index on the key \(a\).*HINT:  Create the index/s ],
	[ 'keyless', 'append', '{b}', qr/42P10: .*on the key \(b\)/ ],
	[ 'late', 'upsert', undef, qr/42P10: .*no primary key.*DETAIL:  A deferrable primary key does not count/s ],
	[ 'late', 'upsert', '{b}', qr/^$/ ],
	[ 'late', 'upsert', '{c}', qr/42P10: .*on the key \(c\)/ ],
	[ 'late', 'upsert', '{d}', qr/42703: column "d" is a key or version of table public.late but is not written/ ]);

foreach my $i (0 .. $#keys)
{
	my ($target, $mode, $key, $error) = @{ $keys[$i] };

	make_pipeline($node, name => "keys_$i", topic => 'x', target => $target, mode => $mode, key => $key);
	like(error_of("keys_$i"), $error, "$mode into $target with the key " . ($key // '(none)'));
}

#
# Without a version the later record in the log wins; with one, it may be of any type.
#
query(<<'SQL');
CREATE TABLE log_order (k text PRIMARY KEY, v int);
CREATE TABLE only_key (k int PRIMARY KEY);
CREATE TABLE no_order (k int PRIMARY KEY, v point);
CREATE TABLE list_version (k int PRIMARY KEY, v int[]);
SQL
make_pipeline($node, name => $_, topic => 'x', target => $_, mode => 'upsert') foreach 'log_order', 'only_key';
make_pipeline($node, name => $_, topic => 'x', target => $_, mode => 'upsert', version => 'v') foreach 'no_order', 'list_version';
is(query(<<'SQL'), "applied\napplied\napplied\napplied\na|1\nb|2", 'without a version, the later record in the log wins');
SELECT module.batch('log_order', 'plain', '{"k": "a", "v": 3}', '{"k": "b", "v": 2}', '{"k": "a", "v": 2}');
SELECT module.batch('log_order', 'plain', '{"k": "a", "v": 1}');
SELECT * FROM log_order ORDER BY 1;
SQL
is(query(q{SELECT module.batch('only_key', 'plain', '{"k": 1}', '{"k": 2}', '{"k": 1}'); SELECT module.batch('only_key', 'search', '{"k": 1}'); SELECT * FROM only_key}),
	"applied\napplied\napplied\napplied\n1\n2", 'a table of nothing but a key');
is(query(q{CREATE TABLE only_number (k int PRIMARY KEY, number int GENERATED ALWAYS AS IDENTITY);
	SELECT spine_create_pipeline('get_or_create', 'x', 'only_key', 'upsert');
	SELECT spine_create_pipeline('numbered', 'x', 'only_number', 'upsert');
	SELECT module.batch('numbered', 'plain', '{"k": 1, "number": 5}', '{"k": 2}', '{"k": 1}');
	SELECT * FROM only_number ORDER BY 1}),
	"\n\napplied\napplied\napplied\n1|5\n2|1", '... which the functions create, too; and one of a key and an identity');
like(error_of('no_order'), qr/42883: version column "v" is of type point, whose values have no order/, 'a version whose type has no order');
like(error_of('list_version'), qr/0A000: version column "v" of table public.list_version is of type integer\[\]/, 'a version of which there are no arrays');

#
# Views
#
query(<<'SQL');
CREATE ROLE app;
CREATE ROLE other;
GRANT CREATE ON SCHEMA public TO app, other;
SET ROLE app;
CREATE TABLE base (n numeric, unused int, k int PRIMARY KEY, v int, hidden text);
CREATE VIEW inner_view AS SELECT k AS id, v AS version, n AS number FROM base WHERE v < 100 WITH CHECK OPTION;
CREATE VIEW outer_view AS SELECT version, id, number FROM inner_view;
CREATE VIEW keyless_view AS SELECT v, n FROM base;
SQL
make_pipeline($node, name => 'view', topic => 'x', target => 'outer_view', mode => 'upsert', version => 'version');
make_pipeline($node, name => 'view_append', topic => 'x', target => 'inner_view', mode => 'append', key => '{id}');
make_pipeline($node, name => 'keyless_view', topic => 'x', target => 'keyless_view', mode => 'upsert');
is(query(<<'SQL'), "applied\napplied\napplied\napplied\napplied\n1|2|10\n2|1|", 'upsert into a view of a view');
SELECT module.batch('view', 'plain', '{"id": 1, "version": 1, "number": 10}', '{"id": 2, "version": 1, "number": 1.5}', '{"id": 1, "version": 0, "number": 0}');
SELECT module.batch('view', 'plain', '{"id": 2, "version": 1, "number": null}', '{"id": 1, "version": 2}');
SELECT k, v, n FROM base ORDER BY 1;
SQL
is(query(q{SELECT module.batch('view', 'search', '{"id": 3, "version": 3}', '{"id": 4, "version": 200, "number": 1}')}) =~ s/ DETAIL.*//r,
	"applied\n44000 new row violates check option for view \"inner_view\"", 'a record that WITH CHECK OPTION refuses is a dead letter');
is(query(q{SELECT module.batch('view_append', 'plain, then search', '{"id": 3, "version": 4}', '{"id": 5, "version": 5}'); SELECT k, v FROM base WHERE k IN (3, 5)}),
	"applied\napplied\n3|3\n5|5", 'append to a view');
like(error_of('keyless_view'), qr/42P10: table public.keyless_view has no primary key/, 'a view that does not show the primary key');

# What is below the view counts as the target does.
like(error_of('view'), qr/^$/, 'the plan can be made');
query('ALTER TABLE base SET UNLOGGED');
like(error_of('view', '{"id": 1, "version": 9}'), qr/42809: table public.base is unlogged/, 'an unlogged table below a view');
query('ALTER TABLE base SET LOGGED');
query(<<'SQL');
CREATE TABLE witness (who name);
GRANT INSERT ON witness TO PUBLIC;
SET ROLE other;
CREATE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.witness VALUES (current_user); RETURN NEW; END $$;
RESET ROLE;
CREATE TRIGGER others BEFORE INSERT OR UPDATE ON base FOR EACH ROW EXECUTE FUNCTION others();
SQL
like(error_of('view', '{"id": 1, "version": 9}'), qr/42501: trigger "others" of table public.base would run function public.others\(\) of role other with the rights of role app/,
	q{a stranger's trigger below a view});
query('DROP TRIGGER others ON base; ALTER TABLE base OWNER TO other; GRANT ALL ON base TO app');
like(error_of('view', '{"id": 1, "version": 9}'), qr/42501: table public.base below view public.outer_view belongs to role other, whose code would run with the rights of role app/,
	q{a stranger's table below a view});
query('ALTER TABLE base OWNER TO postgres');
is(query(q{SELECT module.batch('view', 'plain', '{"id": 1, "version": 9}'); SELECT v FROM base WHERE k = 1}), "applied\n9", 'a table of a role that may do as much anyway');
is(query('SELECT count(*) FROM witness'), '0', 'no code of a stranger has run');

# A change below the view makes the plan outdated.
is(query(<<'SQL'), "plan outdated\napplied", 'the plan knows what is below the view');
SELECT module.make_plan('view') AS plan \gset
ALTER TABLE base ADD another int;
SELECT array_to_string(module.apply(:plan, 'plain', ARRAY['{"id": 1, "version": 10}']::bytea[], 0), '');
SELECT module.batch('view', 'plain', '{"id": 1, "version": 10}');
SQL

$node->stop;
done_testing();

# A column may be any SQL expression over the record, and a filter any condition; what they
# yield is what PostgreSQL yields for the same expression over the same jsonb.
#
# Broken when a decoded field in place of value->'a'->>'b' has another value than the
# operators give; when an expression is more than one expression, or runs with another role's
# rights; when an error does not say where in the text it is; when an expression blames the
# wrong record, or is not evaluated for a record that another one supersedes, or is twice for
# a row; when a record
# that the filter leaves out is evaluated or not counted; or when a plan outlives what it
# depends on.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use JSON::PP ();
use SpineTest;
use Test::More;

my $module = "$FindBin::RealBin/../../build/test_records.so";
my $broker = start_broker('sales', 1);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The error of a statement that must fail.
sub error_of
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stdout => \$out, stderr => \$err, on_error_stop => 0);
	return $err;
}

query(<<SQL);
SELECT spine_pause('orders');
CREATE SCHEMA module;
CREATE FUNCTION module.make_plan(name) RETURNS int STRICT LANGUAGE c AS '$module', 'test_make_plan';
CREATE FUNCTION module.free_plan(int) RETURNS void STRICT LANGUAGE c AS '$module', 'test_free_plan';
CREATE FUNCTION module.apply(int, text, bytea[], int) RETURNS text[] STRICT LANGUAGE c AS '$module', 'test_apply';
CREATE FUNCTION module.apply_all(plan int, how text, records text[]) RETURNS SETOF text LANGUAGE sql
AS \$\$
	SELECT unnest(module.apply(plan, how, array_agg(convert_to(r, 'UTF8') ORDER BY i), 0))
	FROM unnest(records) WITH ORDINALITY AS u(r, i);
\$\$;

-- the plan of a pipeline with one sink that is not kept; its worker never sees it
CREATE FUNCTION module.plan(target regclass, columns jsonb, filter text DEFAULT NULL, mode text DEFAULT 'append',
	key name[] DEFAULT NULL, version name DEFAULT NULL) RETURNS int LANGUAGE plpgsql
AS \$\$
BEGIN
	INSERT INTO spine_pipelines (name, topic) VALUES ('tried', 'none');
	INSERT INTO spine_sinks (pipeline, target, mode, key, version, columns, filter)
	VALUES ('tried', target, mode, key, version, columns, filter);
	RETURN module.make_plan('tried');
END
\$\$;
SQL

# What becomes of records in a sink that is rolled back, and then what a query says.
sub try_records
{
	my ($arguments, $records, $then, $how) = @_;
	my $array = join ', ', map { my $r = $_; $r =~ s/'/''/g; "E'" . $r =~ s/\\/\\\\/gr . "'" } @$records;

	return query(sprintf(<<'SQL', $arguments, $how // 'search', $array, $then // 'SELECT'));
BEGIN;
SELECT module.plan(%s) AS plan \gset
SELECT module.apply_all(:plan, '%s', ARRAY[%s]::text[]);
%s;
SELECT module.free_plan(:plan) \gset
ROLLBACK;
SQL
}

# The error of a text as the source of column n, an integer, or as a filter.
sub error_in
{
	my ($text, $is_filter) = @_;
	my $arguments = $is_filter ? "'t', NULL, \$q\$$text\$q\$" :
	  "'t', jsonb_build_object('n', jsonb_build_object('sql', \$q\$$text\$q\$))";

	return error_of("BEGIN; SELECT module.plan($arguments); ROLLBACK;");
}

query('CREATE TABLE t (id int, n int, name text, doc jsonb, at timestamptz, amount numeric(10, 2))');

#
# The record as a row
#
is(try_records(<<'ARGS', ['{"id": 1, "price": "1250", "who": {"name": "Zo\u00eb"}, "at": "2026-01-02 03:04"}'], 'TABLE t'), <<'ROWS' =~ s/\n$//r, 'columns from SQL');
't', '{"id": {"sql": "(value->>''id'')::int"}, "n": {"sql": "partition + \"offset\""},
	"name": {"sql": "upper(value->''who''->>''name'') || '' in '' || topic"},
	"doc": {"sql": "jsonb_build_object(''key'', key, ''headers'', headers, ''bytes'', length(value_bytes), ''key bytes'', key_bytes)"},
	"at": {"sql": "\"timestamp\""}, "amount": {"sql": "(value->>''price'')::numeric / 100"}}'
ARGS
applied
1|7|ZOË in made here|{"key": "key 0", "bytes": 81, "headers": {}, "key bytes": "\\x6b65792030"}|2026-01-01 00:00:00.123+00|12.50
ROWS

#
# Constant chains are decoded fields, with the values that PostgreSQL gives
#
my @chains = (
	q{value->>'a'}, q{value->'a'}, q{value->'a'->>'b'}, q{value->'a'->'b'->>'c'}, q{value->'a'->'b'},
	q{value#>>'{a,b}'}, q{value#>'{a,b}'}, q{value#>>'{a,0}'}, q{value#>'{b,c,a}'},
	q{value->'a'->0}, q{value->'a'->>0}, q{value->'a'->1->>'b'}, q{value->'a'->0->0}, q{value->'b'->0->'a'},
	q{value->'a'->(-1)}, q{value->'b'->>2}, q{value->'a'->'0'}, q{value->>''}, q{value->'é'->>'b'}, q{value->'a'->>NULL},
	q{value->>'b' || (value->>'a')}, q{(SELECT value->'b'->>'a')}, q{value});

srand($ENV{SPINE_TEST_SEED} // time);
sub some { return $_[ int rand @_ ] }

# JSON that is nested at most so deep, with few keys, so that the chains meet something.
sub random_json
{
	my ($depth) = @_;
	my $kind = rand;

	if ($depth > 0 && $kind < 0.6)
	{
		return '{' . join(some(',', ' , '),
			map { '"' . some('a', 'a', 'b', 'b', 'c', '0', '', '\u00e9', '\u0061') . '":' . random_json($depth - 1) } 1 .. int rand 4) . '}'
		  if $kind < 0.4;
		return '[' . join(', ', map { random_json($depth - 1) } 1 .. int rand 4) . ']';
	}
	return some('null', 'true', 'false', '0', '-0', '1', '1.50', '-0.0', '1e2', '1E-3', '12345678901234567890.10',
		'"x"', '""', '"q\"\\\\u"', '"\u00e9\ud83d\ude00"', '"1"', '" a "', '-1.5e+3', '100000000000000000000000');
}

my @documents = map {
	'{' . join(',', map { '"' . some('a', 'b', '\u00e9', '', 'a') . '":' . random_json(4) } 1 .. 1 + int rand 4) . '}'
} 1 .. 1000;
my @numbers = (0 .. $#chains);
my $chain_columns = JSON::PP->new->canonical->encode(
	{ doc => { sql => 'value' }, map { ("c$_" => { sql => $chains[$_] }) } @numbers });
query('CREATE TABLE chained (doc jsonb, '
	  . join(', ', map { "c$_ " . ($chains[$_] =~ /->>|#>>/ ? 'text' : 'jsonb') } @numbers) . ')');
my $differences = join ' || ', map {
	sprintf q{coalesce(string_agg(format('%%s of %%s is %%L and not %%L; ', $c$%2$s$c$, doc, c%1$d, e%1$d), '') FILTER (WHERE c%1$d::text IS DISTINCT FROM e%1$d::text), '')}, $_, $chains[$_]
} @numbers;
my $expected = join ', ', map { "$chains[$_] AS e$_" } @numbers;
is( try_records("'chained', \$q\$$chain_columns\$q\$", \@documents,
		"SELECT count(*), $differences FROM chained, LATERAL (SELECT doc AS value) v, LATERAL (SELECT $expected) e"),
	"applied\n" x 1000 . '1000|', 'chains have the values that PostgreSQL gives, in 1,000 random documents');

query(<<'SQL');
INSERT INTO spine_pipelines (name, topic, enabled) VALUES ('chained', 'none', false);
INSERT INTO spine_sinks (pipeline, target, mode, columns, filter)
VALUES ('chained', 't', 'append', '{"id": {"sql": "(value->''a''->0->>''it''''s'')::int + length(value#>>''{b,c}'')"},
	"doc": {"sql": "value || to_jsonb(key->>''k'')"}, "name": "name"}', 'value->>''type'' = ''sale''');
SQL
is(query(q{SELECT * FROM spine_explain('chained')}), <<'TEXT' =~ s/\n$//r, 'spine_explain says what is decoded, and what needs jsonb of all of the record');
sink public.t: append, as role postgres
  filter: value->>'type' = 'sale'
   takes value->>'type'
  column doc: value || to_jsonb(key->>'k')
   takes key->>'k'
   makes jsonb of value
  column id: (value->'a'->0->>'it''s')::int + length(value#>>'{b,c}')
   takes value->'a'->0->>'it''s', value->'b'->>'c'
  column name: from name
  rows: as COPY writes them; by the statement if one is refused
  statement: INSERT INTO public.t AS t (doc, id, name) SELECT u.c0, u.c1, u.c2 FROM spine_rows AS u
TEXT

#
# What is refused, and where in the text
#
# [text, sqlstate, message, what begins at the position]
my @refused = (
	[ ' ', '42601', 'there is no SQL expression', undef ],
	[ '1 +', '42601', 'syntax error at end of input', '' ],
	[ '1, 2', '42601', 'more than one SQL expression', '2' ],
	[ '*', '42601', 'more than one SQL expression', '*' ],
	[ 'record.*', '42601', 'more than one SQL expression', 'record' ],
	[ '1 AS one', '42601', 'has no name', '1 AS' ],
	[ '1) FROM pg_class--', '42601', 'syntax error at or near ")"', ') FROM' ],
	[ '1; DROP TABLE t', '42601', 'syntax error at or near ";"', '; DROP' ],
	[ '1 FROM pg_class', '42601', 'nothing of a query', 'pg_class' ],
	[ '1 WHERE true', '42601', 'nothing of a query', 'true' ],
	[ '1 ORDER BY 2', '42601', 'nothing of a query', '2' ],
	[ '1 LIMIT 3', '42601', 'nothing of a query', '3' ],
	[ 'DISTINCT 1', '42601', 'nothing of a query', undef ],
	[ '1 UNION SELECT 2', '42601', 'syntax error', 'UNION' ],
	[ '1 INTO t', '42601', 'syntax error', 'INTO' ],
	[ '$1', '42P02', 'no parameter $1', '$1' ],
	[ '/* a comment */ value->>x', '42703', 'column "x" does not exist', 'x' ],
	[ 'op', '42703', 'column "op" does not exist', 'op' ],
	[ 'ctid', '42703', 'column "ctid" does not exist', 'ctid' ],
	[ '1 + half(2)', '42883', 'function half(integer) does not exist', 'half' ],
	[ '(SELECT n FROM t)', '42P01', 'relation "t" does not exist', 't)' ],
	[ q{'x'::mood}, '42704', 'type "mood" does not exist', 'mood' ],
	[ q{value->>'a'}, '42804', 'column "n" is of type integer but expression is of type text', 'value' ],
	[ q{'one'}, '22P02', 'invalid input syntax for type integer', q{'one'} ],
	[ '1 + count(*)', '42803', 'aggregate functions are not allowed', 'count' ],
	[ '1 + row_number() OVER ()', '42P20', 'window functions are not allowed', 'row_number' ],
	[ '1 + generate_series(1, 2)', '0A000', 'set-returning functions are not allowed', 'generate_series' ],
	[ 'length(record::text)', '0A000', 'cannot be used as a whole', 'record' ],
	[ '(SELECT length(record::text))', '0A000', 'cannot be used as a whole', 'record' ],
	[ '(SELECT r.partition FROM record r LIMIT 1)', '0A000', 'cannot read from the record', undef ],
	[ '1 / 0', '22012', 'division by zero', undef ]);

foreach my $refused (@refused)
{
	my ($text, $sqlstate, $message, $begins) = @$refused;
	my $error = error_in($text);

	like($error, qr/ERROR:  $sqlstate: .*\Q$message\E.*SQL expression of column "n"/s, "refused: \"$text\"") or next;
	next unless defined $begins;
	$error =~ /^LINE 1: (.*)\n( *)\^/m or next, fail("... without a position: $error");
	is(substr($1, length($2) - length('LINE 1: '), length $begins), $begins, '... with the position');
}
like(error_in('half(1)'), qr/HINT:  .*search_path is empty/, 'a hint says why an unqualified name is not found');
like(error_in('ofset'), qr/HINT:  A record has the columns topic, partition, "offset", "timestamp", key, value, headers, key_bytes and value_bytes\./, 'a hint has the columns');
like(error_in('1', 1), qr/ERROR:  42804: argument of filter must be type boolean, not type integer\n.*filter of a sink/s, 'a filter is boolean');
like(error_in('(SELECT bool_and(true) FROM pg_class) AND value', 1), qr/ERROR:  42804: argument of AND must be type boolean.*LINE 1: .* AND value/s, 'a filter is one expression');
is(try_records(q{'t', '{"n": {"sql": "1 -- a comment"}, "id": {"sql": "/* ; */ 2"}}'}, ['{}'], 'SELECT id, n FROM t'), "applied\n2|1", 'comments are no harm');

#
# Which record is to blame
#
is(try_records(q{'t', '{"amount": {"sql": "10 / (value->>''by'')::int"}, "id": "id"}'},
		[ '{"by": "5", "id": 1}', '{"by": "0", "id": 2}', '{"by": "x", "id": 3}', '{"by": "2", "id": "x"}', '{"by": 1, "id": 5}' ],
		'SELECT id, amount FROM t ORDER BY id'), <<'ROWS' =~ s/\n$//r, 'only the records that an expression does not take are dead letters');
applied
22012 division by zero COLUMN: amount
22P02 invalid input syntax for type integer: "x" COLUMN: amount
22P02 invalid input syntax for type integer: "x"
applied
1|2.00
5|10.00
ROWS
is(try_records(q{'t', '{"n": {"sql": "(value->>''n'')::int"}}', '(value->>''ok'')::boolean'},
		[ '{"n": 1, "ok": true}', '{"n": "x", "ok": false}', '{"n": "y"}', '{"n": 4, "ok": "?"}', '{"n": 5, "ok": "yes"}' ],
		'SELECT n FROM t ORDER BY n'), <<'ROWS' =~ s/\n$//r, 'a record that the filter leaves out is not evaluated');
applied
applied
applied
22P02 invalid input syntax for type boolean: "?" COLUMN: (filter)
applied
1
5
ROWS
query(<<'SQL');
CREATE TABLE latest (id text PRIMARY KEY, version int, n int NOT NULL);
CREATE DOMAIN small AS int CHECK (VALUE < 10);
CREATE TABLE limited (n small, code varchar(3));
SQL
my $latest = q{'latest', '{"id": {"sql": "lower(value->>''id'')"}, "version": {"sql": "(value->>''v'')::int"}, "n": {"sql": "10 / (value->>''n'')::int"}}', %s, 'upsert', '{id}', 'version'};
is(try_records(sprintf($latest, 'NULL'),
		[ '{"id": "A", "v": 1, "n": 0}', '{"id": "a", "v": 3, "n": 2}', '{"id": "a", "v": 2, "n": 1}', '{"v": 4, "n": 1}', '{"id": "b", "n": 1}' ],
		'TABLE latest'), <<'ROWS' =~ s/\n$//r, 'as key and version: rows are reduced by them, and a record that is superseded is evaluated');
22012 division by zero
applied
applied
23502 null value in key column "id"
23502 null value in version column "version"
a|3|5
ROWS
is(try_records(sprintf($latest, q{'value->>''v'' <> ''3'''}),
		[ '{"id": "A", "v": 1, "n": 1}', '{"id": "a", "v": 3, "n": 0}', '{"id": "a", "v": 2, "n": 2}' ],
		'TABLE latest', 'plain'), "applied\napplied\napplied\na|2|5", 'what the filter leaves out supersedes nothing');
is(try_records(q{'limited', '{"n": {"sql": "(value->>''n'')::int"}, "code": {"sql": "value->>''code''"}}'},
		[ '{"n": 9, "code": "abc"}', '{"n": 10, "code": "abc"}', '{"n": 1, "code": "abcd"}' ], 'TABLE limited'),
	<<'ROWS' =~ s/\n$//r, 'values are cast as INSERT casts them, and domains checked');
applied
23514 value for domain public.small violates check constraint "small_check"
22001 value too long for type character varying(3) COLUMN: code
9|abc
ROWS

#
# Lookups
#
query(<<'SQL');
CREATE TABLE product (code text PRIMARY KEY, value int, price numeric);
INSERT INTO product VALUES ('p1', 7, 1.50), ('p2', 8, 2.00);
CREATE VIEW cheap AS SELECT * FROM product WHERE price < 2;
CREATE SCHEMA shop;
CREATE FUNCTION shop.half(numeric) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT $1 / 2';
SQL
is(try_records(q{'t', '{"id": {"sql": "(value->>''id'')::int"}, "n": {"sql": "(SELECT p.value FROM public.cheap p WHERE p.code = record.value->>''p'')"},
		"amount": {"sql": "(SELECT sum((l->>''n'')::int * p.price) FROM pg_catalog.jsonb_array_elements(record.value->''lines'') l LEFT JOIN public.product p ON p.code = l->>''p'')"}}',
		'EXISTS (SELECT FROM public.product p WHERE p.code = record.value->>''p'')'},
		[ '{"id": 1, "p": "p1", "lines": [{"p": "p1", "n": 2}, {"p": "p2", "n": 1}]}', '{"id": 2, "p": "p2"}', '{"id": 3, "p": "p3"}' ],
		'SELECT id, n, amount FROM t ORDER BY id'), "applied\napplied\napplied\n1|7|5.00\n2||", 'a lookup in tables and views, and one in the record itself');

# a sink sees what the sinks before it have written, also while refused records are looked for
query(<<'SQL');
CREATE TABLE parent (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, code text UNIQUE);
CREATE TABLE child (parent int, line int, PRIMARY KEY (parent, line));
SQL
is(query(<<'SQL'), <<'ROWS' =~ s/\n$//r, 'a lookup of a row that an earlier sink has written for the same record');
BEGIN;
SELECT module.plan('parent', '{"code": "code"}', NULL, 'append', '{code}') AS plan \gset
SELECT module.free_plan(:plan) \gset
INSERT INTO spine_sinks (pipeline, target, mode, key, columns) VALUES ('tried', 'child', 'append', '{parent,line}',
	'{"parent": {"sql": "(SELECT p.id FROM public.parent p WHERE p.code = record.value->>''code'')"}, "line": "line"}');
SELECT module.make_plan('tried') AS plan \gset
SELECT module.apply_all(:plan, 'search', ARRAY['{"code": "x", "line": 1}', '{"code": "x", "line": "?"}', '{"code": "y", "line": 1}']);
SELECT code, line FROM parent JOIN child ON parent = id ORDER BY 1, 2;
SELECT module.free_plan(:plan) \gset
ROLLBACK;
SQL
applied
22P02 invalid input syntax for type integer: "?" COLUMN: line
applied
x|1
y|1
ROWS

# ... as is what fails when such a row is not there, in a sub-SELECT or in a function; what a
# function writes is written once for each record, and not at all for one that is refused
query(<<'SQL');
CREATE DOMAIN reference AS int NOT NULL;
CREATE TABLE strict_child (parent reference, line int);
CREATE TABLE found_child (parent int, line int CHECK (line < 9));
CREATE TABLE journal (line text);
CREATE FUNCTION parent_of(text) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
	found int;
BEGIN
	SELECT id INTO STRICT found FROM public.parent WHERE code = $1;
	RETURN found;
END
$$;
CREATE FUNCTION note(text) RETURNS text LANGUAGE sql AS 'INSERT INTO public.journal VALUES ($1) RETURNING line';
SQL
is(query(<<'SQL') =~ s/ DETAIL.*//r, <<'ROWS' =~ s/\n$//r, 'a good record survives the search, and is computed once');
BEGIN;
SELECT module.plan('parent', '{"code": "code"}', NULL, 'append', '{code}') AS plan \gset
SELECT module.free_plan(:plan) \gset
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES
	('tried', 'strict_child', 'append', '{"line": "line", "parent": {"sql": "(SELECT p.id FROM public.parent p WHERE p.code = record.value->>''code'')"}}'),
	('tried', 'found_child', 'append', '{"line": {"sql": "public.note(value->>''line'')::int"}, "parent": {"sql": "public.parent_of(value->>''code'')"}}');
SELECT module.make_plan('tried') AS plan \gset
SELECT module.apply_all(:plan, 'search', ARRAY['{"code": "v", "line": "?"}', '{"code": "w", "line": 1}', '{"code": "x", "line": 9}', '{"code": "y", "line": 2}']);
SELECT code, s.line, f.line FROM parent p JOIN strict_child s ON s.parent = p.id JOIN found_child f ON f.parent = p.id ORDER BY 1;
SELECT * FROM journal ORDER BY 1;
SELECT module.free_plan(:plan) \gset
ROLLBACK;
SQL
22P02 invalid input syntax for type integer: "?" COLUMN: line
applied
23514 new row for relation "found_child" violates check constraint "found_child_line_check"
applied
w|1|1
y|2|2
1
2
ROWS

#
# In a worker
#
query(<<'SQL');
CREATE ROLE ingest;
CREATE TABLE sale (id int PRIMARY KEY, price numeric, half numeric);
CREATE TABLE refund (id int PRIMARY KEY);
ALTER TABLE sale OWNER TO ingest;
ALTER TABLE refund OWNER TO ingest;
GRANT USAGE ON SCHEMA shop TO ingest;
BEGIN;
INSERT INTO spine_pipelines (name, topic, owner) VALUES ('sales', 'sales', 'ingest');
INSERT INTO spine_sinks (pipeline, target, mode, key, columns, filter) VALUES
	('sales', 'sale', 'append', '{id}', '{"id": "id",
		"price": {"sql": "(SELECT p.price FROM public.product p WHERE p.code = record.value->>''p'')"},
		"half": {"sql": "shop.half((value->>''n'')::numeric)"}}', 'value->>''type'' = ''sale'''),
	('sales', 'refund', 'append', '{id}', '{"id": "id"}', 'value->>''type'' = ''refund''');
COMMIT;
SQL
my $id = 0;

sub send_sales
{
	my ($code, @types) = @_;

	send_lines($broker->{address}, 'sales', 0, join '', map {
			sprintf qq(k\t{"id": %d, "type": "%s", "p": "%s", "n": 3}\n), ++$id, $_, $code
	} @types);
	return;
}

# Waits until the pipeline has failed for this reason, does something about it, and waits
# until all is applied.
sub fails_until
{
	my ($what, $reason, $remedy) = @_;

	comes_to($node, $what, "SELECT bool_or(state = 'failed' AND last_error LIKE '$reason') FROM spine_status WHERE pipeline = 'sales'");
	query($remedy);
	ok(wait_applied($node), '... and goes on when that is mended');
	return;
}

send_sales('p1', 'sale', 'refund', 'sale', 'other');
fails_until('a role without rights on the table of a lookup', 'permission denied for table product%',
	'GRANT SELECT ON product TO ingest');
is(query('SELECT id, price, trunc(half, 1) FROM sale ORDER BY 1'), "1|1.50|1.5\n3|1.50|1.5", 'a filter lets some records pass to its sink');
is(query('SELECT * FROM refund'), '2', '... and another filter others to its own');
is(query(q{SELECT value FROM spine_metrics WHERE metric = 'spine_filtered_total' AND labels->>'pipeline' = 'sales'}), '5', '... and what they leave out is counted');
is(query('SELECT count(*) FROM spine_dead_letters'), '0', '... and no dead letter');

query(q{UPDATE product SET price = 1.75 WHERE code = 'p1'});
send_sales('p1', 'sale');
wait_applied($node);
is(query("SELECT price FROM sale WHERE id = $id"), '1.75', 'a row that is looked up may change');

query('ALTER TABLE product ADD COLUMN added int; DROP VIEW cheap; ALTER TABLE product ALTER COLUMN price TYPE numeric(10, 3)');
send_sales('p1', 'sale');
wait_applied($node);
is(query("SELECT price FROM sale WHERE id = $id"), '1.750', '... and so may its table');

query(q{CREATE OR REPLACE FUNCTION shop.half(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT trunc($1 / 2)'});
send_sales('p1', 'sale');
wait_applied($node);
is(query("SELECT half FROM sale WHERE id = $id"), '1', '... and a function');

query('DROP FUNCTION shop.half(numeric)');
send_sales('p1', 'sale');
fails_until('a function that was dropped', 'function shop.half(numeric) does not exist%At character 1 of: shop.half(%',
	q{CREATE FUNCTION shop.half(numeric) RETURNS numeric LANGUAGE sql AS 'SELECT $1 / 4'});
is(query("SELECT trunc(half, 2) FROM sale WHERE id = $id"), '0.75', '... with the new function');

query('ALTER TABLE product RENAME TO goods');
send_sales('p2', 'sale');
fails_until('a table of a lookup that is gone', 'relation "public.product" does not exist%',
	'ALTER TABLE goods RENAME TO product');
is(query("SELECT price FROM sale WHERE id = $id"), '2.000', '... with the table again');
query(<<'SQL');
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM FROM nothing; END';
CREATE TRIGGER broken BEFORE INSERT ON sale FOR EACH ROW EXECUTE FUNCTION broken();
SQL
send_sales('p1', 'other', 'sale', 'other');
fails_until('a fault of the table, although records pass that the filters leave out', 'relation "nothing" does not exist%', 'DROP TRIGGER broken ON sale');
is(query('SELECT count(*) FROM spine_dead_letters'), '0', 'no record was blamed for any of that');

#
# Whose rights
#
query('CREATE ROLE other LOGIN; CREATE ROLE member LOGIN IN ROLE ingest');
like(error_of(q{SET ROLE other; SELECT spine_explain('sales')}), qr/42501: must be a member of role "ingest" to explain pipeline "sales"/, 'spine_explain is for members of the owner');
unlike(error_of(q{SET ROLE member; SELECT spine_explain('sales')}), qr/ERROR/, '... and for each of them');
query('GRANT EXECUTE ON FUNCTION spine_create_pipeline TO ingest');
like(error_of(qq{SET ROLE ingest; SELECT spine_create_pipeline('nosy', 'x', 'sale', columns => '{"id": "id", "price": {"sql": "$_->[0]"}}')}),
	qr/42501: permission denied for $_->[1]/, "refused at once: $_->[0]")
  foreach [ '(SELECT id FROM public.parent)', 'table parent' ], [ q{pg_catalog.length(pg_catalog.pg_read_file(''x''))}, 'function pg_read_file' ];

done_testing();

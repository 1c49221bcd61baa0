# Upsert sinks write their rows without a statement, where it would do nothing else than write
# them.  The table is the same afterwards, and so are the counts, what triggers have seen and
# what is refused, as if ON CONFLICT DO UPDATE had run.
#
# Broken when a row is written that is older or the same, or one is not that is newer; when a row
# misses a default, a generated value, a check or an index entry; when a trigger does not see what
# it should; when a role needs more rights than for the statement, or fewer; when a row that
# another transaction is about to write is lost, written twice, or not waited for; or when a table
# that only the planner knows how to write is written directly.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SPINE_TEST_SEED} // time;
srand $seed;
note "SPINE_TEST_SEED=$seed";

my $module = "$FindBin::RealBin/../../build/test_records.so";
my $node = spine_node('main', conf => "spine.enabled = off\n");	# no worker reads the pipelines

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

query(<<SQL);
CREATE EXTENSION btree_gist;
CREATE SCHEMA module;
CREATE FUNCTION module.make_plan(name) RETURNS int STRICT LANGUAGE c AS '$module', 'test_make_plan';
CREATE FUNCTION module.apply(int, text, bytea[], int) RETURNS text[] STRICT LANGUAGE c AS '$module', 'test_apply';
CREATE FUNCTION module.apply_pieces(int, bytea[], int[]) RETURNS text STRICT LANGUAGE c AS '$module', 'test_apply_pieces';
CREATE FUNCTION module.bytes(records text[]) RETURNS bytea[] LANGUAGE sql
AS \$\$ SELECT array_agg(convert_to(r, 'UTF8') ORDER BY i) FROM unnest(records) WITH ORDINALITY AS u(r, i) \$\$;
CREATE FUNCTION module.counts(plan int, records text[]) RETURNS text LANGUAGE sql
AS \$\$ SELECT array_to_string((string_to_array(module.apply_pieces(plan, module.bytes(records), ARRAY[cardinality(records)]), ' '))[1:2], ' ') \$\$;
CREATE FUNCTION module.search(plan int, records text[]) RETURNS text LANGUAGE sql
AS \$\$ SELECT array_to_string(module.apply(plan, 'search', module.bytes(records), 0), E'\\n') \$\$;
SQL

my $npipelines = 0;

sub is_direct
{
	my ($pipeline) = @_;

	return query("SELECT count(*) FROM spine_explain('$pipeline') AS line WHERE line LIKE '%rows: written without the statement%'");
}

sub records_sql
{
	return 'ARRAY[' . join(', ', map { "\$r\$$_\$r\$" } @_) . ']::text[]';
}

# Applies the records as a worker does: "upserts unchanged", or the error and what the search for
# the refused records says of each.
sub apply
{
	my ($pipeline, @records) = @_;
	my $sql = records_sql(@records);
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT module.counts(module.make_plan('$pipeline'), $sql)");

	return $out if $status == 0;
	($err) = $err =~ /ERROR:  (.*(?:\nDETAIL: .*)?)/;
	($status, $out) = $node->psql('postgres', "SELECT module.search(module.make_plan('$pipeline'), $sql)");
	return "$err\n" . ($status == 0 ? $out : 'not found');
}

# The same tables are made in two schemas by the same SQL ("SCHEMA" is the schema's name).  A rule
# that does nothing makes upserts into the second take the statement.  Returns the schemas.
sub twins
{
	my (%test) = @_;
	my @names = map { "w$npipelines" . $_ } 'a', 'b';

	$npipelines++;
	foreach my $name (@names)
	{
		query(join ';', "CREATE SCHEMA $name", $test{tables} =~ s/SCHEMA/$name/gr);
		query("CREATE RULE by_statement AS ON DELETE TO $name.t WHERE false DO ALSO NOTHING") if $name eq $names[1] && !$test{statement};
		make_pipeline($node, name => $name, topic => 'none', target => "$name.t", mode => 'upsert', %test{qw(key version columns owner)});
	}
	return @names;
}

# Batches of records become the same in both.  Returns what became of them, and the rows.
sub same
{
	my ($what, %test) = @_;
	my @names = twins(%test);
	my (@outcomes, @rows);

	foreach my $name (@names)
	{
		my $rows = $test{rows} // 'SELECT * FROM SCHEMA.t ORDER BY 1';

		push @outcomes, join("\n--\n", map { apply($name, @$_) } @{ $test{batches} }) =~ s/$name\b/SCHEMA/gr;
		push @rows, query($rows =~ s/SCHEMA/$name/gr) =~ s/$name\b/SCHEMA/gr;
	}
	is(join(' ', map { is_direct($_) } @names), $test{statement} ? '0 0' : '1 0', "$what: " . ($test{statement} ? 'by the statement' : 'without the statement'));
	is($outcomes[0], $outcomes[1], "$what: the same becomes of the records");
	is($rows[0], $rows[1], "$what: the same rows");
	return wantarray ? ($outcomes[0], $rows[0]) : $outcomes[0];
}

sub any_of
{
	return $_[ rand @_ ];
}

# Records of keys 1 to 40.  Versions grow from batch to batch, but overlap; some records are sent
# twice, and some rows do not change.  Fields: name => function that makes its value.
sub batches
{
	my (%fields) = @_;
	my @batches;

	foreach my $batch (1 .. 4)
	{
		my @records = map {
			my $k = 1 + int rand 40;
			'{' . join(', ', "\"k\": $k", map { "\"$_\": " . $fields{$_}->($k, $batch) } sort keys %fields) . '}'
		} 1 .. 60;

		push @batches, \@records, [ @records[ 0 .. 20 ] ];
	}
	return \@batches;
}

my $version = sub { $_[1] * 3 + int rand 6 };
my $v = sub { any_of('null', '"x"', '"y"', '"' . 'long ' x rand(20) . '"') };

#
# Versions and keys
#
foreach my $type ('int', 'bigint', 'timestamptz', 'timestamp')
{
	my $make = $type =~ /int/ ? $version : sub { '"2026-01-01 00:00:' . sprintf('%02d', $version->(@_)) . '"' };
	my $last = $type =~ /int/ ? 1000 : 'infinity';
	my ($outcome) = same("version $type", version => 'version', batches => batches(version => $make, v => $v), tables => <<SQL);
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, version $type);
INSERT INTO SCHEMA.t SELECT k, 'old', NULL FROM generate_series(1, 10) k;
INSERT INTO SCHEMA.t SELECT k, 'new', '$last' FROM generate_series(11, 15) k;
SQL
	unlike($outcome, qr/ERROR|^0 /, '... and rows are written');
}
same('no version', batches => batches(v => $v), tables => 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text)');
is(scalar same('one row', version => 'version', batches => [ map { ["{\"k\": 1, \"v\": \"$_->[0]\", \"version\": $_->[1]}"] } [ 'a', 5 ], [ 'b', 4 ], [ 'a', 5 ], [ 'b', 5 ], [ 'c', 6 ], [ 'b', 5 ] ],
	tables => 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, version int)'), join("\n--\n", '1 0', '0 1', '0 1', '1 0', '1 0', '0 1'), '... is written as its version says');
foreach my $key ([ 'bigint', sub { $_[0] * 1e10 } ], [ 'text', sub { "\"$_[0]\"" } ], [ 'varchar(20)', sub { "\"$_[0]\"" } ], [ 'bool', sub { $_[0] % 2 ? 'true' : 'false' } ],
	[ 'uuid', sub { sprintf '"%032d"', $_[0] } ], [ 'timestamptz', sub { sprintf '"2026-01-01 00:00:%02d+00"', $_[0] } ], [ 'text COLLATE "C"', sub { "\"$_[0]\"" } ])
{
	same("key $key->[0]", key => '{id}', columns => '{"id": "id", "v": "v"}', batches => batches(id => $key->[1], v => $v), rows => 'SELECT * FROM SCHEMA.t ORDER BY id', tables => "CREATE TABLE SCHEMA.t (v text, id $key->[0] UNIQUE)");
}
same('two keys, in an index in another order, with more columns', key => '{k, id}', version => 'version', batches => batches(id => sub { "\"" . int(rand 3) . "\"" }, v => $v, version => $version),
	rows => 'SELECT * FROM SCHEMA.t ORDER BY k, id', tables => <<'SQL');
CREATE TABLE SCHEMA.t (v text, id text, version int, k int);
CREATE UNIQUE INDEX ON SCHEMA.t (id DESC, k) INCLUDE (v);
SQL
like(scalar same('nothing but the key', batches => batches(), tables => 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, other int DEFAULT 5)', columns => '{"k": "k"}'), qr/^\d+ 0\n.*--\n0 \d+/s, '... is inserted once');

#
# Columns
#
same('defaults, generated and identity columns, dropped ones', version => 'version', key => '{k}', columns => '{"k": "k", "v": "v", "version": "version", "id": "k", "b": "b"}',
	batches => batches(version => $version, v => $v, b => sub { any_of(1, 2.5, 'null') }), tables => <<'SQL');
CREATE DOMAIN SCHEMA.short AS varchar(5) DEFAULT 'dflt' CHECK (value <> 'no');
CREATE TABLE SCHEMA.t (k int UNIQUE, gone int, v text, g text GENERATED ALWAYS AS (coalesce(v, 'none') || k) STORED, kk int GENERATED ALWAYS AS (k * 2) STORED, gone_too text DEFAULT 'x',
	id int GENERATED ALWAYS AS IDENTITY, number int GENERATED BY DEFAULT AS IDENTITY, serial serial, version int, d SCHEMA.short, n int NOT NULL DEFAULT 7, b numeric(6, 2),
	CHECK (n > 0), CHECK (g <> kk::text));
INSERT INTO SCHEMA.t (k, v, gone, gone_too) SELECT k, 'old', 1, 'there' FROM generate_series(1, 10) k;
ALTER TABLE SCHEMA.t DROP gone, DROP gone_too, ADD added text DEFAULT 'added';
SQL
my ($outcome, $rows) = same('columns that no record has', version => 'version', rows => 'SELECT * FROM SCHEMA.t ORDER BY k',
	batches => [ [ map { "{\"k\": $_, \"version\": 1}" } 1 .. 5 ], [ map { "{\"k\": $_, \"version\": 2, \"v\": \"v\", \"n\": 2}" } 1 .. 5 ], [ map { "{\"k\": $_, \"version\": 3, \"n\": 3}" } 3 .. 8 ] ],
	tables => q{CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text DEFAULT 'dflt', n int NOT NULL DEFAULT 7, version int); CREATE INDEX ON SCHEMA.t (v)});
is($rows, "1|v|2|2\n2|v|2|2\n3|v|3|3\n4|v|3|3\n5|v|3|3\n6|dflt|3|3\n7|dflt|3|3\n8|dflt|3|3", '... stay as they are, or take the default');
same('values of other types', version => 'version', tables => <<'SQL', batches => batches(
CREATE TYPE SCHEMA.pair AS (a int, b text);
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, version int, n numeric, j jsonb, i int[], f float8, d date, b bytea, c char(8), w bit(4), p SCHEMA.pair, o jsonb);
SQL
	version => sub { $_[1] }, n => sub { any_of('1.0', '1.00', '"NaN"', 'null') }, j => sub { any_of('{"a": 1}', '{"a": 1.0}', 'null') }, i => sub { any_of('[1, 2]', '[1]', 'null') },
	f => sub { any_of('0.0', '-0.0', '1.5') }, d => sub { any_of('"2026-01-01"', 'null') }, b => sub { any_of('"\\\\x00ff"', 'null') }, c => sub { any_of('"a"', '"b"') }, w => sub { any_of('"1010"', '"1000"') }, p => sub { any_of('{"a": 1, "b": "x"}', 'null') }, o => sub { '{"fixed": [1, "two"]}' }));
my $large = sub { my ($k) = @_; any_of('"' . join('', map { chr 97 + $_ * $k % 23 } 1 .. 9000 + int rand 2) . '"', '"' . 'x' x 30000 . '"', 'null') };
same('large values', version => 'version', batches => batches(version => sub { $_[1] }, v => $large, w => $large, u => sub { '"' . $_[0] x 20000 . '"' }), rows => 'SELECT k, version, md5(u), md5(v), md5(w), kept FROM SCHEMA.t ORDER BY k', tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, version int, u text, v text, w text, kept text DEFAULT repeat('kept', 3000));
ALTER TABLE SCHEMA.t ALTER v SET STORAGE EXTERNAL, ALTER u SET STORAGE EXTERNAL, ALTER kept SET STORAGE EXTERNAL;
SQL

#
# Indexes
#
same('indexes', version => 'version', batches => batches(version => $version, v => $v, n => sub { int rand 100 }), tables => <<'SQL', rows => <<'SQL');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, n int, version int) WITH (fillfactor = 30);
CREATE INDEX ON SCHEMA.t ((n + k));
CREATE INDEX ON SCHEMA.t (n) WHERE v = 'x';
CREATE UNIQUE INDEX ON SCHEMA.t (n, k);
CREATE UNIQUE INDEX ON SCHEMA.t ((k % 1000));
CREATE UNIQUE INDEX ON SCHEMA.t (k) WHERE n > 0;
CREATE INDEX ON SCHEMA.t USING brin (n);
CREATE INDEX ON SCHEMA.t USING gist (n);
SQL
SELECT * FROM SCHEMA.t ORDER BY k;
SET enable_seqscan = off; SET enable_sort = off;
SELECT n + k, k FROM SCHEMA.t ORDER BY n + k, k;
SELECT k FROM SCHEMA.t WHERE v = 'x' AND n >= 0 ORDER BY n, k;
SELECT n, k FROM SCHEMA.t ORDER BY n, k;
SELECT count(*) FROM SCHEMA.t WHERE n BETWEEN 20 AND 60;
SQL

#
# Refusals
#
($outcome) = same('what is refused', version => 'version', tables => <<'SQL', batches => [
CREATE TABLE SCHEMA.parents (id int PRIMARY KEY);
INSERT INTO SCHEMA.parents VALUES (1);
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, version int, other int UNIQUE, c int CHECK (c > 0), needed int NOT NULL, parent int REFERENCES SCHEMA.parents, late int UNIQUE DEFERRABLE,
	room int, during int4range, EXCLUDE USING gist (room WITH =, during WITH &&), g int GENERATED ALWAYS AS (100 / c) STORED);
SQL
		map { [ map { '{"needed": 1, "version": 1, ' . $_ . '}' } @$_ ] }
		  [ map { "\"k\": $_, \"other\": $_, \"c\": 5, \"late\": $_, \"parent\": 1, \"room\": $_, \"during\": \"[1,3)\"" } 1 .. 9 ],
		[ '"k": 20, "other": 3, "c": 5, "late": 20, "parent": null, "room": null, "during": null', '"k": 21, "other": 21, "c": 5, "late": 21, "parent": null, "room": null, "during": null' ],	# another key's
		[ map { '"k": 4, "other": 5, "c": 5, "late": 4, "parent": 1, "room": 4, "during": null, "version": ' . $_ } 2, 0 ],
		[ '"k": 5, "other": 5, "c": -5, "late": 5, "parent": 1, "room": 5, "during": null, "version": 2' ],	# a check
		[ '"k": 5, "other": 5, "c": -5, "late": 5, "parent": 1, "room": 5, "during": null, "version": 0' ],	# ... of a row that is older
		[ '"k": 5, "other": 5, "c": 0, "late": 5, "parent": 1, "room": 5, "during": null, "version": 0' ],	# ... that cannot be computed
		[ '"k": 6, "other": 6, "c": 1, "late": 6, "parent": 1, "room": 6, "during": null, "needed": null, "version": 0' ],
		[ '"k": 7, "other": 7, "c": 1, "late": 7, "parent": 99, "room": 7, "during": null, "version": 3' ],
		[ '"k": 30, "other": 30, "c": 1, "late": 30, "parent": 99, "room": 7, "during": null, "version": 3' ],
		[ '"k": 8, "other": 8, "c": 1, "late": 7, "parent": 1, "room": 8, "during": null, "version": 3' ],
		[ '"k": 9, "other": 9, "c": 1, "late": 9, "parent": 1, "room": 8, "during": "[2,4)", "version": 3', '"k": 31, "other": 31, "c": 1, "late": 31, "parent": 1, "room": 8, "during": "[2,4)", "version": 3' ] ]);
is(join(' ', $outcome =~ /^(\d[0-9A-Z]{4}|\d+ \d+|applied)\b/mg), '9 0 23505 23505 applied 23505 23505 applied 23514 23514 23514 23514 22012 22012 23502 23502 23503 23503 23503 23503 23505 23505 23P01 23P01 23P01',
	'... each for its reason');
like(scalar same('a row that a trigger of the statement writes', batches => [ ['{"k": 1, "v": "a"}'] ], tables => <<'SQL'), qr/^21000: /, '... is not written twice');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text);
CREATE FUNCTION SCHEMA.quick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF pg_trigger_depth() = 1 THEN INSERT INTO SCHEMA.t VALUES (1, 'quick'); END IF; RETURN NULL; END $$;
CREATE TRIGGER quick BEFORE INSERT ON SCHEMA.t EXECUTE FUNCTION SCHEMA.quick();
SQL

#
# Triggers and foreign keys
#
my $log = <<'SQL';
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, version int, g int GENERATED ALWAYS AS (k + version) STORED);
CREATE TABLE SCHEMA.log (n serial, what text);
CREATE FUNCTION SCHEMA.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO SCHEMA.log (what) VALUES (concat_ws(' ', TG_NAME, TG_WHEN, TG_OP, CASE TG_LEVEL WHEN 'ROW' THEN OLD::text || ' to ' END, CASE TG_LEVEL WHEN 'ROW' THEN NEW::text END,
		'of', (SELECT count(*) FROM SCHEMA.t)));
	RETURN NULL;
END $$;
CREATE FUNCTION SCHEMA.note_inserts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO SCHEMA.log (what) SELECT concat_ws(' ', TG_NAME, TG_OP, a) FROM added a; RETURN NULL; END $$;
CREATE FUNCTION SCHEMA.note_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO SCHEMA.log (what) SELECT concat_ws(' ', TG_NAME, TG_OP, o, n) FROM old_rows o JOIN new_rows n USING (k); RETURN NULL; END $$;
SQL
my %triggers = (
	'AFTER ROW triggers' => [ 'a AFTER INSERT OR UPDATE', 'FOR EACH ROW EXECUTE FUNCTION SCHEMA.note()' ],
	'conditions' => [ 'b AFTER UPDATE', "FOR EACH ROW WHEN (OLD.v IS DISTINCT FROM NEW.v AND NEW.g > 5) EXECUTE FUNCTION SCHEMA.note()" ],
	'columns that are set' => [ 'c AFTER UPDATE OF v, k', 'FOR EACH ROW EXECUTE FUNCTION SCHEMA.note()' ],
	'columns that are not set' => [ 'd AFTER UPDATE OF k', 'FOR EACH ROW EXECUTE FUNCTION SCHEMA.note()' ],
	'statement triggers' => [ 'e BEFORE INSERT OR UPDATE', 'EXECUTE FUNCTION SCHEMA.note()' ],
	'statement triggers for columns that are not set' => [ 'f BEFORE UPDATE OF k', 'EXECUTE FUNCTION SCHEMA.note()' ],
	'later statement triggers' => [ 'g AFTER INSERT OR UPDATE', 'EXECUTE FUNCTION SCHEMA.note()' ],
	'transition tables of inserts' => [ 'h AFTER INSERT', 'REFERENCING NEW TABLE AS added EXECUTE FUNCTION SCHEMA.note_inserts()' ],
	'transition tables of updates' => [ 'i AFTER UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows EXECUTE FUNCTION SCHEMA.note_updates()' ],
	'transition tables of rows' => [ 'j AFTER UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH ROW WHEN (NEW.k = 3) EXECUTE FUNCTION SCHEMA.note_updates()' ]);
my @triggers = map { "CREATE TRIGGER $triggers{$_}[0] ON SCHEMA.t $triggers{$_}[1];" } sort keys %triggers;
my %seen = (batches => batches(version => $version, v => $v), version => 'version', rows => 'SELECT * FROM SCHEMA.t ORDER BY k; SELECT * FROM SCHEMA.log ORDER BY n');

same((sort keys %triggers)[$_], %seen, tables => $log . $triggers[$_]) foreach 0 .. $#triggers;
(undef, $rows) = same('all triggers', %seen, tables => $log . "@triggers");
like($rows, qr/\|$_ /, "... of which $_ has been fired") foreach qw(a b c e g h i j);
(undef, $rows) = same('all triggers of rows that are left out or inserted only', tables => $log =~ s/, g int.*STORED//r . "@triggers" =~ s/ AND NEW.g > 5//r, rows => $seen{rows}, batches => [ [ map { "{\"k\": $_, \"version\": 1}" } 1 .. 4 ], [ map { "{\"k\": $_, \"v\": \"$_\", \"version\": 1}" } 3 .. 6 ] ]);

same('foreign keys to the table', version => 'version', batches => batches(version => $version, v => $v, other => sub { $_[0] }), tables => <<'SQL', rows => 'SELECT * FROM SCHEMA.t ORDER BY k; SELECT * FROM SCHEMA.children ORDER BY k');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, version int, other int UNIQUE);
INSERT INTO SCHEMA.t SELECT k, 'x', NULL, k FROM generate_series(1, 30) k;
CREATE TABLE SCHEMA.children (k int REFERENCES SCHEMA.t, other int REFERENCES SCHEMA.t (other));
INSERT INTO SCHEMA.children SELECT k, k FROM generate_series(1, 30) k;
SQL
($outcome) = same('a row that another table refers to', batches => [ ['{"k": 1, "other": 2}'] ], tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, other int UNIQUE);
INSERT INTO SCHEMA.t VALUES (1, 1);
CREATE TABLE SCHEMA.children (other int REFERENCES SCHEMA.t (other));
INSERT INTO SCHEMA.children VALUES (1);
SQL
like($outcome, qr/^23503: .*\n.*\n23503 /, '... is not changed');

#
# Other tables
#
same('a partition', version => 'version', batches => [ @{ batches(version => $version, v => $v) }, ['{"k": 1000, "version": 1, "v": "x"}'] ], tables => <<'SQL');
CREATE TABLE SCHEMA.root (k int, v text, version int) PARTITION BY RANGE (k);
CREATE TABLE SCHEMA.t PARTITION OF SCHEMA.root FOR VALUES FROM (0) TO (100);
ALTER TABLE SCHEMA.t ADD PRIMARY KEY (k);
SQL
same('a table with children', version => 'version', batches => batches(version => $version, v => $v), tables => <<'SQL', rows => 'SELECT tableoid::regclass, * FROM SCHEMA.t ORDER BY k, 1');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, version int);
CREATE TABLE SCHEMA.child (k int PRIMARY KEY) INHERITS (SCHEMA.t);
INSERT INTO SCHEMA.child VALUES (1, 'child', 100);
SQL
my %by_statement = (
	'a partitioned table' => 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text) PARTITION BY RANGE (k); CREATE TABLE SCHEMA.p PARTITION OF SCHEMA.t DEFAULT',
	'a view' => 'CREATE TABLE SCHEMA.below (k int PRIMARY KEY, v text); CREATE VIEW SCHEMA.t AS SELECT k, v FROM SCHEMA.below',
	'two indexes on the key' => 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text); CREATE UNIQUE INDEX ON SCHEMA.t (k)',
	'a nondeterministic collation' => q{CREATE COLLATION SCHEMA.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE SCHEMA.t (k text COLLATE SCHEMA.ci PRIMARY KEY, v text)},
	map { ("a trigger BEFORE $_ of a row" => "CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text); CREATE FUNCTION SCHEMA.f() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN NEW.v := 'changed'; RETURN NEW; END \$\$;
		CREATE TRIGGER f BEFORE $_ ON SCHEMA.t FOR EACH ROW EXECUTE FUNCTION SCHEMA.f()") } 'INSERT', 'UPDATE');
same($_, statement => 1, key => '{k}', tables => $by_statement{$_}, batches => batches(v => $v)) foreach sort keys %by_statement;
query('CREATE ROLE clerk; GRANT USAGE ON SCHEMA public TO clerk');
($outcome) = same('row security', statement => 1, batches => batches(v => $v), tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text);
ALTER TABLE SCHEMA.t OWNER TO clerk;
ALTER TABLE SCHEMA.t ENABLE ROW LEVEL SECURITY;
ALTER TABLE SCHEMA.t FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON SCHEMA.t USING (k < 30);
GRANT USAGE ON schema SCHEMA TO clerk;
SQL
like($outcome, qr/42501 new row violates row-level security policy/, '... refuses what it always has');

#
# Rights
#
query('CREATE ROLE writer; GRANT USAGE ON SCHEMA public, module TO writer');
my @twins = twins(owner => 'writer', version => 'version', columns => '{"k": "k", "version": "version", "v": "v"}', tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, unread int, v text, version int, n int DEFAULT 1);
GRANT USAGE ON schema SCHEMA TO writer;
SQL
my @rights = ('INSERT (k)', 'INSERT (v)', 'INSERT (version)', 'UPDATE (v)', 'UPDATE (version)', 'SELECT (k)', 'SELECT (v)', 'SELECT (version)');
my $number = 0;

foreach my $revoked (undef, @rights)
{
	my @outcomes;

	$number++;
	foreach my $name (@twins)
	{
		query(join ';', map { "GRANT $_ ON $name.t TO writer" } @rights);
		query("REVOKE $revoked ON $name.t FROM writer") if $revoked;
		push @outcomes, join "\n--\n", map { apply($name, $_) =~ s/$name\b/SCHEMA/gr } "{\"k\": $number, \"v\": \"a\", \"version\": 1}", "{\"k\": $number, \"version\": 1}";
	}
	is($outcomes[0], $outcomes[1], ($revoked // 'nothing') . ' is revoked: as the statement says');
	like($outcomes[0], $revoked ? qr/^42501: permission denied for table t/ : qr/^1 0\n--\n0 1$/, '... which is right');
}
is(join(' ', map { is_direct($_) } @twins), '1 0', 'this was without the statement');
query('CREATE SCHEMA own; GRANT USAGE ON SCHEMA own TO writer; CREATE TABLE own.t (k int PRIMARY KEY, v text); GRANT INSERT (k), SELECT (k) ON own.t TO writer');
make_pipeline($node, name => 'own', topic => 'none', target => 'own.t', mode => 'upsert', owner => 'writer', columns => '{"k": "k"}');
is(apply('own', '{"k": 1}') . ', ' . apply('own', '{"k": 1}'), '1 0, 0 1', 'a role that may only insert and see the key does so');

#
# Other sessions
#
# The record comes while another transaction has written its key, and is not yet over.
my @others = (
	[ 'an insert', 2, q{INSERT INTO SCHEMA.t VALUES (2, 'other', 5)} ],
	[ 'an update', 1, q{UPDATE SCHEMA.t SET v = 'other', version = 5 WHERE k = 1} ],
	[ 'a delete', 1, q{DELETE FROM SCHEMA.t WHERE k = 1} ],
	[ 'a delete and an insert', 1, q{DELETE FROM SCHEMA.t WHERE k = 1; INSERT INTO SCHEMA.t VALUES (1, 'other', 5)} ],
	[ 'another key', 1, q{UPDATE SCHEMA.t SET k = 7 WHERE k = 1} ],
	[ 'a lock', 1, q{SELECT FROM SCHEMA.t WHERE k = 1 FOR UPDATE} ]);

sub wait_for_lock
{
	return $node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%module.counts%'}) || die 'nobody waits';
}

my $psql = [ 'psql', '-XAtq', '-d', $node->connstr('postgres') ];
my $holder = $node->background_psql('postgres');

@twins = twins(version => 'version', tables => 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, version int)');
foreach my $other (@others)
{
	my ($what, $k, $sql) = @$other;

	foreach my $end ('COMMIT', 'ROLLBACK')
	{
		foreach my $version (4, 6)
		{
			my @outcomes;

			foreach my $name (@twins)
			{
				my ($out, $err) = ('', '');
				my $applying;

				query("TRUNCATE $name.t; INSERT INTO $name.t VALUES (1, 'old', 3)");
				$holder->query_safe('BEGIN; ' . $sql =~ s/SCHEMA/$name/gr);
				$applying = start([ @$psql, '-c', "SELECT module.counts(module.make_plan('$name'), " . records_sql("{\"k\": $k, \"v\": \"mine\", \"version\": $version}") . ')' ], '>', \$out, '2>', \$err);
				wait_for_lock();
				$holder->query_safe($end);
				$applying->finish;
				push @outcomes, $out . $err . query("SELECT * FROM $name.t ORDER BY k");
			}
			is($outcomes[0], $outcomes[1], "after $what and $end, with version $version");
			like($outcomes[0], qr/mine/, '... the row is written') if $version == 6;
		}
	}
}
query("INSERT INTO $twins[0].t VALUES (1, 'old', 3) ON CONFLICT DO NOTHING; CREATE TABLE children (k int REFERENCES $twins[0].t)");
$holder->query_safe('BEGIN; INSERT INTO children VALUES (1)');
is(apply($twins[0], '{"k": 1, "v": "mine", "version": 100}'), '1 0', 'a transaction that refers to the row does not hold the upsert up');
$holder->query_safe('ROLLBACK');

# While it waits, it may be cancelled, and holds no page.
query('TRUNCATE ' . join(', ', map { "$_.t" } @twins) . ', children');
$holder->query_safe("BEGIN; INSERT INTO $twins[0].t VALUES (1, 'other', 5)");
my ($status, undef, $err) = $node->psql('postgres', "SET lock_timeout = 100; SELECT module.counts(module.make_plan('$twins[0]'), " . records_sql('{"k": 1, "v": "mine", "version": 6}') . ')');
like($err, qr/canceling statement due to lock timeout/, 'the wait for another transaction may time out');
$holder->query_safe('ROLLBACK');
$holder->quit;

# Four sessions write the same new keys.
my @processes;
my %newest;

foreach my $session (1 .. 4)
{
	my $script = "SELECT module.make_plan('$twins[0]') AS plan \\gset\n";

	foreach my $batch (0 .. 59)
	{
		my @records = map {
			my $k = $batch * 5 + int rand 20;
			my $number = int rand 1000;

			$newest{$k} = $number if $number > ($newest{$k} // -1);
			"{\"k\": $k, \"v\": \"v$number\", \"version\": $number}"
		} 1 .. 20;

		$script .= 'SELECT module.counts(:plan, ' . records_sql(@records) . ");\n";
	}
	push @processes, { out => '', err => '' };
	$processes[-1]{run} = start([@$psql], '<', \$script, '>', \$processes[-1]{out}, '2>', \$processes[-1]{err});
}
$_->{run}->finish foreach @processes;
is(join('', map { $_->{err} } @processes), '', 'sessions that write the same keys do not fail');
is(query("SELECT k, version, v FROM $twins[0].t ORDER BY k"), join("\n", map { "$_|$newest{$_}|v$newest{$_}" } sort { $a <=> $b } keys %newest), '... and leave the newest row of each');
is(query("SET enable_seqscan = off; SELECT count(*) FROM $twins[0].t WHERE k >= 0"), scalar keys %newest, '... once');

$node->stop;
done_testing();

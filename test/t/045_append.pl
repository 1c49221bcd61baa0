# Append sinks write their rows the way COPY does, without a statement.  The table is the same
# afterwards, and so is what its triggers have seen, as if the sink's statement had run.
#
# Broken when a row misses a default, a constraint, an index entry or its partition; when a
# trigger does not see the rows that it should; when a table that only the planner knows how to
# write (a view, rules, row security) is written directly; or when a batch that is refused, held
# up or killed half-way leaves rows behind.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $module = "$FindBin::RealBin/../../build/test_records.so";
my $broker = start_broker('rows', 1);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.batch_interval = '200ms'		# what is sent at once is one batch
restart_after_crash = on
spine.enabled = off					# no worker reads the pipelines, at first
CONF

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
CREATE FUNCTION module.batch(pipeline name, how text, records jsonb) RETURNS text LANGUAGE sql
AS \$\$
	SELECT array_to_string(module.apply(module.make_plan(pipeline), how,
		(SELECT array_agg(convert_to(r::text, 'UTF8') ORDER BY i) FROM jsonb_array_elements(records) WITH ORDINALITY AS u(r, i)), 0), E'\\n')
\$\$;
SQL

my $npipelines = 0;

# Is the sink's table written without the statement?
sub is_direct
{
	my ($pipeline) = @_;

	return query("SELECT count(*) FROM spine_explain('$pipeline') AS line WHERE line LIKE '%as COPY%'");
}

# In two schemas, the same tables are made by the same SQL ("SCHEMA" is the schema's name).
# The records go into the one as they always do, and into the other by the statement.  "rows"
# is what must be the same afterwards.  Returns these rows, or what became of the records.
sub same
{
	my ($what, %test) = @_;
	my $how = $test{how} // 'plain';
	my (@outcome, @rows, @direct);

	foreach my $way ($how, 'search')
	{
		my $name = 'w' . $npipelines++;

		query(join ';', "CREATE SCHEMA $name", $test{tables} =~ s/SCHEMA/$name/gr);
		make_pipeline($node, name => $name, topic => 'none', target => "$name.t", mode => 'append', key => $test{key},
			columns => $test{columns});
		push @direct, is_direct($name);
		push @outcome, query("SELECT module.batch('$name', '$way', \$r\$$test{records}\$r\$)") =~ s/$name/SCHEMA/gr;
		push @rows, query($test{rows} =~ s/SCHEMA/$name/gr) =~ s/$name\b/SCHEMA/gr;
	}
	is($direct[0], $test{statement} ? 0 : 1, "$what: " . ($test{statement} ? 'by the statement' : 'as COPY'));
	is($outcome[0], $outcome[1], "$what: the same becomes of the records");
	is($rows[0], $rows[1], "$what: the same rows");
	return wantarray ? ($rows[0], $outcome[0]) : $rows[0];
}

#
# Values, defaults and generated columns
#
is(same('values', tables => <<'SQL', records => <<'JSON', columns => q({"id": "id", "a": "a", "b": "b", "d": "d", "n": "n", "p": {"sql": "value->>'a'"}}), rows => 'SELECT * FROM SCHEMA.t ORDER BY id'), <<'ROWS' =~ s/\n$//r, '... which are these');
CREATE DOMAIN SCHEMA.short AS varchar(5) DEFAULT 'dflt' CHECK (value <> 'no');
CREATE TABLE SCHEMA.t (gone int, id int GENERATED ALWAYS AS IDENTITY, a text, b numeric(6, 2) DEFAULT 1.005, gone_too text,
	d SCHEMA.short, n int NOT NULL DEFAULT 7, p text, serial serial, unnamed SCHEMA.short,
	g text GENERATED ALWAYS AS (upper(a) || n) STORED, applied timestamptz DEFAULT now());
ALTER TABLE SCHEMA.t DROP gone, DROP gone_too;
ALTER TABLE SCHEMA.t ALTER applied SET DEFAULT '2026-01-01 00:00+00';
SQL
[{"id": 11, "a": "x", "b": 1.239, "d": "abc", "n": 1}, {"id": 12}, {"id": 13, "a": null, "b": null, "d": null, "n": 2},
 {"id": 14, "a": "y"}, {"a": "numbered"}]
JSON
1|numbered|1.01|dflt|7|numbered|5|dflt|NUMBERED7|2026-01-01 00:00:00+00
11|x|1.24|abc|1|x|1|dflt|X1|2026-01-01 00:00:00+00
12||1.01|dflt|7||2|dflt||2026-01-01 00:00:00+00
13||||2||3|dflt||2026-01-01 00:00:00+00
14|y|1.01|dflt|7|y|4|dflt|Y7|2026-01-01 00:00:00+00
ROWS

my ($rows, $outcome) = same('a domain that refuses null', how => 'plain, then search', tables => <<'SQL', records => <<'JSON', rows => 'SELECT * FROM SCHEMA.t');
CREATE DOMAIN SCHEMA.needed AS int NOT NULL;
CREATE TABLE SCHEMA.t (a int, b SCHEMA.needed);
SQL
[{"a": 1, "b": 1}, {"a": 2}]
JSON
like($outcome, qr/^applied\n23502 domain SCHEMA.needed does not allow null values/, '... refuses what has no value');
($rows, $outcome) = same('such a domain that no record gives', how => 'plain, then search', tables => <<'SQL', columns => '{"a": "a"}', records => <<'JSON', rows => 'SELECT * FROM SCHEMA.t');
CREATE DOMAIN SCHEMA.given AS int CHECK (value IS NOT NULL);
CREATE DOMAIN SCHEMA.checked AS int CHECK (value > 0);
CREATE TABLE SCHEMA.t (a SCHEMA.checked, b SCHEMA.given);
SQL
[{"a": 1}, {"a": 0}]
JSON
like($outcome, qr/^23514 value for domain SCHEMA.given/, '... refuses every row');

query(<<'SQL');
CREATE DOMAIN word AS text DEFAULT 'old';
CREATE TABLE worded (a int, w word);
INSERT INTO spine_pipelines (name, topic) VALUES ('worded', 'none');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('worded', 'worded', 'append', '{"a": "a"}');
SQL
(undef, my $applied) = $node->psql('postgres', <<'SQL');
SELECT module.make_plan('worded');
SELECT module.apply(0, 'plain', ARRAY['{"a": 1}'::bytea], 0);
ALTER DOMAIN word SET DEFAULT 'new';
SELECT module.apply(0, 'plain', ARRAY['{"a": 2}'::bytea], 0);
SQL
is($applied, "0\n{applied}\n{\"plan outdated\"}", 'the plan is outdated by a change of the default of a domain of a column that no record gives');

same('large values', tables => 'CREATE TABLE SCHEMA.t (id int PRIMARY KEY, a text, b jsonb); ALTER TABLE SCHEMA.t ALTER a SET STORAGE EXTERNAL',
	records => '[' . join(',', map { sprintf '{"id": %d, "a": "%s", "b": {"c": "%s"}}', $_, $_ x (40_000 / length), 'x' x (300 * $_) } 1 .. 30) . ']',
	rows => 'SELECT id, length(a), md5(a), md5(b::text), (SELECT pg_relation_size(reltoastrelid) > 1000000 FROM pg_class WHERE oid = tableoid) FROM SCHEMA.t ORDER BY id');
same('more rows than a buffer takes', tables => 'CREATE TABLE SCHEMA.t (id int PRIMARY KEY, a int UNIQUE); CREATE INDEX ON SCHEMA.t ((id + a)) WHERE a % 2 = 0',
	key => '{id}', records => '[' . join(',', map { sprintf '{"id": %d, "a": %d}', $_, 5000 - $_ } 1 .. 3333) . ']',
	rows => 'SET enable_seqscan = off; SELECT count(*), sum(id), sum(a) FROM SCHEMA.t; SELECT id FROM SCHEMA.t WHERE a = 3001; SELECT count(*) FROM SCHEMA.t WHERE id + a = 5000 AND a % 2 = 0');

#
# Partitions
#
my $filler = join ',', map { sprintf '{"k": %d, "day": "2026-0%d-10", "v": "v%d"}', $_, 1 + $_ % 6, $_ } 1 .. 1200;

same('partitions', tables => <<'SQL', key => '{k, day}', records => "[$filler]", rows => "SELECT replace(tableoid::regclass::text, 'SCHEMA', ''), count(*), sum(k), min(v), max(v), min(g) FROM SCHEMA.t GROUP BY tableoid ORDER BY 1");
CREATE TABLE SCHEMA.t (k int, gone int, day date, v text, g text GENERATED ALWAYS AS (v || '!') STORED, PRIMARY KEY (day, k)) PARTITION BY RANGE (day);
ALTER TABLE SCHEMA.t DROP gone;
CREATE TABLE SCHEMA.jan PARTITION OF SCHEMA.t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE SCHEMA.feb (v text, gone text, day date NOT NULL, k int NOT NULL, g text GENERATED ALWAYS AS (v || '!') STORED);
ALTER TABLE SCHEMA.feb DROP gone;
ALTER TABLE SCHEMA.t ATTACH PARTITION SCHEMA.feb FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE SCHEMA.mar PARTITION OF SCHEMA.t FOR VALUES FROM ('2026-03-01') TO ('2026-04-01') PARTITION BY HASH (k);
CREATE TABLE SCHEMA.mar_0 PARTITION OF SCHEMA.mar FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE SCHEMA.mar_1 PARTITION OF SCHEMA.mar FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE SCHEMA.apr (day date NOT NULL, g text GENERATED ALWAYS AS (v || '!') STORED, k int NOT NULL, v text, PRIMARY KEY (day, k)) PARTITION BY RANGE (k);
ALTER TABLE SCHEMA.t ATTACH PARTITION SCHEMA.apr FOR VALUES FROM ('2026-04-01') TO ('2026-05-01');
CREATE TABLE SCHEMA.apr_low PARTITION OF SCHEMA.apr FOR VALUES FROM (0) TO (100);
CREATE TABLE SCHEMA.apr_high PARTITION OF SCHEMA.apr DEFAULT;
CREATE TABLE SCHEMA.other PARTITION OF SCHEMA.t DEFAULT;
SQL
same('many partitions', tables => 'CREATE TABLE SCHEMA.t (k int, day date, v text) PARTITION BY LIST (k);'
	  . join(';', map { "CREATE TABLE SCHEMA.t_$_ PARTITION OF SCHEMA.t FOR VALUES IN ($_)" } 0 .. 99),
	records => '[' . join(',', map { sprintf '{"k": %d, "v": "v%d"}', $_ * 7 % 100, $_ } 1 .. 2500) . ']',
	rows => 'SELECT tableoid::regclass, count(*), sum(k), min(v), max(v) FROM SCHEMA.t GROUP BY 1 ORDER BY sum(k)');
($rows, $outcome) = same('no partition for a row', how => 'plain, then search', tables => <<'SQL', records => '[{"k": 1}, {"k": 2}, {"k": 1}]', rows => 'SELECT * FROM SCHEMA.t');
CREATE TABLE SCHEMA.t (k int) PARTITION BY LIST (k);
CREATE TABLE SCHEMA.one PARTITION OF SCHEMA.t FOR VALUES IN (1);
SQL
like($outcome, qr/^applied\n23514 no partition of relation "t" found for row.*\napplied$/, '... is that row\'s fault');
($rows, $outcome) = same('a partition as the target', how => 'plain, then search', tables => <<'SQL', records => '[{"k": 1}, {"k": 2}, {"k": 1}]', rows => 'SELECT * FROM SCHEMA.root');
CREATE TABLE SCHEMA.root (k int) PARTITION BY LIST (k);
CREATE TABLE SCHEMA.t PARTITION OF SCHEMA.root FOR VALUES IN (1);
SQL
like($outcome, qr/^applied\n23514 new row for relation "t" violates partition constraint.*\napplied$/, '... does not take the rows of others');

#
# Constraints: the record to blame becomes a dead letter, with the error that it always had
#
($rows, $outcome) = same('constraints', how => 'plain, then search', tables => <<'SQL', records => <<'JSON', key => '{k}', rows => 'SELECT * FROM SCHEMA.t ORDER BY k');
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE TABLE SCHEMA.parents (id int PRIMARY KEY);
INSERT INTO SCHEMA.parents SELECT generate_series(1, 20);
CREATE TABLE SCHEMA.t (k int PRIMARY KEY, parent int REFERENCES SCHEMA.parents, later int REFERENCES SCHEMA.parents DEFERRABLE INITIALLY DEFERRED,
	a int NOT NULL, c int CHECK (c > 0) CHECK (c < g), g int GENERATED ALWAYS AS (a * 10) STORED,
	room int, during int4range, EXCLUDE USING gist (room WITH =, during WITH &&), late int UNIQUE DEFERRABLE INITIALLY DEFERRED, late_excluded int,
	CONSTRAINT late_excluded EXCLUDE USING gist (late_excluded WITH =) DEFERRABLE INITIALLY DEFERRED);
SQL
[{"k": 1, "a": 1, "c": 5, "parent": 1, "later": 2, "room": 1, "during": "[1,3)", "late": 1, "late_excluded": 1},
 {"k": 2, "a": 1, "c": 10}, {"k": 3, "a": 1, "c": 0}, {"k": 4}, {"k": 5, "a": 1, "parent": 99}, {"k": 6, "a": 1, "later": 99},
 {"k": 7, "a": 1, "room": 1, "during": "[2,4)"}, {"k": 8, "a": 1, "late": 1}, {"k": 9, "a": 1, "late_excluded": 1},
 {"k": 10, "a": 1, "c": 5, "parent": 10, "later": 20, "room": 1, "during": "[3,4)", "late": 2, "late_excluded": 2}, {"k": 1, "a": 1}, {"a": 1}]
JSON
is(join(' ', map { substr $_, 0, 5 } split /\n/, $outcome), 'appli 23514 23514 23502 23503 23503 23P01 23505 23P01 appli appli 23502', '... each for its reason');
same('the same rows again', how => 'plain, then search', key => '{k}', records => '[{"k": 1, "v": 2}, {"k": 2, "v": 2}, {"k": 2, "v": 3}]',
	tables => 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v int); INSERT INTO SCHEMA.t VALUES (1, 1)', rows => 'SELECT * FROM SCHEMA.t ORDER BY k');

#
# Triggers
#
my $log = <<'SQL';
CREATE TABLE SCHEMA.log (n serial, what text);
CREATE FUNCTION SCHEMA.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO SCHEMA.log (what) VALUES (concat_ws(' ', TG_NAME, TG_TABLE_NAME, TG_WHEN, TG_LEVEL, CASE TG_LEVEL WHEN 'ROW' THEN NEW::text END,
		'of', (SELECT count(*) FROM SCHEMA.t)));
	RETURN NEW;
END $$;
CREATE FUNCTION SCHEMA.note_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO SCHEMA.log (what) SELECT concat_ws(' ', TG_NAME, TG_TABLE_NAME, count(*), min(concat(k, v)), max(concat(k, v))) FROM added;
	RETURN NULL;
END $$;
CREATE FUNCTION SCHEMA.change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.k = 3 THEN RETURN NULL; END IF;
	NEW.v := coalesce(NEW.v, '') || ' of ' || (SELECT count(*) FROM SCHEMA.t);
	RETURN NEW;
END $$;
SQL
my @statement_triggers = map { "CREATE TRIGGER $_->[0] $_->[1] ON SCHEMA.t $_->[2]" }
  [ 'a', 'BEFORE INSERT', 'EXECUTE FUNCTION SCHEMA.note()' ],
  [ 'b', 'AFTER INSERT', 'EXECUTE FUNCTION SCHEMA.note()' ],
  [ 'c', 'AFTER INSERT', 'REFERENCING NEW TABLE AS added EXECUTE FUNCTION SCHEMA.note_all()' ];
my $each_row = 'CREATE TRIGGER d AFTER INSERT ON SCHEMA.t FOR EACH ROW WHEN (NEW.k <> 4) EXECUTE FUNCTION SCHEMA.note()';
my $change = 'BEFORE INSERT ON SCHEMA.t FOR EACH ROW EXECUTE FUNCTION SCHEMA.change()';
my $plain = 'CREATE TABLE SCHEMA.t (k int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (k * 2) STORED)';
my $parted = join ';', 'CREATE TABLE SCHEMA.t (k int, v text, g int GENERATED ALWAYS AS (k * 2) STORED) PARTITION BY RANGE (k)',
  'CREATE TABLE SCHEMA.low (g int GENERATED ALWAYS AS (k * 2) STORED, gone int, v text, k int)', 'ALTER TABLE SCHEMA.low DROP gone',
  'ALTER TABLE SCHEMA.t ATTACH PARTITION SCHEMA.low FOR VALUES FROM (1) TO (4)', 'CREATE TABLE SCHEMA.high PARTITION OF SCHEMA.t DEFAULT';
my $few = '[' . join(',', map { qq({"k": $_, "v": "v$_"}) } 5, 1, 4, 2, 6, 3) . ']';
my $all = 'SELECT * FROM SCHEMA.log ORDER BY n; SELECT tableoid::regclass, * FROM SCHEMA.t ORDER BY k';

foreach my $kind ([ 'a table', $plain ], [ 'a partitioned table', $parted ])
{
	my ($name, $table) = @$kind;

	like(same("$name with AFTER triggers", tables => join(';', $table, $log, @statement_triggers, $each_row), records => $few, rows => $all),
		qr/^1\|a t BEFORE STATEMENT of 0\n2\|d \w+ AFTER ROW \(.*\) of 6\n.*\|c t 6 1v1 6v6\n/s, '... which see all rows, once');
	same("$name with AFTER ROW triggers", tables => join(';', $table, $log, $each_row), records => $few, rows => $all);
	like(same("$name with a BEFORE ROW trigger", tables => join(';', $table, $log, @statement_triggers, $each_row, "CREATE TRIGGER e $change"), records => $few, rows => $all),
		qr/\|6\|v6 of 4\|12$/, '... which sees the rows before its own');
}
like(same('a BEFORE ROW trigger of one partition', tables => join(';', $parted, $log, $statement_triggers[1], 'CREATE TRIGGER e ' . $change =~ s/SCHEMA.t/SCHEMA.low/r), records => $few, rows => $all),
	qr/low\|1\|v1 of 1\|2\n.*low\|2\|v2 of 3\|4\n/, '... sees the rows before its own, in all partitions');
same('the same, with a transition table', tables => join(';', $parted, $log, @statement_triggers, 'CREATE TRIGGER e ' . $change =~ s/SCHEMA.t/SCHEMA.low/r), records => $few, rows => $all);
($rows, $outcome) = same('a BEFORE ROW trigger that moves a row', how => 'plain, then search', records => $few, rows => $all, tables => join(';', $parted, $log,
	'CREATE FUNCTION SCHEMA.move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.k := NEW.k + 1; RETURN NEW; END $$',
	'CREATE TRIGGER e BEFORE INSERT ON SCHEMA.low FOR EACH ROW EXECUTE FUNCTION SCHEMA.move()'));
like($outcome, qr/23514 new row for relation "low" violates partition constraint/, '... out of its partition');
same('a default that looks at the table', records => '[{"k": 1}, {"k": 2}, {"k": 3}]', rows => 'SELECT * FROM SCHEMA.t ORDER BY k', columns => '{"k": "k"}', tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int, seen int);
CREATE FUNCTION SCHEMA.seen() RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT count(*)::int FROM SCHEMA.t $$;
ALTER TABLE SCHEMA.t ALTER seen SET DEFAULT SCHEMA.seen();
SQL

#
# What takes the statement
#
same('a view', statement => 1, records => $few, rows => 'SELECT * FROM SCHEMA.below ORDER BY k', tables => <<'SQL');
CREATE TABLE SCHEMA.below (k int PRIMARY KEY, v text DEFAULT 'x');
CREATE VIEW SCHEMA.t AS SELECT k, v FROM SCHEMA.below WHERE k > 0 WITH CHECK OPTION;
SQL
same('rules', statement => 1, records => $few, rows => 'SELECT * FROM SCHEMA.t ORDER BY k; SELECT * FROM SCHEMA.copy ORDER BY k', tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int, v text);
CREATE TABLE SCHEMA.copy (k int, v text);
CREATE RULE also AS ON INSERT TO SCHEMA.t WHERE NEW.k > 2 DO ALSO INSERT INTO SCHEMA.copy VALUES (NEW.k, NEW.v);
SQL
query('CREATE ROLE clerk');
($rows, $outcome) = same('row security', statement => 1, how => 'plain, then search', records => $few, rows => 'SELECT * FROM SCHEMA.t ORDER BY k', tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int, v text);
ALTER TABLE SCHEMA.t OWNER TO clerk;
ALTER TABLE SCHEMA.t ENABLE ROW LEVEL SECURITY;
ALTER TABLE SCHEMA.t FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON SCHEMA.t USING (k <> 4);
GRANT USAGE ON schema SCHEMA TO clerk;
SQL
like($outcome, qr/^applied\napplied\n42501 new row violates row-level security policy/, '... refuses what it always has');
same('row security that does not apply', records => $few, rows => 'SELECT * FROM SCHEMA.t ORDER BY k', tables => <<'SQL');
CREATE TABLE SCHEMA.t (k int, v text);
ALTER TABLE SCHEMA.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON SCHEMA.t USING (k <> 4);
SQL

# Row security begins to apply to the role while a plan is in use.
query(<<'SQL');
CREATE ROLE auditor BYPASSRLS;
CREATE TABLE guarded (k int, v text);
ALTER TABLE guarded OWNER TO auditor;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON guarded USING (k <> 4);
GRANT USAGE ON SCHEMA public TO auditor;
SQL
make_pipeline($node, name => 'guarded', topic => 'none', target => 'guarded', mode => 'append');
my ($status, undef, $err) = $node->psql('postgres', <<'SQL');
SELECT module.make_plan('guarded');
SELECT module.apply(0, 'plain', ARRAY['{"k": 4}'::bytea], 0);
ALTER ROLE auditor NOBYPASSRLS;
SELECT module.apply(0, 'plain', ARRAY['{"k": 4}'::bytea], 0);
SQL
like($err, qr/new row violates row-level security policy/, 'row security applies as soon as the role is subject to it');
is(query('SELECT count(*) FROM guarded'), '1', '... and until then it does not');

#
# Foreign partitions
#
my $port = $node->port;
my $host = $node->host;
foreach my $batch_size (1, 3)
{
	same("foreign partitions, batches of $batch_size", rows => 'SELECT tableoid::regclass, * FROM SCHEMA.t ORDER BY k; SELECT * FROM SCHEMA.far ORDER BY k; SELECT what FROM SCHEMA.log ORDER BY n',
		records => '[' . join(',', map { qq({"k": $_, "v": "v$_"}) } 1 .. 20) . ']',
		tables => join ';', "CREATE EXTENSION IF NOT EXISTS postgres_fdw",
		"DO \$\$ BEGIN IF NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'loop') THEN
			CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
			CREATE USER MAPPING FOR CURRENT_USER SERVER loop;
		END IF; END \$\$",
		'CREATE TABLE SCHEMA.t (k int, v text) PARTITION BY RANGE (k)',
		'CREATE TABLE SCHEMA.near PARTITION OF SCHEMA.t FOR VALUES FROM (1) TO (5)',
		'CREATE TABLE SCHEMA.far (k int, v text)',
		"CREATE FOREIGN TABLE SCHEMA.foreign PARTITION OF SCHEMA.t FOR VALUES FROM (5) TO (100) SERVER loop OPTIONS (schema_name 'SCHEMA', table_name 'far', batch_size '$batch_size')",
		'CREATE TABLE SCHEMA.log (n serial, what text)',
		q{CREATE FUNCTION SCHEMA.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO SCHEMA.log (what) VALUES (NEW::text || TG_TABLE_NAME); RETURN NEW; END $$},
		'CREATE TRIGGER n AFTER INSERT ON SCHEMA.t FOR EACH ROW EXECUTE FUNCTION SCHEMA.note()');
}

#
# Rights
#
query(<<'SQL');
CREATE ROLE writer;
CREATE SCHEMA owned;
CREATE TABLE owned.t (a int, b int, c int DEFAULT 5);
CREATE FUNCTION owned.secret() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE ALL ON FUNCTION owned.secret() FROM PUBLIC;
GRANT USAGE ON SCHEMA owned TO writer;
GRANT INSERT (a, c) ON owned.t TO writer;
GRANT USAGE ON SCHEMA public, module TO writer;
INSERT INTO spine_pipelines (name, topic, owner) VALUES ('right', 'none', 'writer');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('right', 'owned.t', 'append', '{"a": "a"}');
SQL
is(query(q{SELECT module.batch('right', 'plain', '[{"a": 1}]'); SELECT * FROM owned.t}), "applied\n1||5", 'a role that may insert into the columns');
query('REVOKE INSERT (a) ON owned.t FROM writer');
(undef, undef, $err) = $node->psql('postgres', q{SELECT module.batch('right', 'plain', '[{"a": 1}]')});
like($err, qr/permission denied for table t/, '... and one that may not');
query('GRANT INSERT (a) ON owned.t TO writer; ALTER TABLE owned.t ALTER b SET DEFAULT owned.secret()');
(undef, undef, $err) = $node->psql('postgres', q{SELECT module.batch('right', 'plain', '[{"a": 1}]')});
like($err, qr/permission denied for function secret/, '... nor call the function of a default');

#
# By a worker: a refusal in the middle, a lock, and an end with kill -9
#
query(<<'SQL');
DELETE FROM spine_pipelines;
CREATE TABLE streamed (id int NOT NULL, v text CHECK (v <> 'bad'), seen_by int DEFAULT pg_backend_pid());
CREATE TABLE reached (id int);
CREATE FUNCTION reach() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); INSERT INTO public.reached SELECT id FROM added; RETURN NULL; END $$;
CREATE TRIGGER reach AFTER INSERT ON streamed REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION reach();
SELECT spine_create_pipeline('streamed', 'rows', 'streamed');
SQL
set_config($node, 'spine.enabled' => 'on');
is(is_direct('streamed'), 1, 'the table is written as COPY');
wait_for_state($node, 'running') or die;

sub send_rows
{
	my ($first, $last, %special) = @_;

	return send_lines($broker->{address}, 'rows', 0, join '', map { sprintf "k\t{\"id\": %d, \"v\": \"%s\"}\n", $_, $special{$_} // "v$_" } $first .. $last);
}

# Each record once, in both tables.
sub is_whole
{
	my ($last, $what) = @_;

	is(query(q{SELECT count(*), count(DISTINCT id), min(id), max(id), (SELECT count(*) FROM reached), (SELECT count(*) FROM spine_dead_letters WHERE topic = 'rows') FROM streamed}),
		join('|', $last - 1, $last - 1, 1, $last, $last - 1, 1), $what);
	return;
}

send_rows(1, 3000, 1500 => 'bad');
ok(wait_applied($node), 'a batch with a bad record in its middle is applied');
is_whole(3000, '... and only that record is missing');
is(query(q{SELECT kafka_offset, sqlstate FROM spine_dead_letters WHERE topic = 'rows'}), '1499|23514', '... it is a dead letter');

# The worker has written, and waits in the trigger.
my $holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_safe('BEGIN; SELECT pg_advisory_xact_lock(1);');
send_rows(3001, 6000);
wait_for_held_batch($node);
kill 'KILL', worker_pids($node);
ok(poll_through_restart($node, 'postgres', "SELECT spine_wait('600s')"), 'the worker is killed with its rows written: they are applied');
eval { $holder->quit };
is_whole(6000, '... once');

set_config($node, lock_timeout => '100ms');
$holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_safe('BEGIN; LOCK TABLE streamed IN ACCESS EXCLUSIVE MODE;');
send_rows(6001, 9000);
wait_for_held_batch($node);
$holder->query_safe('COMMIT;');
$holder->quit;
ok(wait_applied($node), 'a table that was locked is written');
is_whole(9000, '... once');

$node->stop;
stop_broker($broker);
done_testing();

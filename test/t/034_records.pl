# Records are applied by functions that know nothing of positions or of a worker: a
# backend calls them in its own transaction, which may be rolled back, with several plans
# side by side; and what a field becomes is what json_to_record makes of such a value.
#
# Broken when applying records needs what only a worker has, commits by itself, leaves the
# session in another state, or depends on its settings; when an attempt changes what the
# next one sees; when plans share what they know of their tables; or when a fast path makes
# another value than PostgreSQL.
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

# The output and the errors of a session that goes on after errors.
sub query_on
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', $sql, stdout => \$out, stderr => \$err, on_error_stop => 0);
	return ($out, $err);
}

query(<<SQL);
CREATE SCHEMA module;
CREATE FUNCTION module.make_plan(name) RETURNS int STRICT LANGUAGE c AS '$module', 'test_make_plan';
CREATE FUNCTION module.free_plan(int) RETURNS void STRICT LANGUAGE c AS '$module', 'test_free_plan';
CREATE FUNCTION module.lose_memory(int, boolean) RETURNS void STRICT LANGUAGE c AS '$module', 'test_lose_memory';
CREATE FUNCTION module.apply(int, text, bytea[], int) RETURNS text[] STRICT LANGUAGE c AS '$module', 'test_apply';
CREATE FUNCTION module.bind(text, text, regtype) RETURNS text STRICT LANGUAGE c AS '$module', 'test_bind';

CREATE FUNCTION module.apply_all(plan int, how text, VARIADIC records text[]) RETURNS SETOF text LANGUAGE sql
AS \$\$
	SELECT unnest(module.apply(plan, how, array_agg(convert_to(r, 'UTF8') ORDER BY i), 1000))
	FROM unnest(records) WITH ORDINALITY AS u(r, i);
\$\$;

ALTER DATABASE postgres SET timezone = 'Asia/Tokyo';
ALTER DATABASE postgres SET datestyle = 'SQL, DMY';
CREATE ROLE app;
CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n > 0), at timestamptz, name text, who text,
	record_partition smallint, record_offset text, record_time timestamp, record_key text,
	UNIQUE (name) DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE t OWNER TO app;
CREATE FUNCTION note_who() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	NEW.who := current_user || ' ' || current_setting('timezone');
	PERFORM set_config('intervalstyle', 'iso_8601', false);
	RETURN NEW;
END
\$\$;
CREATE TRIGGER note_who BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note_who();
CREATE TABLE latest (id int PRIMARY KEY, version bigint, n int CHECK (n > 0));
SQL
make_pipeline($node, name => 'append', topic => 'x', target => 't', mode => 'append', key => '{id}',
	columns => '{"id": null, "n": null, "at": null, "name": null, "record_partition": "$partition",
		"record_offset": "$offset", "record_time": "$timestamp", "record_key": "$key"}');
make_pipeline($node, name => 'upsert', topic => 'x', target => 'latest', mode => 'upsert', key => '{id}', version => 'version');

#
# In the caller's transaction, committed
#
is(query(<<'SQL'),
BEGIN;
SELECT module.apply_all(module.make_plan('append'), 'plain',
	'{"id": 1, "n": 1, "at": "2026-01-02 03:04", "name": "a"}', 'no JSON', '{"id": 2, "n": 2}');
SELECT current_user = session_user, current_setting('timezone'), current_setting('intervalstyle');
COMMIT;
SQL
	"applied\n22P02 not a JSON object at byte 1\napplied\nt|Asia/Tokyo|postgres", 'a backend applies records');
is(query(<<'SQL'), <<'ROWS' =~ s/\n$//r, 'after COMMIT the rows and dead letters are those that a worker would make');
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT id, at, who, record_partition, record_offset, record_time, record_key FROM t ORDER BY id;
SELECT pipeline, topic, kafka_partition, kafka_offset, convert_from(value, 'UTF8'), sqlstate FROM spine_dead_letters;
SQL
1|2026-01-02 03:04:00+00|app UTC|7|0|2026-01-01 00:00:00.123|key 0
2||app UTC|7|2|2026-01-01 00:00:00.123|key 2
append|made here|7|1|no JSON|22P02
ROWS

#
# Rolled back: the outcome is the same, and nothing stays
#
my $mixed = <<'SQL';
SELECT module.apply_all(module.make_plan('append'), 'search',
	'{"id": 3, "n": 3, "name": "c"}',
	'{"id": 4',
	'{"id": 5, "n": -5}',
	'{"id": 6, "n": "six"}',
	'{"id": 7, "n": 7, "name": "a"}',
	'{"id": 8, "n": 8}')
SQL
my $became = <<'LINES' =~ s/\n$//r;
applied
22P02 JSON without an end
23514 new row for relation "t" violates check constraint "t_n_check"
22P02 invalid input syntax for type integer: "six"
23505 duplicate key value violates unique constraint "t_name_key"
applied
LINES

# Without the details, which quote the rows.
sub without_details
{
	my ($text) = @_;

	return $text =~ s/ DETAIL: [^\n]*//gr;
}

is(without_details(query("BEGIN; $mixed; SELECT count(*) FROM t; SELECT count(*) FROM spine_dead_letters; ROLLBACK;")),
	"$became\n4\n5", 'in a transaction that will be rolled back, the bad records are found');
is(query('SELECT count(*) FROM t; SELECT count(*) FROM spine_dead_letters'), "2\n1", 'ROLLBACK leaves no row and no dead letter');
is(without_details(query("BEGIN; $mixed; COMMIT; SELECT id FROM t WHERE id > 2 ORDER BY id; SELECT count(*) FROM spine_dead_letters")),
	"$became\n3\n8\n5", 'a committed transaction finds the same');

#
# After an error
#
my ($out, $err) = query_on(<<'SQL');
SELECT module.make_plan('append') AS plan \gset
SELECT module.apply_all(:plan, 'plain', '{"id": 10, "n": 1}', '{"id": 11, "n": 0}');
SELECT current_user = session_user, current_setting('timezone'), count(*) FROM t WHERE id >= 10;
SELECT module.apply_all(:plan, 'search', '{"id": 10, "n": 1}', '{"id": 11, "n": 0}');
SELECT module.apply_all(:plan, 'plain', '{"id": 12, "n": 1}');
SQL
like($err, qr/^psql:<stdin>:2: ERROR:  new row for relation "t" violates check constraint "t_n_check"/, q{a plain attempt raises the database's error});
is(without_details($out), "t|Asia/Tokyo|0\napplied\n23514 new row for relation \"t\" violates check constraint \"t_n_check\"\napplied",
	'after the error the session and the plan can be used');

($out, $err) = query_on(<<'SQL');
SELECT module.make_plan('append') AS plan \gset
SELECT module.lose_memory(:plan, true);
SELECT module.apply_all(:plan, 'search', '{"id": 14, "n": 1}');
\echo :LAST_ERROR_SQLSTATE
SELECT module.lose_memory(:plan, false);
SELECT module.apply_all(:plan, 'plain', '{"id": 14, "n": 1}');
SQL
like($err, qr/ERROR:  out of memory\nDETAIL:  Failed on decoding a record of 18 bytes/, 'a lack of memory for decoding is an error, not a dead letter');
is($out, "\n53200\n\napplied", 'with memory again, the record is applied');

is(without_details(query(<<'SQL')), <<'LINES' =~ s/\n$//r, 'a second attempt sees the events of the first');
SELECT module.apply_all(module.make_plan('upsert'), 'plain, then search',
	'{"id": 1, "version": 1, "n": -1}',
	'{"id": 2, "version": 1, "n": 1, "more": "\u00e9"}',
	'{"id": 2, "version": 3, "n": "x"}',
	'{"id": 2, "version": 2, "n": 2}',
	'{"id": 3, "version": 1, "n": 0}');
SELECT * FROM latest ORDER BY id;
SQL
23514 new row for relation "latest" violates check constraint "latest_n_check"
applied
22P02 invalid input syntax for type integer: "x"
applied
23514 new row for relation "latest" violates check constraint "latest_n_check"
2|2|2
LINES

is(query(<<'SQL'), "{\"table at fault\"}\n1", 'many refusals for one reason: the table is at fault');
SELECT module.apply(module.make_plan('upsert'), 'search',
	(SELECT array_agg(convert_to('{"id": ' || i || ', "version": 1, "n": -1}', 'UTF8')) FROM generate_series(1, 10) i), 5);
SELECT count(*) FROM latest;
SQL

#
# Plans side by side
#
is(query(<<'SQL'), <<'LINES' =~ s/\n$//r, 'a plan knows only its own tables');
SELECT module.make_plan('append') AS one \gset
SELECT module.make_plan('upsert') AS two \gset
SELECT module.make_plan('append') AS three \gset
SELECT module.apply_all(:two, 'plain', '{"id": 20, "version": 1, "n": 1}');
SELECT module.apply_all(:one, 'plain', '{"id": 20, "n": 1}');
ALTER TABLE latest ADD more int;
SELECT module.apply_all(:one, 'plain', '{"id": 21, "n": 1}');
SELECT module.apply_all(:two, 'plain', '{"id": 21, "version": 1, "n": 1}');
SELECT module.free_plan(:two);
SELECT module.free_plan(:one);
SELECT module.make_plan('upsert') AS two \gset
SELECT module.apply_all(:two, 'plain', '{"id": 21, "version": 1, "n": 1, "more": 1}');
SELECT module.apply_all(:three, 'plain', '{"id": 22, "n": 1}');
SELECT id FROM t WHERE id >= 20 ORDER BY id;
SELECT id, more FROM latest WHERE id >= 20 ORDER BY id;
SQL
applied
applied
applied
plan outdated


applied
applied
20
21
22
20|
21|1
LINES

# each plan checks its own tables only
query('CREATE ROLE other; CREATE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; ALTER FUNCTION others() OWNER TO other');
($out, $err) = query_on(<<'SQL');
SELECT module.make_plan('append') AS one \gset
SELECT module.make_plan('upsert') AS two \gset
SELECT module.apply_all(:one, 'plain', '{"id": 30, "n": 1}');
SELECT module.apply_all(:two, 'plain', '{"id": 30, "version": 1, "n": 1}');
CREATE TRIGGER others BEFORE INSERT ON latest FOR EACH ROW EXECUTE FUNCTION others();
SELECT module.apply_all(:one, 'plain', '{"id": 31, "n": 1}');
SELECT module.free_plan(:two);
SELECT module.make_plan('upsert') AS two \gset
SELECT module.apply_all(:two, 'plain', '{"id": 31, "version": 1, "n": 1}');
SELECT module.apply_all(:one, 'plain', '{"id": 32, "n": 1}');
DROP TRIGGER others ON latest;
SQL
is($out, "applied\napplied\napplied\n\napplied", 'an untrusted trigger stops only the plan of its table');
like($err, qr/ERROR:  trigger "others" of table public.latest would run function public.others\(\) of role other/, 'the error names the trigger');

#
# Fields of kinds that no format yields yet.  As JSON, a value of the kind is a number, or a
# string of what PostgreSQL prints; what json_to_record makes of that is the value to expect.
#
query(<<'SQL');
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
CREATE FUNCTION result_of(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE sql INTO result;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN 'refused';
END
$$;
CREATE FUNCTION expected(sql text) RETURNS text LANGUAGE sql SET search_path = '' SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
AS 'SELECT public.result_of(sql)';
SQL

# SQL for a value of the kind.  A timestamp is in microseconds since 1970.
my %print = (int64 => '%L::bigint', double => '%L::float8', bytes => '%L::bytea', uuid => '%L::uuid',
	timestamp => q{timestamptz 'epoch' + %1$s / 86400000000 * interval '1 day' + %1$s %% 86400000000 * interval '1 microsecond'});
my %values = (
	int64 => [qw(0 1 -1 2147483647 -2147483648 2147483648 9007199254740993 9223372036854775807 -9223372036854775808)],
	double => [qw(0 -0 0.1 1e300 5e-324 1.7976931348623157e308 NaN Infinity -Infinity 42 -7.5)],
	bytes => [ '\x', '\x00', '\x61c3a900ff', '\x31' ],
	# 1970, 2000, with microseconds, before 1970, the earliest possible, a year of six digits
	timestamp => [qw(0 946684800000000 1767225600123456 -1 -210866803200000000 9223371331199999999)],
	uuid => [qw(00000000-0000-0000-0000-000000000000 fedcba98-7654-3210-0123-456789abcdef)]);

foreach my $kind (sort keys %values)
{
	my $values = join ', ', map { "('$_')" } @{ $values{$kind} };
	my $is_number = $kind eq 'int64' || $kind eq 'double';
	my $as_json = $is_number ? "to_json($print{$kind})" : "to_json(($print{$kind})::text)";
	my $times = $is_number ? '' : ',timestamptz,timestamp,date';

	is(query(<<SQL), '', "$kind: each value is what PostgreSQL makes of it");
SELECT v, t, 'is ' || got, 'not ' || expected
FROM (VALUES $values) AS v(v),
	unnest('{bigint,int,smallint,public.even,numeric,float8,real,text,varchar,json,jsonb,boolean,bytea,uuid,oid,money,text[],public.even[]$times}'::text[]) AS t(t),
	LATERAL result_of(format('SELECT module.bind(%L, %L, %L)', '$kind', v, t)) AS got,
	LATERAL expected(format('SELECT format(''%%s'', c) FROM json_to_record(json_build_object(''c'', %s)) AS r(c %s)', format(\$q\$$as_json\$q\$, v), t)) AS expected
WHERE got IS DISTINCT FROM expected;
SQL
	next unless $is_number;
	is(query(<<SQL), '', "$kind: a number is not taken for a time");
SELECT v, t, got
FROM (VALUES $values) AS v(v),
	unnest('{timestamptz,timestamp,timestamp(3),date,time,timetz,interval}'::text[]) AS t(t),
	LATERAL result_of(format('SELECT module.bind(%L, %L, %L)', '$kind', v, t)) AS got
WHERE got <> 'refused' AND v !~ '[a-z]{3}';
SQL
}
is(query(q{SELECT module.bind('double', '1000000', 'int'), module.bind('double', '5', 'bigint')}), '1000000|5', 'a double that is an integer is one');
is(query(q{SELECT module.bind('int64', '4', 'even'), module.bind('bytes', '\x00ff', 'bytea')}), '4|\x00ff', 'fields become values of a domain and of bytea');
like((query_on(q{SELECT module.bind('timestamp', '-210866803200000001', 'timestamptz')}))[1], qr/timestamp out of range/,
	'a time that no timestamptz can hold is refused');
is(query(q{SELECT module.bind('timestamp', '1767225600000000', 'text')}), '2026-01-01 00:00:00+00', 'a time in a text column is in UTC');

$node->stop;
done_testing();

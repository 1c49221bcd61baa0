# No single record can stop its pipeline, whatever error it raises.  No fault of the
# table or of the server makes dead letters of records that are not to blame.
#
# Broken when the search for the record to blame takes a class of errors for granted,
# leaves its caller in a different transaction than the one that the caller began, blames
# the wrong record for what it found, or when a record that another one supersedes is not
# checked.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SPINE_TEST_SEED} // time;
srand $seed;
note "SPINE_TEST_SEED=$seed";

my $broker = start_broker('events', 1);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.batch_interval = '200ms'		# what is sent at once is one batch
CONF

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Sends the values to the topic.
sub send_to
{
	my ($topic, @values) = @_;

	send_lines($broker->{address}, $topic, 0, join '', map { "k\t$_\n" } @values);
	return;
}

sub dead_letters
{
	my ($topic) = @_;

	return query("SELECT kafka_offset, sqlstate FROM spine_dead_letters WHERE topic = '$topic' ORDER BY kafka_offset");
}

# A failed pipeline tries again every few seconds, and at once after a reload.
sub nudge { return query('SELECT pg_reload_conf()') }

#
# Whatever SQLSTATE a trigger raises
#
my @codes = qw(01000 02000 03000 08006 0A000 0B000 20000 21000 22012 23514 24000 25006 25P02 28000 2BP01
  2D000 34000 38001 39001 3B001 3D000 3F000 40001 40P01 42501 42601 42704 42P01 44000 53100 53200 53300
  54001 55000 55006 55P03 57014 57P01 57P03 58030 F0000 HV00N P0001 P0004 XX000 XX001 XX002);
query(<<'SQL');
CREATE TABLE raised (id int PRIMARY KEY, code text);
CREATE FUNCTION raise_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.code <> '' THEN
		RAISE EXCEPTION 'says the trigger' USING ERRCODE = NEW.code;
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER raise_it BEFORE INSERT ON raised FOR EACH ROW EXECUTE FUNCTION raise_it();
SQL
my $id = 0;
send_to('raised', map { (qq({"id": @{[$id++]}, "code": "$_"}), qq({"id": @{[$id++]}, "code": ""})) } @codes);
make_pipeline($node, name => 'raised', topic => 'raised', target => 'raised', mode => 'append', key => '{id}');
ok(wait_applied($node), 'each code that a trigger can raise, between good records: the pipeline continues');
is(query('SELECT count(*) FROM raised'), @codes, 'the good records are applied');
is(dead_letters('raised'), join("\n", map { 2 * $_ . "|$codes[$_]" } 0 .. $#codes), 'the bad records are dead letters');

# A lone record with an error of the schema is not blamed before another record passes.
send_to('raised', '{"id": 1000, "code": "42P01"}');
comes_to($node, 'a lone record with an error of the schema: the pipeline fails, with the reason',
	q{SELECT bool_or(state = 'failed' AND last_error ~ 'says the trigger') FROM spine_status WHERE pipeline = 'raised'});
send_to('raised', '{"id": 1001, "code": ""}');
nudge();
ok(wait_applied($node), 'another record passes');
is(query(q{SELECT sqlstate FROM spine_dead_letters WHERE topic = 'raised' AND kafka_offset = } . 2 * @codes),
	'42P01', 'the lone record is to blame');

#
# Other errors of the schema that records cause: row security, names of objects
#
query(<<'SQL');
CREATE ROLE tenant_only;
GRANT CREATE, USAGE ON SCHEMA public TO tenant_only;
CREATE TABLE shielded (tenant text, id int PRIMARY KEY, place regclass, path jsonpath);
ALTER TABLE shielded ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shielded FOR INSERT TO tenant_only WITH CHECK (tenant = 'acme');
GRANT INSERT ON shielded TO tenant_only;
SQL
send_to('shielded',
	'{"tenant": "acme", "id": 0}',
	'{"tenant": "initech", "id": 1}',
	'{"tenant": "acme", "id": 2, "place": "no_such_table"}',
	'{"tenant": "acme", "id": 3, "place": "no_such_schema.t"}',
	'{"tenant": "acme", "id": 4, "path": "$ ? (@ like_regex \"a\" flag \"zz\")"}',
	'{"tenant": "acme", "id": 5, "place": "pg_catalog.pg_class"}');
make_pipeline($node, name => 'shielded', topic => 'shielded', target => 'shielded', mode => 'append', owner => 'tenant_only');
ok(wait_applied($node), 'records that row security and types refuse: the pipeline continues');
is(query('SELECT id FROM shielded ORDER BY 1'), "0\n5", 'the good records are applied');
like(dead_letters('shielded'), qr/^1\|42501\n2\|42P01\n3\|(?:3F000|42P01)\n4\|42601$/, 'the bad records are dead letters');

#
# A run of records with errors of the schema is searched until a record passes, whatever
# limits the batch: the smaller parts that a batch with many refusals is committed in, ...
#
query(<<'SQL');
CREATE TABLE parts (id int PRIMARY KEY, code text);
CREATE TRIGGER raise_it BEFORE INSERT ON parts FOR EACH ROW EXECUTE FUNCTION raise_it();
CREATE TABLE places (id int PRIMARY KEY CHECK (id > 0), place regclass);
SQL
$id = 0;
send_to('parts', map { qq({"id": @{[$id++]}, "code": "$_"}) } ('23503', '') x 1000, ('42501') x 500, ('') x 10);
make_pipeline($node, name => 'parts', topic => 'parts', target => 'parts', mode => 'append', key => '{id}');
ok(wait_applied($node), 'a run that is longer than a part of the batch');
is(query('SELECT count(*) FROM parts'), '1010', 'the good records are applied');
is(query(q{SELECT sqlstate, count(*) FROM spine_dead_letters WHERE topic = 'parts' GROUP BY 1 ORDER BY 1}),
	"23503|1000\n42501|500", 'the others are dead letters');

# ... the number of values that cannot be converted, ...
send_to('places', (map { qq({"id": $_, "place": "no_such_$_"}) } 1 .. 1200), '{"id": -1}', '{"id": 1}');
make_pipeline($node, name => 'places', topic => 'places', target => 'places', mode => 'append', key => '{id}');
ok(wait_applied($node), 'a run of values that cannot be converted, and then a row that is refused');
is(query('SELECT id FROM places'), '1', 'the good record is applied');
is(query(q{SELECT sqlstate, count(*) FROM spine_dead_letters WHERE topic = 'places' GROUP BY 1 ORDER BY 1}),
	"23514|1\n42P01|1200", 'the others are dead letters');

# ... or spine.batch_rows.
set_config($node, 'spine.batch_rows' => 1);
send_to('parts', map { qq({"id": @{[$id++]}, "code": "$_"}) } ('42501') x 3, '');
ok(wait_applied($node), 'a run that is longer than a batch may be');
is(query('SELECT count(*) FROM parts'), '1011', 'the good record is applied');
is(query(q{SELECT count(*) FROM spine_dead_letters WHERE topic = 'parts' AND sqlstate = '42501'}), '503',
	'the others are dead letters');
set_config($node, 'spine.batch_rows' => 50000);

#
# Each kind of error at each depth of the search.  Whatever a nested attempt meets, the
# transaction that it leaves behind is the one its caller began.  Calls behind the end of
# the script succeed.
#
query(<<'SQL');
CREATE TABLE fickle (id int PRIMARY KEY);
CREATE TABLE held ();
CREATE SEQUENCE calls;
CREATE TABLE script (call bigint, kind text);
CREATE FUNCTION follow_script() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	n	bigint := nextval('calls');		-- a rollback does not undo this
BEGIN
	CASE (SELECT kind FROM public.script WHERE call = n)
		WHEN 'refused' THEN RAISE EXCEPTION 'refused' USING ERRCODE = '23503';
		WHEN 'structural' THEN RAISE EXCEPTION 'structural' USING ERRCODE = '42501';
		WHEN 'raised as transient' THEN RAISE EXCEPTION 'raised' USING ERRCODE = '40P01';
		WHEN 'transient' THEN LOCK TABLE public.held NOWAIT;
		WHEN 'caught' THEN
			BEGIN
				LOCK TABLE public.held NOWAIT;
			EXCEPTION WHEN lock_not_available THEN NULL;
			END;
		ELSE NULL;
	END CASE;
	RETURN NEW;
END $$;
ALTER FUNCTION follow_script() SET search_path = public;
CREATE TRIGGER follow_script BEFORE INSERT ON fickle FOR EACH ROW EXECUTE FUNCTION follow_script();
SQL
make_pipeline($node, name => 'fickle', topic => 'fickle', target => 'fickle', mode => 'append', key => '{id}');
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE held');
my $sent = 0;

sub follows_script
{
	my (@kinds) = @_;

	query('TRUNCATE script; ALTER SEQUENCE calls RESTART; INSERT INTO script VALUES '
		  . join(', ', map { "($_, '$kinds[$_ - 1]')" } 1 .. @kinds));
	send_to('fickle', map { qq({"id": @{[$sent++]}}) } 1 .. 4);
	comes_to($node, "errors in this order: @kinds", <<SQL);
SELECT (SELECT count(*) FROM fickle) + (SELECT count(*) FROM spine_dead_letters WHERE topic = 'fickle') = $sent
	AND NOT EXISTS (SELECT FROM fickle f JOIN spine_dead_letters d ON d.topic = 'fickle' AND d.kafka_offset = f.id)
	AND (SELECT sum(next_offset) FROM spine_offsets WHERE topic = 'fickle') = $sent
SQL
	return;
}

# these two once ended the worker, or made it wait for itself
follows_script('refused', 'transient');
follows_script('refused', 'raised as transient');
my @kinds = ('refused', 'structural', 'raised as transient', 'transient', 'caught', 'none');
foreach my $depth (1 .. 6)
{
	follows_script(('refused') x $depth, 'transient');
	follows_script(map { $kinds[rand @kinds] } 1 .. 2 + $depth);
}
$holder->query_safe('COMMIT');
$holder->quit;
comes_to($node, 'the pipeline runs', q{SELECT bool_and(state = 'running') FROM spine_status WHERE pipeline = 'fickle'});

#
# The breaker: the table is at fault
#
query(<<'SQL');
CREATE TABLE monthly (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE january PARTITION OF monthly FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
SQL
$id = 0;
make_pipeline($node, name => 'monthly', topic => 'monthly', target => 'monthly', mode => 'append');
send_to('monthly', '{"id": 0, "at": "2026-01-31"}', map { qq({"id": $_, "at": "2026-02-0@{[1 + $_ % 5]}"}) } 1 .. 3000);
comes_to($node, 'a missing partition: the pipeline fails, and says why and what to do', <<'SQL');
SELECT bool_or(state = 'failed' AND concat(last_error, ' HINT: ' || hint) ~ 'no partition of relation "monthly" found.*HINT: .*Create the partition')
FROM spine_status WHERE pipeline = 'monthly'
SQL
is(query(q{SELECT count(*) FROM spine_dead_letters WHERE topic = 'monthly'}), '0', 'a missing partition makes no dead letters');
query(q{CREATE TABLE february PARTITION OF monthly FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')});
ok(wait_applied($node), 'the pipeline continues once the partition exists');
is(query('SELECT count(*) FROM monthly'), '3001', 'every row is applied');

# In small batches the first records become dead letters, but not all of them.
set_config($node, 'spine.batch_rows' => 100);
send_to('monthly', map { qq({"id": $_, "at": "2026-03-01"}) } 1 .. 3000);
comes_to($node, 'a missing partition, in small batches: the pipeline fails', <<'SQL');
SELECT bool_or(state = 'failed' AND concat(last_error, ' HINT: ' || hint) ~ 'no partition of relation') FROM spine_status WHERE pipeline = 'monthly'
SQL
cmp_ok(query(q{SELECT count(*) FROM spine_dead_letters WHERE topic = 'monthly'}), '<', 1000,
	'there are fewer dead letters than the breaker allows');
set_config($node, 'spine.breaker_records' => 0, 'spine.batch_rows' => 50000);
ok(wait_applied($node), 'with the breaker off, the pipeline continues');
is(query(q{SELECT count(*) FROM spine_dead_letters WHERE topic = 'monthly'}), 3000, 'with the breaker off, all are dead letters');
query(q{ALTER SYSTEM RESET spine.breaker_records; SELECT pg_reload_conf()});

# When records cannot be decoded or converted, or are refused for many reasons, the
# records are at fault.
query(q{CREATE TABLE strict (id int CHECK (id > 0), note text UNIQUE)});
make_pipeline($node, name => 'strict', topic => 'strict', target => 'strict', mode => 'append');
send_to('strict', ('no JSON') x 1500, ('{"id": "x"}') x 1500);
ok(wait_applied($node), 'records that cannot be read never trip the breaker');
send_to('strict', map { (qq({"id": -1}), qq({"id": 1, "note": "twice"})) } 1 .. 1500);
ok(wait_applied($node), 'records that are refused for different reasons do not trip the breaker');
is(query(q{SELECT count(*) FROM spine_dead_letters WHERE topic = 'strict'}), 3000 + 2 * 1500 - 1, 'each of these records is a dead letter');

#
# A bad record that a newer one with the same key supersedes
#
query(<<'SQL');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TABLE latest (id int PRIMARY KEY, version bigint, amount numeric(5, 2), born date, colour colour,
	label varchar(3), n positive, tags int[]);
SQL
my %wrong = (amount => '1000', born => '"2026-02-30"', colour => '"blue"', label => '"long"', n => '-1', tags => '"{a}"');
$id = 0;
foreach my $column (sort keys %wrong)
{
	$id++;
	send_to('latest', qq({"id": $id, "version": 1, "$column": $wrong{$column}}), qq({"id": $id, "version": 2}));
}
make_pipeline($node, name => 'latest', topic => 'latest', target => 'latest', mode => 'upsert', key => '{id}',
	version => 'version');
ok(wait_applied($node), 'records that are superseded within their batch');
is(query('SELECT count(*), min(version) FROM latest'), scalar(keys %wrong) . '|2', 'the newer records are applied');
is(dead_letters('latest'), "0|22003\n2|22008\n4|22P02\n6|22001\n8|23514\n10|22P02", 'the bad records are dead letters');

#
# A batch of which half is bad has no more subtransactions than the snapshots of other
# sessions have room for: 64.
#
query('CREATE TABLE half_bad (id int PRIMARY KEY CHECK (id % 2 = 0), at timestamptz DEFAULT now())');
send_to('half_bad', map { qq({"id": $_}) } 1 .. 4000);
make_pipeline($node, name => 'half_bad', topic => 'half_bad', target => 'half_bad', mode => 'append', key => '{id}');
ok(wait_applied($node), 'a batch of which half is bad');
is(query('SELECT count(*) FROM half_bad'), '2000', 'the good records are applied');
is(query(q{SELECT count(*) FROM spine_dead_letters WHERE topic = 'half_bad'}), '2000', 'the others are dead letters');
is(query('SELECT max(n) <= 64 FROM (SELECT count(DISTINCT xmin::text) AS n FROM half_bad GROUP BY at) t'), 't',
	'no transaction has more than 64 subtransactions that wrote');

$node->stop;
stop_broker($broker);
done_testing();

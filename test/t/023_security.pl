# The workers are superusers, and nobody gets their rights: neither by calling
# functions or changing settings, nor by code that is attached to a target table.
#
# Broken when a grant is too wide, when a statement of a batch runs as the wrong role,
# or when something that belongs to a batch runs after the batch has left its role (a
# deferred trigger at commit).
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = spine_node('main');

# An unprivileged role with a schema of its own.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE mallory LOGIN;
CREATE SCHEMA mallory AUTHORIZATION mallory;
CREATE TABLE secret (who name);
INSERT INTO secret VALUES ('postgres');
SQL

sub as_mallory
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', $sql, stdout => \$out, stderr => \$err, extra_params => [ '-U', 'mallory' ]);
	return ($out, $err);
}

#
# What mallory may not do herself
#
foreach my $statement (
	q{SELECT spine_produce('acme', 1)}, 'SELECT spine_wait()',
	'SELECT spine_brokers()', q{SELECT spine_pause('orders')}, q{SELECT spine_resume('orders')},
	'SELECT * FROM spine_all_workers()', 'SELECT * FROM spine_all_partitions()',
	q{SELECT spine_create_pipeline('evil', 'evil')}, q{SELECT spine_add_sink('orders', 'secret')},
	'SHOW spine.brokers', 'SHOW spine.kafka_options',
	q{SET spine.topic = 'mine'}, 'SET spine.enabled = off', q{ALTER SYSTEM SET spine.brokers = 'mine:9092'},
	'INSERT INTO spine_pipelines (name) VALUES (1)', 'UPDATE spine_pipelines SET topic = 1',
	q{INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'secret', 'append')},
	'UPDATE spine_offsets SET next_offset = 0', 'DELETE FROM spine_dead_letters',
	'DROP EXTENSION spine')
{
	my ($out, $err) = as_mallory($statement);
	like($err, qr/permission denied|must be (?:superuser|owner|a member)/, "refused: $statement");
	is($out, '', "shows nothing: $statement");
}
foreach my $statement ('SELECT * FROM spine_status', 'SELECT * FROM spine_worker_status()',
	'SELECT * FROM spine_partition_status()', 'SELECT * FROM spine_dead_letters')
{
	is(join('', as_mallory($statement)), '', "shows nothing of others' pipelines: $statement");
}
foreach my $setting ('brokers', 'kafka_options', 'topic', 'enabled')
{
	my ($out, $err) = as_mallory("ALTER DATABASE postgres SET spine.$setting = off");
	like($err, qr/must be owner|permission denied/, "refused: ALTER DATABASE SET spine.$setting");
	($out, $err) = as_mallory("ALTER ROLE mallory SET spine.$setting = 'off'");
	like($err, qr/permission denied|cannot be changed now/, "refused: ALTER ROLE SET spine.$setting");
}

# With INSERT on the catalog she can make pipelines that apply as her, but no others.
$node->safe_psql('postgres', 'GRANT INSERT ON spine_pipelines, spine_sinks TO mallory');
my ($out, $err) = as_mallory(q{INSERT INTO spine_pipelines (name, owner) VALUES ('evil', 'postgres')});
like($err, qr/must be a member of role postgres to make it the owner of pipeline "evil"/, 'a pipeline that applies as another role: refused');
($out, $err) = as_mallory(q{INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'secret', 'append')});
like($err, qr/must be a member of the role that pipeline "orders" applies as/, q{a sink for another role's pipeline: refused});

#
# What her tables may not do.  Wherever code can be attached to a table, mallory.attack()
# tries what only a superuser may, and records as whom it ran and what came of it.
#
($out, $err) = as_mallory(<<'SQL');
CREATE TABLE mallory.witness (place text, who name, statement text, came_of_it text);

CREATE FUNCTION mallory.attack(place text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	statement text;
BEGIN
	FOREACH statement IN ARRAY ARRAY[
		'ALTER ROLE mallory SUPERUSER',
		'DELETE FROM public.secret',
		'SET ROLE postgres',
		'RESET ROLE',
		'SET SESSION AUTHORIZATION postgres',
		'RESET SESSION AUTHORIZATION',
		'COPY mallory.witness TO PROGRAM ''true''',
		'SET session_replication_role = replica',
		'ALTER SYSTEM SET spine.brokers = ''mallory:9092''']
	LOOP
		BEGIN
			EXECUTE statement;
			INSERT INTO mallory.witness VALUES (place, current_user, statement, 'success');
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO mallory.witness VALUES (place, current_user, statement, SQLERRM);
		END;
	END LOOP;
	RETURN true;
END
$$;

CREATE FUNCTION mallory.trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mallory.attack(TG_NAME);
	RETURN NEW;
END
$$;

-- an index needs an immutable function, and accepts any that claims to be immutable
CREATE FUNCTION mallory.index_expression(id text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mallory.attack('index expression');
	RETURN id;
END
$$;

CREATE DOMAIN mallory.checked AS text CHECK (mallory.attack('domain'));

-- every kind of code that can be attached to a table
CREATE TABLE mallory.trap (
	order_id text UNIQUE CHECK (mallory.attack('check constraint')),
	event_time timestamptz,
	checked mallory.checked DEFAULT 'x',
	defaulted boolean DEFAULT mallory.attack('default')
);
CREATE INDEX ON mallory.trap (mallory.index_expression(order_id));
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE ON mallory.trap FOR EACH ROW EXECUTE FUNCTION mallory.trigger();
CREATE TRIGGER after_row AFTER INSERT OR UPDATE ON mallory.trap FOR EACH ROW EXECUTE FUNCTION mallory.trigger();
CREATE TRIGGER after_statement AFTER INSERT OR UPDATE ON mallory.trap EXECUTE FUNCTION mallory.trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON mallory.trap
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.trigger();

-- row security too, which applies to the owner when it is forced
CREATE TABLE mallory.guarded (order_id text, event_time timestamptz);
ALTER TABLE mallory.guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON mallory.guarded USING (true) WITH CHECK (mallory.attack('policy'));

-- a deferred trigger that an earlier one has deferred again
CREATE TABLE mallory.late (order_id text);
CREATE FUNCTION mallory.defer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	SET CONSTRAINTS ALL DEFERRED;
	RETURN NEW;
END
$$;
CREATE TRIGGER defer BEFORE INSERT ON mallory.late FOR EACH ROW EXECUTE FUNCTION mallory.defer();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mallory.late
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.trigger();
SQL
is($err, '', 'the traps are set');

my @places = ('after_row', 'after_statement', 'before_row', 'check constraint', 'default', 'deferred', 'domain',
	'index expression');

# Makes a pipeline that applies as the role, and sends it some events.
sub run_pipeline
{
	my ($name, $owner, $target, $mode, $columns) = @_;

	$node->safe_psql('postgres', <<SQL);
TRUNCATE mallory.witness;
BEGIN;
INSERT INTO spine_pipelines (name, topic, owner) VALUES ('$name', '$name', '$owner');
INSERT INTO spine_sinks (pipeline, target, mode, key, version, columns) VALUES ('$name', '$target', '$mode',
	CASE '$mode' WHEN 'upsert' THEN '{order_id}'::name[] END,
	CASE '$mode' WHEN 'upsert' THEN 'event_time' END, '$columns');
COMMIT;
SET spine.topic = '$name';
SELECT spine_produce('acme', 3);
SQL
	return;
}

sub is_harmless
{
	my ($what, @expected) = @_;

	is($node->safe_psql('postgres', 'SELECT DISTINCT place, who FROM mallory.witness ORDER BY 1, 2'),
		join("\n", map { "$_|mallory" } @expected), "$what: her code always runs as her");
	is($node->safe_psql('postgres', q{SELECT * FROM mallory.witness WHERE came_of_it = 'success'}), '',
		"$what: her code achieves nothing");
	is($node->safe_psql('postgres', q{SELECT count(*), (SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory') FROM secret}),
		'1|f', "$what: the secret is kept, and she is no superuser");
	return;
}

my $trap_columns = '{"order_id": null, "event_time": null, "defaulted": null, "checked": "event_type"}';
foreach my $owner ('mallory', 'postgres')
{
	foreach my $mode ('append', 'upsert')
	{
		my $name = "$mode-$owner";

		run_pipeline($name, $owner, 'mallory.trap', $mode, $trap_columns);
		ok(wait_applied($node), "$name: events are applied");
		is_harmless($name, @places);
	}
	run_pipeline("guarded-$owner", $owner, 'mallory.guarded', 'append', '{"order_id": null, "event_time": null}');
	ok(wait_applied($node), "guarded-$owner: events are applied");
	is_harmless("guarded-$owner", 'policy');
}

# A trigger that would run at commit, as the worker itself, is refused.
foreach my $owner ('mallory', 'postgres')
{
	run_pipeline("late-$owner", $owner, 'mallory.late', 'append', '{"order_id": null}');
	ok($node->poll_query_until('postgres', "SELECT bool_and(state = 'failed') FROM spine_status WHERE pipeline = 'late-$owner'"),
		"late-$owner: the pipeline fails");
	like($node->safe_psql('postgres', "SELECT DISTINCT last_error FROM spine_status WHERE pipeline = 'late-$owner'"),
		qr/cannot fire deferred trigger within security-restricted operation/, "late-$owner: the reason is the deferred trigger");
	is_harmless("late-$owner");
	$node->safe_psql('postgres', "SELECT spine_pause('late-$owner')");
}

# A trigger that fails for lack of privileges stops its pipeline, and nothing else.
($out, $err) = as_mallory(<<'SQL');
CREATE TABLE mallory.greedy (order_id text);
CREATE FUNCTION mallory.take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.secret; RETURN NEW; END $$;
CREATE TRIGGER take BEFORE INSERT ON mallory.greedy FOR EACH ROW EXECUTE FUNCTION mallory.take();
SQL
run_pipeline('greedy', 'postgres', 'mallory.greedy', 'append', '{"order_id": null}');
ok($node->poll_query_until('postgres', q{SELECT bool_and(state = 'failed') FROM spine_status WHERE pipeline = 'greedy'}),
	'a trigger that lacks a privilege: the pipeline fails');
is($node->safe_psql('postgres', q{SELECT DISTINCT last_error LIKE '%permission denied for table secret%' FROM spine_status WHERE pipeline = 'greedy'}),
	't', 'the reason is the missing privilege');

# A pipeline whose owner may not write to the target fails too.
run_pipeline('poor', 'mallory', 'secret', 'append', '{"who": "tenant"}');
ok($node->poll_query_until('postgres', q{SELECT bool_and(state = 'failed') FROM spine_status WHERE pipeline = 'poor'}),
	q{mallory's pipeline into another role's table: the pipeline fails});
is($node->safe_psql('postgres', 'SELECT count(*) FROM secret'), '1', 'no row is written');
is($node->safe_psql('postgres', 'SELECT count(*) FROM spine_dead_letters'), '0', 'missing privileges make no dead letters');

#
# Without the preload nothing works, and the error says why
#
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
foreach ([ 'fresh', 'CREATE EXTENSION spine' ], [ 'postgres', q{SELECT spine_produce('acme', 1)} ])
{
	my ($database, $statement) = @$_;
	my ($rc, $stdout, $stderr) = $node->psql($database, $statement);

	like($stderr, qr/ERROR:  spine must be loaded when the server starts\nHINT:  Add this line to postgresql.conf and restart the server: shared_preload_libraries = 'spine'/,
		"not preloaded: $statement is refused");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM current_orders'), '0', 'not preloaded: the tables can be read');

$node->stop;
done_testing();

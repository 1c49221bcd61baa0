# A pipeline belongs to its owner.  Members of that role define it, change it, pause it,
# move it, and see its status and its dead letters.  Others cannot do that, and cannot
# hold up those who can.  What is committed takes effect between two batches.
#
# Broken when a function that everybody may call trusts its caller, when it locks rows
# before it knows who asks, when the owner changes while it waits, or when the status shows
# what a worker said about the records of another role's pipeline.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('readings', 1);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'\n");

sub as_super
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# What the statements return, and their errors.
sub as_role
{
	my ($role, $sql) = @_;
	my ($out, $err) = ('', '');

	$node->psql('postgres', $sql, stdout => \$out, stderr => \$err, extra_params => [ '-U', $role ]);
	return $out . $err;
}

sub send_readings
{
	send_values($broker->{address}, 'readings', 0, \@_);
	return;
}

as_super(<<'SQL');
CREATE ROLE shop;
CREATE ROLE clerk LOGIN IN ROLE shop;
CREATE ROLE mallory LOGIN;
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
CREATE ROLE auditor LOGIN IN ROLE pg_read_all_data;
CREATE SCHEMA shop AUTHORIZATION shop;
CREATE SCHEMA mallory AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA shop TO mallory;
GRANT EXECUTE ON FUNCTION spine_create_pipeline TO shop, mallory;
SELECT spine_drop_pipeline('orders');
SQL

#
# A pipeline by functions
#
is(as_role('clerk', <<'SQL'), '', 'what is rolled back leaves nothing');
BEGIN;
CREATE TABLE shop.readings (sensor text, celsius numeric);
SELECT spine_create_pipeline('sensors', 'readings', 'shop.readings') \g /dev/null
ROLLBACK;
TABLE spine_pipelines;
SQL
is(as_role('clerk', <<'SQL'), '', 'a member makes a pipeline of the owner');
SET ROLE shop;
CREATE TABLE shop.readings (sensor text, celsius numeric);
SELECT spine_create_pipeline('sensors', 'readings', 'shop.readings') \g /dev/null
SQL
send_readings('{"sensor": "a", "celsius": 20}', '{"sensor": "b", "celsius": "too hot"}');
ok(wait_applied($node), 'records are applied');
is(as_super('TABLE shop.readings'), 'a|20', 'the table has the rows');

# An open transaction that has changed the mapping does not change what is applied.
my $session = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'clerk' ]);
$session->query_safe(q{BEGIN; SELECT spine_alter_sink('sensors', 'shop.readings', '{"columns": {"sensor": "celsius"}}')});
send_readings('{"sensor": "c", "celsius": 21}');
ok(wait_applied($node), 'a change that is not committed holds up nothing');
is(as_super(q{SELECT * FROM shop.readings WHERE celsius = 21}), 'c|21', 'the old mapping is applied');
$session->query_safe('COMMIT');
send_readings('{"sensor": "d", "celsius": 22}');
ok(wait_applied($node), 'after the change, records are applied');
is(as_super(q{SELECT sensor, celsius FROM shop.readings WHERE sensor = '22'}), '22|', 'the new mapping is applied');
as_role('clerk', q{SELECT spine_alter_sink('sensors', 'shop.readings', '{"columns": null}')});

# What spine_create_pipeline is needed for, spine_alter_pipeline does not give.
as_super(<<SQL);
CREATE ROLE porter LOGIN;
CREATE SERVER dock FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers '$broker->{address}');
GRANT USAGE ON FOREIGN SERVER dock TO porter;
SELECT spine_create_pipeline('crates', 'crates', server => 'dock', owner => 'porter', enabled => false);
SQL
like(as_role('porter', q{SELECT spine_alter_pipeline('crates', '{"server": null}')}),
	qr/permission denied to let pipeline "crates" read from the cluster of spine.brokers/, 'from a server to spine.brokers');
is(as_role('porter', q{SELECT spine_alter_pipeline('crates', '{"start": "latest"}')}), '', 'anything else');
as_super(q{SELECT spine_alter_pipeline('crates', '{"server": null}'); SELECT spine_drop_pipeline('crates')});

# What spine_show_pipeline says can be run, wherever the extension is.
my $odd = q{pipe 'é" %s};
as_super('CREATE DATABASE odd');
is($node->safe_psql('odd', <<SQL), "$odd\n\n$odd", 'names and schemas with everything in them');
SET client_min_messages = warning;
CREATE SCHEMA "100 %s";
CREATE EXTENSION spine SCHEMA "100 %s";
CREATE TABLE "T%s ""é" ("sel""ect" int PRIMARY KEY, "t'able" text);
SELECT "100 %s".spine_create_pipeline(\$\$$odd\$\$, 'odd', '"T%s ""é"', columns => '{"sel\\"ect": "id", "t''able": "\$key"}', enabled => false) \\g /dev/null
SELECT "100 %s".spine_show_pipeline(\$\$$odd\$\$) AS shown \\gset
SELECT name FROM "100 %s".spine_pipelines WHERE name ~ 'pipe';
SELECT "100 %s".spine_drop_pipeline(\$\$$odd\$\$) \\g /dev/null
:shown
SELECT pipeline FROM "100 %s".spine_sinks WHERE pipeline ~ 'pipe';
SQL

#
# Dead letters and status, of members and of others
#
my $letters = 'SELECT pipeline, sqlstate, owner FROM spine_dead_letters';
is(as_role('clerk', $letters), 'sensors|22P02|shop', 'a member sees the dead letter');
is(as_role('auditor', $letters), 'sensors|22P02|shop', 'a member of pg_read_all_data sees it');
is(as_role($_, $letters), '', "$_ sees no dead letter") foreach ('mallory', 'watcher');
like(as_role('mallory', 'DELETE FROM spine_dead_letters'), qr/permission denied/, 'nobody else may delete');
as_super('GRANT DELETE ON spine_dead_letters TO mallory, clerk');
is(as_role('mallory', 'DELETE FROM spine_dead_letters'), '', 'who may delete ...');
is(as_role('clerk', $letters), 'sensors|22P02|shop', '... deletes none of others');
is(as_role('clerk', "DELETE FROM spine_dead_letters; $letters"), '', '... but the own');

# A trigger of mallory's fails the pipeline, and is quoted in the error.
as_super('GRANT TRIGGER ON shop.readings TO mallory');
is(as_role('mallory', <<'SQL'), '', 'a trigger that the owner does not trust');
CREATE FUNCTION mallory.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON shop.readings FOR EACH ROW EXECUTE FUNCTION mallory.f();
SQL
send_readings('{"sensor": "e", "celsius": 23}');
comes_to($node, 'the pipeline fails', q{SELECT bool_and(state = 'failed') FROM spine_status});
my $error = q{SELECT DISTINCT pipeline, last_error ~ 'trigger "t"' FROM spine_status};
my $worker_error = q{SELECT pipeline, last_error ~ 'trigger "t"' FROM spine_worker_status()};
foreach my $role ('clerk', 'watcher')
{
	is(as_role($role, $error), 'sensors|t', "$role sees what is wrong");
	is(as_role($role, $worker_error), 'sensors|t', "$role sees what the worker says");
	is(as_role($role, 'SELECT count(*) FROM spine_partition_status()'), '1', "$role sees the partition");
}
foreach my $view ($error, $worker_error, 'SELECT * FROM spine_partition_status()')
{
	is(as_role('mallory', $view), '', "mallory sees nothing: $view");
}

# Such a trigger is found when the pipeline is changed, too.
like(as_role('clerk', q{SELECT spine_alter_sink('sensors', 'shop.readings', '{"key": null}')}),
	qr/trigger "t" of table shop.readings would run function mallory.f\(\)/, 'a change of the sink says what is wrong');
like(as_role('clerk', q{SELECT spine_pause('sensors'), spine_resume('sensors'), 'done'}), qr/\|done$/, 'a failed pipeline can be paused');
is(as_role('clerk', 'SET ROLE shop; DROP TRIGGER t ON shop.readings'), '', 'the owner drops the trigger');
ok(wait_applied($node), 'the pipeline goes on');

#
# Seek
#
is(as_role('clerk', q{SELECT * FROM spine_seek('sensors', 0, 4)}), '0|5|4', 'a member moves the position');
comes_to($node, 'the record is applied again', 'SELECT count(*) = 2 FROM shop.readings WHERE celsius = 23');
like(as_role('mallory', q{SELECT * FROM spine_seek('sensors', 0, 0)}), qr/must be a member of role shop/, 'others do not');

#
# Locks
#
my $theirs = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);
$theirs->query('BEGIN');
foreach my $call (q{spine_pause('sensors')}, q{spine_drop_pipeline('sensors')}, q{spine_seek('sensors', 0, 0)},
	q{spine_create_pipeline('sensors', 'x')}, q{spine_alter_sink('sensors', 'shop.readings', '{}')})
{
	$theirs->query("SAVEPOINT s; SELECT $call; ROLLBACK TO s");
}
$theirs->query('SAVEPOINT s; SELECT count(*) FROM spine_status, spine_dead_letters, spine_pipelines');
like(as_role('clerk', q{SET lock_timeout = '10s'; SELECT spine_pause('sensors'), spine_resume('sensors'), 'done'}),
	qr/\|done$/, 'what others try in an open transaction holds up no member');
send_readings('{"sensor": "f", "celsius": 24}');
ok(wait_applied($node), 'and no worker');
$theirs->query('ROLLBACK');
$theirs->quit;
as_super('REVOKE DELETE ON spine_dead_letters FROM mallory');
foreach my $table ('spine_dead_letters', 'spine_status', 'spine_pipelines', 'spine_sinks')
{
	like(as_role('mallory', "BEGIN; LOCK TABLE $table IN ROW EXCLUSIVE MODE"), qr/permission denied/, "others do not lock $table");
}
like(as_role('mallory', 'SELECT * FROM spine_pipelines FOR KEY SHARE'), qr/permission denied/, 'others lock no row');

# The owner changes while a member waits.
$session->query_safe(q{BEGIN; SET ROLE shop; SELECT 1});
my $super = $node->background_psql('postgres');
$super->query_safe(q{CREATE ROLE heir; GRANT USAGE ON SCHEMA shop TO heir; GRANT INSERT ON shop.readings TO heir;
	BEGIN; SELECT spine_alter_pipeline('sensors', '{"owner": "heir"}')});
$session->query_until(qr/waits/, qq{\\echo waits\nSELECT spine_alter_sink('sensors', 'shop.readings', '{"filter": "true"}');\n});
comes_to($node, 'a member waits for the change of the owner',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'clerk' AND wait_event_type = 'Lock'});
$super->query_safe('COMMIT');
$super->quit;
$session->query('ROLLBACK');
like($session->{stderr}, qr/must be a member of role heir/, 'who is no member of the new owner is refused');
is(as_super('SELECT owner, filter FROM spine_pipelines JOIN spine_sinks ON pipeline = name'), 'heir|', 'nothing is changed');
$session->quit;
send_readings('{"sensor": "g", "celsius": 25}');
ok(wait_applied($node), 'the pipeline applies as the new owner');
is(as_role('clerk', 'SELECT * FROM spine_status'), '', 'the old owner sees the status no more');

$node->stop;
done_testing();

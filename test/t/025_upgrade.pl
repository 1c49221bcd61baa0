# ALTER EXTENSION UPDATE turns a database of an earlier version into what CREATE
# EXTENSION makes of an empty one, and keeps its contents.
#
# Broken when a change of the extension's script has no upgrade step, or when the step
# differs from the change.
use strict;
use warnings;
use File::Copy qw(copy);
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

# The earlier scripts are not installed: put them beside the current one.
my $node = spine_node('main');
chomp(my $sharedir = `pg_config --sharedir`);
foreach my $script (glob "$FindBin::RealBin/../upgrade/*.sql")
{
	copy($script, "$sharedir/extension/") or die "$script: $!";
}

# Every object of the extension, with everything that defines it.
sub definitions
{
	my ($database) = @_;

	return $node->safe_psql($database, <<'SQL');
SET search_path = '';
CREATE TEMP VIEW member AS
SELECT classid, objid, pg_catalog.pg_describe_object(classid, objid, 0) AS name
FROM pg_catalog.pg_depend
WHERE refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'spine');

SELECT name, pg_catalog.obj_description(objid, classid::pg_catalog.regclass::text) FROM member ORDER BY 1;
SELECT pg_catalog.pg_get_functiondef(oid), proacl::text FROM pg_catalog.pg_proc, member
WHERE objid = oid AND classid = 'pg_catalog.pg_proc'::pg_catalog.regclass ORDER BY 1;
SELECT name, relkind, relpersistence, reloptions, relacl::text, relrowsecurity, relforcerowsecurity,
	CASE WHEN relkind = 'v' THEN pg_catalog.pg_get_viewdef(oid) END
FROM pg_catalog.pg_class, member WHERE objid = oid AND classid = 'pg_catalog.pg_class'::pg_catalog.regclass ORDER BY 1;
SELECT name, attnum, attname, pg_catalog.format_type(atttypid, atttypmod), attnotnull, attcollation, attgenerated,
	attidentity, attacl::text, pg_catalog.pg_get_expr(adbin, adrelid), pg_catalog.col_description(objid, attnum)
FROM member JOIN pg_catalog.pg_attribute ON attrelid = objid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass ORDER BY 1, 2;
SELECT name, pg_catalog.pg_get_constraintdef(oid), conname FROM pg_catalog.pg_constraint, member
WHERE objid = conrelid AND classid = 'pg_catalog.pg_class'::pg_catalog.regclass ORDER BY 1, 2, 3;
SELECT pg_catalog.pg_get_indexdef(indexrelid) FROM pg_catalog.pg_index, member
WHERE objid = indrelid AND classid = 'pg_catalog.pg_class'::pg_catalog.regclass ORDER BY 1;
SELECT pg_catalog.pg_get_triggerdef(oid), tgenabled FROM pg_catalog.pg_trigger, member
WHERE objid = tgrelid AND NOT tgisinternal AND classid = 'pg_catalog.pg_class'::pg_catalog.regclass ORDER BY 1;
SELECT name, polname, pg_catalog.pg_get_expr(polqual, polrelid), polroles::text FROM pg_catalog.pg_policy, member
WHERE objid = polrelid ORDER BY 1, 2;
SELECT extversion, (SELECT array_agg(c::pg_catalog.regclass || ' ' || w ORDER BY c::pg_catalog.regclass::text)
	FROM ROWS FROM (pg_catalog.unnest(extconfig), pg_catalog.unnest(extcondition)) AS u (c, w))
FROM pg_catalog.pg_extension WHERE extname = 'spine';
SELECT pipeline, target, mode, key, version, columns FROM public.spine_sinks ORDER BY 1, 2::text;
SQL
}

$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('old', "CREATE EXTENSION spine VERSION '0.1.0'");
isnt(definitions('old'), definitions('postgres'), 'the versions differ');
$node->safe_psql('old', 'ALTER EXTENSION spine UPDATE');
is(definitions('old'), definitions('postgres'), 'an updated database has the same objects as a new one');

# A database with rows of the old version
$node->safe_psql('postgres', 'CREATE DATABASE used');
$node->safe_psql('used', "CREATE EXTENSION spine VERSION '0.1.0'");
$node->safe_psql('used', q{SELECT spine_produce('acme', 1000)});
ok(wait_applied($node, 'used'), 'events are applied with the old version');
$node->safe_psql('used', q{CREATE VIEW of_a_user AS SELECT * FROM spine_status});
$node->safe_psql('used', q{INSERT INTO spine_dead_letters (pipeline, topic, kafka_partition, kafka_offset, sqlstate, reason)
	VALUES ('orders', 'events', 0, 0, '22P02', 'x'), ('gone', 'events', 0, 0, '22P02', 'x')});
is($node->safe_psql('used', q{
	BEGIN;
	ALTER EXTENSION spine UPDATE;
	SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'spine%';
	COMMIT;}), '0', 'no worker is in the way of the update');
is($node->safe_psql('used', 'SELECT count(*) >= 1000 FROM events'), 't', 'rows are kept');
$node->safe_psql('used', q{SELECT spine_produce('acme', 1000)});
ok(wait_applied($node, 'used'), 'events are applied with the new version');
is($node->safe_psql('used', q{SELECT count(*) FILTER (WHERE state = 'running') > 0 FROM spine_status}), 't',
	'the pipeline runs');
is($node->safe_psql('used', q{SELECT count(*) FILTER (WHERE state = 'running') > 0 FROM of_a_user}), 't',
	q{a user's view on spine_status is kept});
is($node->safe_psql('used', q{SELECT pipeline, owner = current_user::regrole FROM spine_dead_letters ORDER BY id}), "orders|t\ngone|",
	'dead letters belong to the owners of the pipelines that are there');

# A negative position has to be repaired by a person.
$node->safe_psql('postgres', 'CREATE DATABASE negative');
$node->safe_psql('postgres', 'ALTER DATABASE negative SET spine.enabled = off');	# no worker makes the row first
$node->safe_psql('negative', "CREATE EXTENSION spine VERSION '0.1.0'");
$node->safe_psql('negative', q{
	INSERT INTO spine_offsets (pipeline, topic, partition, next_offset, cluster_id) VALUES ('orders', 'events', 0, -1, 'x')});
my ($status, $out, $err) = $node->psql('negative', 'ALTER EXTENSION spine UPDATE');
like($err, qr/spine_offsets has a row whose partition or next_offset is negative.*HINT:  Set the position/s,
	'the update refuses a negative position');
$node->safe_psql('negative', 'DELETE FROM spine_offsets; ALTER EXTENSION spine UPDATE');

done_testing();

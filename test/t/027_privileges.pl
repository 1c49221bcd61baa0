# No grant makes a superuser.  Each grant that an administrator would think harmless is
# given to a role that does its worst with it.  The role's code never runs with rights
# that the role does not have, and other people's pipelines stay theirs.  When the
# pipeline cannot continue, it names the trigger, the function and the role, and it
# continues once the cause is fixed.
#
# Broken when code that is attached to a table runs as the role that a batch, a foreign
# key or a function of the extension runs as; when the catalog lets a role change
# another's pipeline; or when a change between the check and the use goes unnoticed.
use strict;
use warnings;
use FindBin;
use HTTP::Tiny;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = spine_node('main');

sub as_super
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The errors of statements that the role runs; nothing if they succeed.
sub as_app
{
	my ($sql) = @_;
	my $err = '';

	$node->psql('postgres', $sql, stderr => \$err, extra_params => [ '-q', '-U', 'app' ], on_error_stop => 1);
	return $err;
}

# The common grants, except membership and EXECUTE, which have tests of their own below.
as_super(<<'SQL');
CREATE ROLE app LOGIN;
CREATE SCHEMA app AUTHORIZATION app;
GRANT CREATE, USAGE ON SCHEMA public TO app;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;
CREATE TABLE secret AS SELECT 'the password' AS text;
CREATE ROLE shop;
SQL

# The role's code, in every form.  A sequence keeps what a rollback would undo.
is(as_app(<<'SQL'), '', 'the role has its code');
CREATE SEQUENCE app.escalated;
GRANT USAGE ON SCHEMA app TO PUBLIC;
GRANT ALL ON SEQUENCE app.escalated TO PUBLIC;

CREATE FUNCTION app.evil() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF current_user <> 'app' THEN
		PERFORM nextval('app.escalated');
		ALTER ROLE app SUPERUSER;
	END IF;
	RETURN true;
EXCEPTION WHEN OTHERS THEN
	RETURN true;
END
$$;
CREATE FUNCTION app.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM app.evil();
	RETURN coalesce(NEW, OLD);
END
$$;
-- a function with a SET clause is called without the hook that other functions pass
CREATE FUNCTION app.evil_trigger_with_set() RETURNS trigger LANGUAGE plpgsql SET search_path = app AS $$
BEGIN
	PERFORM app.evil();
	RETURN coalesce(NEW, OLD);
END
$$;
CREATE FUNCTION app.evil_definer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	PERFORM app.evil();
	RETURN coalesce(NEW, OLD);
END
$$;
CREATE FUNCTION app.evil_equal(text, text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	RETURN app.evil();
END
$$;
CREATE OPERATOR app.=== (FUNCTION = app.evil_equal, LEFTARG = text, RIGHTARG = text);
CREATE DOMAIN app.evil_domain AS text CHECK (app.evil());
SQL

sub is_safe
{
	my ($what) = @_;

	is(as_super(q{SELECT is_called, (SELECT rolsuper FROM pg_roles WHERE rolname = 'app') FROM app.escalated}),
		'f|f', "$what: the role's code runs only with the role's rights");
	as_super(q{ALTER ROLE app NOSUPERUSER; SELECT setval('app.escalated', 1, false)});
	return;
}

sub produce
{
	as_super(q{SELECT spine_produce('acme', 20)});
	return;
}

# Makes the workers try again at once, and not only after 5 s.
sub wake_workers
{
	as_super('UPDATE spine_pipelines SET enabled = enabled');
	return;
}

# Checks that the pipeline fails for the reason, and continues once the cause is removed.
sub fails_until_fixed
{
	my ($pipeline, $what, $reason, $fix, $is_asleep) = @_;

	comes_to($node, "$what: the pipeline fails",
		"SELECT bool_and(state = 'failed' AND concat(last_error, ' HINT: ' || hint) ~ \$q\$$reason\$q\$) FROM spine_status WHERE pipeline = '$pipeline'");
	is_safe($what);
	as_super($fix);
	wake_workers() unless $is_asleep;
	ok(wait_applied($node), "$what: the pipeline continues when the cause is removed");
	is_safe("$what, removed");
	return;
}

produce();
ok(wait_applied($node), 'events flow');
is_safe('no attack');

#
# TRIGGER on the tables that events are applied to
#
is(as_app('CREATE TRIGGER t BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()'), '',
	'the role can make a trigger on a target');
produce();
fails_until_fixed('orders', 'a row trigger',
	'trigger "t" of table public.events would run function app.evil_trigger\(\) of role app with the rights of role \w+ HINT',
	'DROP TRIGGER t ON events', 1);

# A trusted function, which any role may use in a trigger
as_super('CREATE FUNCTION good() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$');
foreach my $case (
	[ 'a statement trigger', 'AFTER INSERT ON events EXECUTE FUNCTION app.evil_trigger()',
		'trigger "t" of table public.events would run' ],
	[ 'a trigger of an upsert', 'BEFORE INSERT ON current_orders FOR EACH ROW EXECUTE FUNCTION app.evil_trigger_with_set()',
		'trigger "t" of table public.current_orders would run' ],
	[ 'a condition that calls a function', 'BEFORE INSERT ON current_orders FOR EACH ROW WHEN (app.evil()) EXECUTE FUNCTION good()',
		'the condition of trigger "t" of table public.current_orders .* DETAIL: It calls function app.evil\(\)' ],
	[ 'a condition that calls a function that claims to be immutable', q{BEFORE INSERT ON current_orders FOR EACH ROW WHEN (app.evil_equal('a', 'b')) EXECUTE FUNCTION good()},
		'It calls function app.evil_equal\(' ],
	[ 'an operator', q{BEFORE INSERT ON current_orders FOR EACH ROW WHEN (NEW.status OPERATOR(app.===) 'x') EXECUTE FUNCTION good()},
		'It calls function app.evil_equal\(' ],
	[ 'a domain', q{BEFORE INSERT ON current_orders FOR EACH ROW WHEN (NEW.status::app.evil_domain IS NOT NULL) EXECUTE FUNCTION good()},
		'the condition of trigger "t"' ],
	[ q{a built-in function that runs any SQL}, q{BEFORE INSERT ON current_orders FOR EACH ROW WHEN (query_to_xml('SELECT app.evil()', true, true, '') IS NOT NULL) EXECUTE FUNCTION good()},
		'It calls function pg_catalog.query_to_xml\(' ])
{
	my ($what, $trigger, $reason) = @$case;
	my ($table) = $trigger =~ / ON (\w+)/;

	is(as_app("CREATE TRIGGER t $trigger"), '', "$what: the role can make it");
	produce();
	fails_until_fixed('orders', $what, $reason, "DROP TRIGGER t ON $table");
}

# Harmless triggers, and what makes them harmful
is(as_app(<<'SQL'), '', 'a trigger with its author\'s rights');
CREATE TRIGGER t BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION app.evil_definer();
SQL
as_super(<<'SQL');
CREATE TRIGGER good BEFORE UPDATE ON current_orders FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status AND pg_trigger_depth() = 0 AND NEW.updated_at <> now())
	EXECUTE FUNCTION good();
SQL
is(as_app('CREATE TRIGGER off AFTER INSERT ON events EXECUTE FUNCTION app.evil_trigger()'), '', 'a trigger that is about to be disabled');
as_super('ALTER TABLE events DISABLE TRIGGER off');
produce();
ok(wait_applied($node), 'harmless triggers: events flow');
is_safe('SECURITY DEFINER, a trusted function, a disabled trigger');

is(as_app('ALTER FUNCTION app.evil_definer() SECURITY INVOKER'), '', 'the function becomes SECURITY INVOKER');
produce();
fails_until_fixed('orders', 'no longer SECURITY DEFINER', 'trigger "t" of table public.events', 'DROP TRIGGER t ON events');
as_super('ALTER TABLE events ENABLE TRIGGER off');
produce();
fails_until_fixed('orders', 'no longer disabled', 'trigger "off" of table public.events', 'DROP TRIGGER off ON events');
as_super('ALTER FUNCTION good() OWNER TO app');
produce();
fails_until_fixed('orders', q{the function is given to the role}, 'trigger "good" of table public.current_orders',
	'ALTER FUNCTION good() OWNER TO CURRENT_USER');
as_super('ALTER ROLE shop SUPERUSER; ALTER FUNCTION good() OWNER TO shop');
produce();
ok(wait_applied($node), q{a superuser's function: events flow});
as_super('ALTER ROLE shop NOSUPERUSER');
produce();
fails_until_fixed('orders', 'a function of a role that is no longer a superuser', 'function public.good\(\) of role shop', 'DROP FUNCTION good() CASCADE');

# The triggers that count orders cannot be replaced; otherwise the totals would silently
# stop moving.
like(as_app("CREATE OR REPLACE TRIGGER spine_count_$_ AFTER UPDATE ON current_orders FOR EACH ROW WHEN (false) EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
	qr/cannot make trigger "spine_count_$_" of table public.current_orders: the name belongs to spine's own/, "spine_count_$_ cannot be replaced")
  foreach qw(inserted updated deleted truncated);

# A member of the role that applies has its rights anyway.
as_super(<<'SQL');
CREATE TABLE owned (tenant text);
ALTER TABLE owned OWNER TO shop;
GRANT shop TO app;
SQL
is(as_app('CREATE TRIGGER t BEFORE INSERT ON owned FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()'), '', 'a member\'s trigger');
make_pipeline($node, name => 'owned', topic => 'events', target => 'owned', mode => 'append');
ok(wait_applied($node), 'a trigger of a member of the role: events flow');
as_super(q{SELECT setval('app.escalated', 1, false)});
as_super('REVOKE shop FROM app');
produce();
fails_until_fixed('owned', 'a trigger of a role that is no longer a member', 'function app.evil_trigger\(\) of role app with the rights of role shop',
	'DROP TRIGGER t ON owned');
as_super(q{DELETE FROM spine_pipelines WHERE name = 'owned'; DROP TABLE owned});

#
# TRIGGER on a partition, and a partition that the role owns
#
as_super(<<'SQL');
CREATE TABLE parted (order_id text, tenant text) PARTITION BY LIST (tenant);
CREATE TABLE parted_acme PARTITION OF parted FOR VALUES IN ('acme') PARTITION BY LIST (tenant);
CREATE TABLE parted_acme_1 PARTITION OF parted_acme FOR VALUES IN ('acme');
GRANT TRIGGER ON parted_acme_1 TO app;
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock(1);
	RETURN NULL;
END
$$;
CREATE TRIGGER hold BEFORE INSERT ON parted EXECUTE FUNCTION hold();
SQL
make_pipeline($node, name => 'parted', topic => 'events', target => 'parted', mode => 'append');
ok(wait_applied($node), 'a partitioned target: events flow');
is(as_app('CREATE TRIGGER t BEFORE INSERT ON parted_acme_1 FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()'), '',
	'the role can make a trigger on a partition');
produce();
fails_until_fixed('parted', 'a trigger on a partition', 'trigger "t" of table public.parted_acme_1', 'DROP TRIGGER t ON parted_acme_1');

# In the middle of a batch, after the batch has checked the triggers
foreach my $case (
	[ 'a row trigger', 'FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()' ],
	[ 'a function with a SET clause', 'FOR EACH ROW EXECUTE FUNCTION app.evil_trigger_with_set()' ],
	[ 'a condition', q{FOR EACH ROW WHEN (query_to_xml('SELECT app.evil()', true, true, '') IS NOT NULL) EXECUTE FUNCTION tsvector_update_trigger('x', 'pg_catalog.simple', 'order_id')} ])
{
	my ($what, $trigger) = @$case;
	my $session = $node->background_psql('postgres');

	$session->query_safe('SELECT pg_advisory_lock(1)');
	produce();
	wait_for_held_batch($node);
	is(as_app("CREATE TRIGGER t BEFORE INSERT ON parted_acme_1 $trigger"), '', "$what: the role can make it in the middle of a batch");
	$session->query_safe('SELECT pg_advisory_unlock(1)');
	$session->quit;
	fails_until_fixed('parted', "$what, in the middle of a batch", 'trigger "t" of table public.parted_acme_1',
		'DROP TRIGGER t ON parted_acme_1');
}
is(as_super('SELECT count(*) FROM spine_dead_letters'), '0', 'no record is blamed');

as_super('CREATE TABLE parted_of_app PARTITION OF parted DEFAULT; ALTER TABLE parted_of_app OWNER TO app');
is(as_app('ALTER TABLE parted_of_app ADD CHECK (app.evil())'), '', 'the owner of a partition can add code to it');
is_safe('a CHECK added by the owner of a partition');
as_super(q{SELECT spine_produce('globex', 10)});
fails_until_fixed('parted', q{a partition of the role's}, 'partition public.parted_of_app of table public.parted belongs to role app',
	'DROP TABLE parted_of_app; CREATE TABLE parted_of_us PARTITION OF parted DEFAULT');
as_super(q{DELETE FROM spine_pipelines WHERE name = 'parted'; DROP TABLE parted});

#
# REFERENCES: a foreign key passes a change on to a table of the role, whose triggers run
# with the rights of the role that made the change (until PostgreSQL 17)
#
as_super(<<'SQL');
CREATE TABLE referenced (tenant text PRIMARY KEY, event_time timestamptz, serial bigint UNIQUE);
GRANT REFERENCES, SELECT ON referenced TO app;
SQL
make_pipeline($node, name => 'referenced', topic => 'events', target => 'referenced', mode => 'upsert', key => '{tenant}',
	version => 'event_time', columns => '{"tenant": null, "event_time": null, "serial": "$offset"}');
ok(wait_applied($node), 'a target with a second key: events flow');
is(as_app(<<'SQL'), '', 'the role can make a foreign key to it');
CREATE TABLE app.referencing (serial bigint REFERENCES referenced (serial) ON UPDATE CASCADE);
INSERT INTO app.referencing SELECT serial FROM referenced;
CREATE TRIGGER t AFTER UPDATE ON app.referencing FOR EACH ROW EXECUTE FUNCTION app.evil_trigger();
SQL
produce();
fails_until_fixed('referenced', 'a foreign key with a trigger behind it', 'trigger "t" of table app.referencing', 'DROP TABLE app.referencing');
as_super(q{DELETE FROM spine_pipelines WHERE name = 'referenced'; DROP TABLE referenced});

#
# TRIGGER and REFERENCES on the extension's own tables
#
my @own = qw(spine_pipelines spine_sinks spine_offsets spine_dead_letters spine_order_totals
	spine_order_sums spine_order_counts spine_order_changes);
foreach my $table (@own)
{
	like(as_app("CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON $table FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()"),
		qr/cannot make trigger "t": table public.$table may have none but spine's own/, "the role can make no trigger on $table");
}
like(as_app('CREATE OR REPLACE TRIGGER spine_check_member BEFORE INSERT ON spine_sinks FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()'),
	qr/may have none but spine's own/, q{spine's own triggers cannot be replaced});
like(as_app('CREATE TABLE app.r (id bigint REFERENCES spine_dead_letters ON DELETE CASCADE)'),
	qr/table app.r has a foreign key to public.spine_dead_letters, which is spine's own/, 'the role can make no foreign key to an own table');
produce();
ok(wait_applied($node), 'after refused triggers and foreign keys: events flow');
is_safe('refused triggers and foreign keys');

is(as_app(q{INSERT INTO spine_pipelines (name, enabled) VALUES ('mine', false)}), '', 'the role can make a pipeline of its own');

# While the server runs without spine's library, such triggers can be made.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
foreach my $table (@own)
{
	is(as_app("CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON $table FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()"), '',
		"a trigger on $table from before");
}
is(as_app(<<'SQL'), '', 'a foreign key from before');
CREATE TABLE app.totals (tenant text COLLATE "C", currency text COLLATE "C", status text COLLATE "C", session integer,
	FOREIGN KEY (tenant, currency, status, session) REFERENCES spine_order_totals ON DELETE CASCADE);
INSERT INTO app.totals SELECT tenant, currency, status, session FROM spine_order_totals;
CREATE TRIGGER t AFTER DELETE ON app.totals FOR EACH ROW EXECUTE FUNCTION app.evil_trigger();
SQL
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'spine'\n");
$node->restart;

my $refused = qr/trigger "t" of table public.spine_\w+ runs function app.evil_trigger\(\), which is not a part of spine|table app.totals has a foreign key to public.spine_order_totals, which is spine's own/;
foreach my $statement (q{SELECT spine_pause('orders')}, q{SELECT spine_resume('orders')}, 'SELECT spine_recount_orders()',
	'DELETE FROM current_orders', q{SELECT * FROM spine_seek('orders', NULL, 'earliest')})
{
	my ($rc, $out, $err) = $node->psql('postgres', $statement);

	like($err, $refused, "refused: $statement");
	is_safe($statement);
}
like(as_app(q{DELETE FROM spine_pipelines WHERE name = 'mine'}), $refused, 'refused: a DELETE that cascades as the owner of the tables');
is_safe('a cascade');
is(as_super('DROP TRIGGER t ON spine_pipelines; DROP TRIGGER t ON spine_sinks'), '', 'the triggers on the catalog are dropped');
foreach my $case (
	[ 'spine_offsets', 'of table public.spine_offsets runs function', 'DROP TRIGGER t ON spine_offsets' ],
	[ 'spine_dead_letters', 'of table public.spine_dead_letters runs function', 'DROP TRIGGER t ON spine_dead_letters' ],
	[ 'a foreign key', 'table app.totals has a foreign key to public.spine_order_totals', 'DROP TABLE app.totals' ],
	[ 'spine_order_totals', 'of table public.spine_order_totals runs function', 'DROP TRIGGER t ON spine_order_totals' ],
	(map { [ $_, "of table public.$_ runs function", "DROP TRIGGER t ON $_" ] } qw(spine_order_sums spine_order_counts spine_order_changes)))
{
	my ($what, $reason, $fix) = @$case;

	comes_to($node, "the pipeline fails: $what",
		"SELECT bool_and(state = 'failed' AND last_error ~ '$reason') FROM spine_status WHERE pipeline = 'orders'");
	like(as_app('TRUNCATE current_orders'), $refused, 'refused: a TRUNCATE that moves the totals')
	  if $what =~ /foreign|totals/;
	is_safe($what);
	as_super($fix);
	wake_workers();
}
ok(wait_applied($node), 'all foreign triggers are gone: events flow');
is(as_app(q{DELETE FROM spine_pipelines WHERE name = 'mine'}), '', 'the role can delete its own pipeline again');

#
# INSERT, UPDATE, DELETE and TRUNCATE on the catalog: the role can change its own pipelines
# only
#
is(as_app(<<'SQL'), '', 'the role makes, renames and uses a pipeline of its own');
CREATE TABLE app.mine (tenant text);
INSERT INTO spine_pipelines (name, topic) VALUES ('first', 'events');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('first', 'app.mine', 'append');
UPDATE spine_pipelines SET name = 'mine' WHERE name = 'first';
UPDATE spine_pipelines SET enabled = false WHERE name = 'mine';
UPDATE spine_sinks SET columns = '{"tenant": "tenant"}' WHERE pipeline = 'mine';
INSERT INTO spine_offsets (pipeline, topic, partition, next_offset, cluster_id) VALUES ('mine', 'other', 0, 0, 'x');
UPDATE spine_offsets SET next_offset = 7 WHERE topic = 'other';
DELETE FROM spine_offsets WHERE topic = 'other';
SQL
as_super(q{INSERT INTO spine_pipelines (name, owner, enabled) VALUES ('shopping', 'shop', false)});
my $before = as_super('TABLE spine_pipelines; TABLE spine_sinks; SELECT pipeline, next_offset FROM spine_offsets');
foreach my $statement (
	q{UPDATE spine_sinks SET pipeline = 'mine' WHERE pipeline = 'orders'},
	q{UPDATE spine_sinks SET pipeline = 'orders' WHERE pipeline = 'mine'},
	q{UPDATE spine_sinks SET target = 'secret' WHERE pipeline = 'orders'},
	q{DELETE FROM spine_sinks},
	q{INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'app.mine', 'append')},
	q{INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'events', 'append') ON CONFLICT (pipeline, target) DO UPDATE SET mode = 'append'},
	q{UPDATE spine_pipelines SET owner = 'app' WHERE name = 'orders'},
	q{UPDATE spine_pipelines SET owner = 'app'},
	q{UPDATE spine_pipelines SET enabled = false WHERE name = 'orders'},
	q{UPDATE spine_pipelines SET topic = 'mine' WHERE name = 'orders'},
	q{UPDATE spine_pipelines SET name = 'theirs' WHERE name = 'orders'},
	q{UPDATE spine_pipelines SET owner = 'shop' WHERE name = 'mine'},
	q{INSERT INTO spine_pipelines (name, owner) VALUES ('other', 'shop')},
	q{DELETE FROM spine_pipelines WHERE name = 'orders'},
	q{DELETE FROM spine_pipelines WHERE name = 'shopping'},
	q{TRUNCATE spine_pipelines CASCADE},
	q{TRUNCATE spine_sinks},
	q{TRUNCATE spine_offsets},
	q{DELETE FROM spine_offsets},
	q{UPDATE spine_offsets SET next_offset = 0},
	q{UPDATE spine_offsets SET worker_next_offset = 5, next_offset = 5},
	q{UPDATE spine_offsets SET pipeline = 'mine'},
	q{INSERT INTO spine_offsets (pipeline, topic, partition, next_offset, cluster_id) VALUES ('orders', 'other', 0, 0, 'x')})
{
	like(as_app($statement), qr/must be a member of (the )?role /, "refused: $statement");
}
is(as_super('TABLE spine_pipelines; TABLE spine_sinks; SELECT pipeline, next_offset FROM spine_offsets'), $before, 'refused statements change nothing');

# Membership
as_super('GRANT shop TO app');
is(as_app(q{UPDATE spine_pipelines SET topic = 'x' WHERE name = 'shopping'; UPDATE spine_pipelines SET owner = 'app' WHERE name = 'shopping'}), '',
	'a member of the owner can change the pipeline');
as_super(q{UPDATE spine_pipelines SET owner = 'shop' WHERE name = 'shopping'});
SKIP:
{
	skip 'SET is an option since PostgreSQL 16', 2 if $node->pg_version < 16;
	as_super('REVOKE shop FROM app; GRANT shop TO app WITH SET FALSE');
	like(as_app(q{UPDATE spine_pipelines SET topic = 'y' WHERE name = 'shopping'}), qr/must be a member/, 'a member that may not SET ROLE to the owner cannot');
	like(as_app(q{UPDATE spine_pipelines SET owner = 'shop' WHERE name = 'mine'}), qr/must be a member/, 'such a member cannot make a pipeline apply as the owner');
}
as_super('REVOKE shop FROM app');

# Only the administrator can change a pipeline whose owner is gone.
as_super(q{CREATE ROLE gone; INSERT INTO spine_pipelines (name, owner, enabled) VALUES ('orphan', 'gone', false); DROP ROLE gone});
like(as_app(q{UPDATE spine_pipelines SET owner = 'app' WHERE name = 'orphan'}), qr/must be a member of role \d+/, 'a pipeline without an owner cannot be taken over');
as_super(q{DELETE FROM spine_pipelines WHERE name IN ('orphan', 'shopping')});
is(as_app(q{DELETE FROM spine_pipelines WHERE name = 'mine'}), '', 'the role can delete its own pipeline');
is(as_super(q{SELECT count(*) FROM spine_sinks WHERE pipeline = 'mine'}), '0', 'the sinks of the pipeline are gone with it');

#
# EXECUTE on all functions
#
as_super('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO app');
foreach my $table (@own)
{
	like(as_app("CREATE OR REPLACE TRIGGER spine_check_member BEFORE INSERT ON $table FOR EACH ROW WHEN (false) EXECUTE FUNCTION spine_check_member()"),
		qr/may have none but spine's own/, "no trigger of $table can be disabled by replacing it");
}
# spine_count_orders must not count a view of the role as the new rows of a table.
my $counted = q{SELECT app.evil()::text AS tenant, 'USD' AS currency, 's' AS status, 1 AS amount_cents, now() AS updated_at};
foreach my $table (qw(app.bait current_orders))
{
	like(as_app(<<"SQL"), qr/trigger "t" of table \w+(\.\w+)? is not one of spine's own/, "spine_count_orders refuses a trigger of the role on $table");
CREATE TEMP VIEW new_orders AS $counted;
CREATE TEMP VIEW old_orders AS $counted;
CREATE TABLE app.bait (tenant text, order_id text, status text, amount_cents bigint, updated_at timestamptz);
CREATE TRIGGER t AFTER INSERT ON $table EXECUTE FUNCTION spine_count_orders();
INSERT INTO $table (tenant, order_id, status, amount_cents, updated_at) VALUES ('t', 'o', 's', 1, now());
SQL
	is_safe("spine_count_orders on $table");
	as_super("DROP TRIGGER t ON $table; DROP TABLE app.bait");
}
like(as_app(q{SELECT spine_check_triggers('secret')}), qr/is not a table of spine's own/, q{spine_check_triggers checks spine's own tables only});
is(as_app(<<'SQL'), '', q{the role can use spine's trigger functions});
CREATE TABLE app.bait (pipeline name, name name, owner regrole, target regclass);
CREATE TRIGGER a BEFORE INSERT ON app.bait FOR EACH ROW EXECUTE FUNCTION app.evil_trigger();
CREATE TRIGGER b BEFORE INSERT ON app.bait FOR EACH ROW EXECUTE FUNCTION spine_check_member();
CREATE TRIGGER c BEFORE INSERT ON app.bait FOR EACH ROW EXECUTE FUNCTION spine_check_pipeline();
INSERT INTO app.bait VALUES ('x', 'x', 'app', 'app.bait');
DROP TABLE app.bait;
SQL
foreach my $call (q{spine_pause('orders')}, q{spine_resume('orders')}, q{spine_seek('orders', NULL, 'latest')},
	q{spine_add_sink('orders', 'app.escalated')}, q{spine_drop_pipeline('orders')},
	q{spine_create_pipeline('evil', 'x', owner => (SELECT owner FROM spine_pipelines WHERE name = 'orders'))},
	# as if a superuser had passed the gate
	q{spine_alter_pipeline_as(10, 'orders', '{"enabled": false}')}, q{spine_drop_pipeline_as(10, 'orders', false)},
	q{spine_create_pipeline_as(10, 'evil', 'x', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true, false)},
	q{spine_add_sink_as(10, 'orders', 'secret', NULL, NULL, NULL, NULL, NULL)},
	q{spine_move_positions_as(10, 'orders', NULL, 0, 0, NULL, NULL)})
{
	like(as_app("SELECT $call"), qr/must be a member of (the )?role |must have the privileges of role postgres/, "with EXECUTE the role cannot change others' pipelines: $call");
}
is(as_app('SELECT * FROM spine_topic_offsets(\'events\'), spine_brokers(), spine_readiness(), spine_metrics_text(), spine_recount_orders()'), '', 'with EXECUTE the role can read and recount');
produce();
ok(wait_applied($node), 'with EXECUTE on all functions: events flow');
is_safe('EXECUTE');
like(as_app('TABLE secret'), qr/permission denied/, 'EXECUTE shows no secret');
as_super('REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM app');

#
# CREATE on the extension's schema: functions and operators that would be found first
#
my @types = qw(text name integer bigint timestamptz regrole oid jsonb boolean numeric);
is(as_app(join '', "SET search_path = public;\n", map {
	my $type = $_;
	my $name = $type =~ s/\W//gr;
	"CREATE FUNCTION evil_$name($type, $type) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN app.evil(); END';\n"
	  . join('', map { "CREATE OPERATOR $_ (FUNCTION = evil_$name, LEFTARG = $type, RIGHTARG = $type);\n" } '=', '<>', '<', '>', '>=', '<=', '~', '||')
} @types), '', q{the role can make operators that a search_path finds before PostgreSQL's});
is(as_app(<<'SQL'), '', 'the role can make such functions');
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); RETURN pg_catalog.now(); END';
CREATE FUNCTION public.coalesce(bigint, integer) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); RETURN 0; END';
CREATE FUNCTION public.quote_ident(name) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); RETURN $1; END';
CREATE FUNCTION public.pg_has_role(regrole, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN app.evil(); END';
CREATE FUNCTION public.jsonb_typeof(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); RETURN $1; END';
-- named as the extension's own functions, with a type that fits a literal better
CREATE FUNCTION public.spine_check_triggers(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); END';
CREATE FUNCTION public.spine_move_positions(name, text, integer, bigint, text, text)
	RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint) LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); END';
CREATE FUNCTION public.spine_walk_orders(text, text, text, integer, integer)
	RETURNS SETOF public.spine_order LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); END';
CREATE FUNCTION public.spine_tenant_orders(text, text, text, integer)
	RETURNS SETOF public.spine_order LANGUAGE plpgsql AS 'BEGIN PERFORM app.evil(); END';
CREATE FUNCTION public.json_agg(public.spine_order) RETURNS json LANGUAGE sql AS $$ SELECT '"evil"'::json $$;
SQL
produce();
ok(wait_applied($node), 'such operators and functions: events flow');
as_super(<<'SQL');
SET search_path = public, pg_catalog;
SELECT spine_pause('orders'), spine_resume('orders'), spine_recount_orders();
SELECT * FROM spine_seek('orders', 0, 0::bigint);
SELECT * FROM spine_seek('orders', NULL, 'latest');
SELECT * FROM spine_orders();
SELECT * FROM spine_orders('acme', 'order_paid', 5);
SELECT * FROM spine_walk_orders('acme', NULL, timestamptz '-infinity', 100, 5);
SELECT * FROM spine_tenant_orders('acme', NULL, timestamptz '-infinity', 5);
SELECT * FROM spine_stats(), spine_readiness(), spine_metrics_text();
SQL
as_super(<<'SQL');
SET search_path = public, pg_catalog;
INSERT INTO public.spine_pipelines (name, topic, enabled) VALUES ('probe', 'x', false);
INSERT INTO public.spine_sinks (pipeline, target, mode) VALUES ('probe', 'public.secret', 'append');
UPDATE public.spine_pipelines SET topic = 'y';
DELETE FROM public.spine_pipelines WHERE name OPERATOR(pg_catalog.=) 'probe';
UPDATE public.spine_pipelines SET topic = NULL;
SQL
is_safe('CREATE on the schema');
grant_http_role($node);
my $http = start_http($node);
like(HTTP::Tiny->new->get("$http->{url}/orders?limit=1")->{content}, qr/"order_id"/, 'spine-http runs none of these functions');
stop_http($http);

# The extension's functions name its schema.  If the schema were renamed, they would find
# what somebody else creates under the old name.
as_super('GRANT CREATE ON DATABASE postgres TO app; ALTER SCHEMA public OWNER TO app');
like(as_app('ALTER SCHEMA public RENAME TO elsewhere'), qr/cannot rename schema public: the functions of the extension spine name it/,
	q{the owner of the extension's schema cannot rename it});
is(as_app('ALTER SCHEMA app RENAME TO app_2; ALTER SCHEMA app_2 RENAME TO app'), '', 'another schema can be renamed');
as_super('ALTER SCHEMA public OWNER TO CURRENT_USER; REVOKE CREATE ON DATABASE postgres FROM app');

#
# The default pipeline can do without a superuser, as docs/CONFIGURATION.md says
#
as_super(<<'SQL');
GRANT SELECT, INSERT, UPDATE ON events, current_orders TO shop;
UPDATE spine_pipelines SET owner = 'shop' WHERE name = 'orders';
CREATE TABLE applied_as (who name);
GRANT INSERT ON applied_as TO shop;
CREATE FUNCTION note_who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.applied_as VALUES (current_user);
	RETURN NULL;
END
$$;
CREATE TRIGGER note AFTER INSERT ON events EXECUTE FUNCTION note_who();
SQL
produce();
ok(wait_applied($node), 'an owner who is no superuser: events flow');
is(as_super('SELECT DISTINCT who FROM applied_as'), 'shop', 'statements run as that owner');
is(as_super('SELECT count(*) FROM spine_dead_letters'), '0', 'none of all this makes a dead letter');
is_safe('everything');

$node->stop;
done_testing();

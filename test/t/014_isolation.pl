# A fault in one place must not touch its neighbours: a partition that cannot be read,
# a trigger that changes settings, a row that only one table refuses, a launcher that
# ends.
#
# Broken when a stuck partition stops the others or is skipped silently, when the
# settings of a user's trigger reach the worker's own statements, when a refused row
# vanishes without a dead letter, when a second embedded broker is started beside the
# first, or when a broker that hangs keeps a worker from ending.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $broker = start_broker('events', 3);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'");

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

sub send_events
{
	my ($partition, @events) = @_;

	send_lines($broker->{address}, 'events', $partition, join('', map { "k\t$_\n" } @events));
	return;
}

#
# A trigger of the table's owner changes settings.  Its author is not to be trusted, so
# the settings must be gone before the worker's own statements, which run as superuser.
#
query(<<'SQL');
CREATE ROLE mallory;
CREATE SCHEMA evil AUTHORIZATION mallory;
ALTER TABLE current_orders OWNER TO mallory;
CREATE TABLE evil.ran_as (who name);
GRANT ALL ON evil.ran_as TO PUBLIC;
ALTER TABLE evil.ran_as OWNER TO mallory;
SET ROLE mallory;
CREATE FUNCTION evil.equal(name, name) RETURNS boolean LANGUAGE plpgsql AS
$$BEGIN INSERT INTO evil.ran_as VALUES (current_user); RETURN $1 OPERATOR(pg_catalog.=) $2; END$$;
CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = name, RIGHTARG = name);
CREATE FUNCTION evil.change_settings() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
	PERFORM set_config('search_path', 'evil, pg_catalog', false);
	PERFORM set_config('timezone', 'Asia/Tokyo', false);
	RETURN NEW;
END$$;
CREATE TRIGGER change_settings BEFORE INSERT ON current_orders
	FOR EACH ROW EXECUTE FUNCTION evil.change_settings();
SQL
send_events(0, order_event(order_id => 'first'));
ok(wait_applied($node), 'a batch with a trigger that changes settings');
send_events(0, order_event(order_id => 'second', event_time => '2026-05-01T12:00:00'), 'not json');
ok(wait_applied($node), 'the next batch');
is(query('SELECT count(*) FROM evil.ran_as'), '0', q{the worker runs none of the table owner's code with its own rights});
is(query(q{SELECT event_time AT TIME ZONE 'UTC' FROM events WHERE order_id = 'second'}),
	'2026-05-01 12:00:00', 'a timestamp without a zone is still UTC');
query('ALTER TABLE current_orders OWNER TO postgres; DROP TRIGGER change_settings ON current_orders');

#
# An append sink without a key: a row that a unique index refuses becomes a dead
# letter, and is not skipped.
#
query(<<'SQL');
CREATE TABLE mails (mail text UNIQUE, n bigint);
INSERT INTO spine_pipelines (name) VALUES ('mails');
INSERT INTO spine_sinks (pipeline, target, mode, columns)
	VALUES ('mails', 'mails', 'append', '{"mail": "mail", "n": "$offset"}');
SQL
send_events(1, map { order_event(mail => $_) } 'a@b', 'c@d', 'a@b');
ok(wait_applied($node), 'an append sink without a key');
is(query(q{SELECT string_agg(mail, ' ' ORDER BY n) FROM mails WHERE mail IS NOT NULL}), 'a@b c@d', 'the rows that fit are applied');
is(query(q{SELECT kafka_offset || ' ' || sqlstate FROM spine_dead_letters WHERE pipeline = 'mails' AND kafka_partition = 1}),
	'2 23505', 'the row that does not fit is a dead letter');
query(q{DELETE FROM spine_pipelines WHERE name = 'mails'});

#
# An internal error that a trigger or a type raises for one row is the fault of that
# row.  When every row raises one, the rows are not at fault.
#
query(<<'SQL');
CREATE FUNCTION fussy() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
	IF NEW.event_type LIKE 'odd%' THEN RAISE 'odd' USING ERRCODE = 'XX000'; END IF;
	RETURN NEW;
END$$;
CREATE TRIGGER fussy BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION fussy();
TRUNCATE spine_dead_letters;
SQL
my $worker = join ' ', worker_pids($node);
query(q{SELECT spine_pause('orders')});
ok(wait_for_state($node, 'paused'), 'paused, so that the next events share a batch');
send_events(2, order_event(order_id => 'good-1'), order_event(event_type => 'odd'), order_event(order_id => 'good-2'));
query(q{SELECT spine_resume('orders')});
ok(wait_applied($node), 'one internal error among good rows');
is(query(q{SELECT string_agg(order_id, ' ' ORDER BY order_id) FROM events WHERE order_id LIKE 'good%'}),
	'good-1 good-2', 'the good rows are applied');
is(query('SELECT kafka_offset || sqlstate FROM spine_dead_letters'), '1XX000', 'the bad row is a dead letter');
send_events(2, order_event(order_id => 'later', event_type => 'odd, too'));
ok($node->poll_query_until('postgres', q{SELECT bool_or(state = 'failed' AND last_error ~ 'odd') FROM spine_status}),
	'when no row passes, the pipeline fails');
is(query('SELECT count(*) FROM spine_dead_letters'), '1', 'a failed pipeline makes no dead letters');
query('DROP TRIGGER fussy ON events');
ok(wait_applied($node), 'the pipeline continues once the trigger is gone');
is(query(q{SELECT count(*) FROM events WHERE order_id = 'later'}), '1', 'the row that had to wait is applied');

#
# One partition has a gap: the broker has dropped records that were not applied yet.  The
# pipeline says which offsets are gone, and the other partitions continue.
#
query(q{SELECT spine_pause('orders')});
ok(wait_for_state($node, 'paused'), 'paused');
my $filler = 'x' x 900_000;
send_values($broker->{address}, 'events', 0, [ map { qq({"n": $_, "filler": "$filler"}) } 1 .. 8 ]);
query(q{SELECT spine_resume('orders')});
ok($node->poll_query_until('postgres', <<'SQL'), 'the pipeline fails, and names the exact range');
SELECT bool_or(state = 'failed' AND concat(last_error, ' HINT: ' || hint) ~ 'offsets 3 to \d+ of partition 0 of topic "events" are gone from the log before they were applied HINT: .*SELECT spine_seek\(''orders'', 0, ''earliest''\)')
FROM spine_status
SQL
send_events(1, order_event(order_id => 'beside-1'));
send_events(2, order_event(order_id => 'beside-2'));
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM events WHERE order_id LIKE 'beside%'}),
	'the other partitions continue');
is(query('SELECT next_offset FROM spine_offsets WHERE partition = 0'), '3', 'nothing is skipped');
ok(wait_for_state($node, 'failed'), 'the pipeline still says failed');
query(q{SELECT spine_seek('orders', 0, 'earliest')});
ok(wait_for_state($node, 'running'), 'once the hint is followed, the pipeline runs');
ok(wait_applied($node), 'all partitions catch up');

#
# The same while the other partitions have a backlog.  The gap is explained before the
# backlog is drained, the others continue in full batches, and the partition with the
# gap is tried again alone.
#
query(q{SELECT spine_pause('orders')});
ok(wait_for_state($node, 'paused'), 'paused');
my $position = query('SELECT next_offset FROM spine_offsets WHERE partition = 0');
send_values($broker->{address}, 'events', 0, [ map { qq({"n": $_, "filler": "$filler"}) } 1 .. 8 ]);
send_events(1, map { order_event(order_id => 'backlog') } 1 .. 20000);
query(<<'SQL');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END$$;
CREATE TRIGGER slow AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION slow();
SQL
set_config($node, 'spine.batch_rows' => 500);
my $batches = q{SELECT batches FROM spine_pipeline_counters() WHERE pipeline = 'orders'};
my $batches_before = query($batches);
query(q{SELECT spine_resume('orders')});
my $explained = "state = 'failed' AND last_error LIKE 'offsets $position to %'";
comes_to($node, 'with a backlog: the pipeline fails, with the reason', "SELECT bool_or($explained) FROM spine_status");
cmp_ok(query(q{SELECT count(*) FROM events WHERE order_id = 'backlog'}), '<', 20000, 'the reason is known before the backlog is drained');
my $threads = client_threads($node);
my $said_at = query('SELECT max(last_error_at) FROM spine_status');
comes_to($node, 'the backlog of the others is drained', q{SELECT count(*) = 20000 FROM events WHERE order_id = 'backlog'});
cmp_ok(query($batches) - $batches_before, '<=', 60, 'the others continue in full batches');
comes_to($node, 'the partition is tried again', "SELECT bool_or($explained AND last_error_at > '$said_at') FROM spine_status");
send_events(2, order_event(order_id => 'beside-3'));
comes_to($node, 'the other partitions read new events', q{SELECT count(*) = 1 FROM events WHERE order_id = 'beside-3'});
is(client_threads($node), $threads, 'the client is still the same');
is(query('SELECT next_offset FROM spine_offsets WHERE partition = 0'), $position, 'nothing is skipped');
query('DROP TRIGGER slow ON events');
query(q{SELECT spine_seek('orders', 0, 'earliest')});
ok(wait_for_state($node, 'running'), 'once the hint is followed, the pipeline runs');
ok(wait_applied($node), 'all partitions catch up');

#
# The broker refuses all reads for a while.  The partitions continue by themselves.
#
$threads = client_threads($node);
tell_broker($broker, 'refuse');
comes_to($node, 'reads are refused: the pipeline fails, with the reason',
	q{SELECT bool_or(state = 'failed' AND last_error ~ 'cannot be read from offset \d+: .*uthoriz') FROM spine_status});
ok(wait_for_state($node, 'running'), 'the pipeline runs when reads are allowed again');
send_events($_, order_event(order_id => 'after the refusal')) for 0 .. 2;
comes_to($node, 'nothing is lost', q{SELECT count(*) = 3 FROM events WHERE order_id = 'after the refusal'});
is(client_threads($node), $threads, 'the refusal cost no new client');

#
# A partition is lost, and then its broker does not say where it begins and ends: what is
# known of it is said all the same, and the other partition is still applied.
#
my $pair = start_broker('events', 2, 2);
tell_broker($pair, 'split spine-postgres-orders');
my $divided = spine_node('divided', conf => "spine.brokers = '$pair->{address}'");
send_values($pair->{address}, 'events', $_, [ order_event(order_id => "divided-$_") ]) for 0, 1;
ok(wait_applied($divided), 'with a broker for each of two partitions');
$divided->safe_psql('postgres', q{SELECT spine_pause('orders')});
ok(wait_for_state($divided, 'paused'), 'paused');
$divided->safe_psql('postgres', <<'SQL');
UPDATE spine_offsets SET next_offset = 1000, worker_next_offset = 1000, mark_offset = 999 WHERE partition = 1;
SELECT spine_resume('orders');
SQL
comes_to($divided, 'one is lost',
	q{SELECT bool_or(state = 'failed' AND last_error ~ 'partition 1 .* ends at offset 1, before the position 1000') FROM spine_status});
tell_broker($pair, 'mute');
comes_to($divided, 'and its broker does not answer',
	q{SELECT bool_or(last_error ~ 'offset 1000 of partition 1 of topic "events" is not there') FROM spine_status});
send_values($pair->{address}, 'events', 0, [ order_event(order_id => 'divided-2') ]);
comes_to($divided, 'the other partition is applied meanwhile',
	q{SELECT count(*) = 1 FROM events WHERE order_id = 'divided-2'});
$divided->stop;
stop_broker($pair);

#
# start = 'latest', with several workers at once: no worker takes a partition that was
# there before for a new one.
#
query(q{ALTER SYSTEM SET spine.workers = 3; SELECT pg_reload_conf()});
query(<<'SQL');
CREATE TABLE late (id text, n bigint);
INSERT INTO spine_pipelines (name, start) VALUES ('late', 'latest');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('late', 'late', 'append', '{"id": "order_id", "n": "$offset"}');
SQL
ok($node->poll_query_until('postgres', q{SELECT count(*) = 3 FROM spine_offsets WHERE pipeline = 'late'}), 'latest: every partition has a position');
send_events($_, order_event(order_id => "new-$_")) for 0 .. 2;
ok(wait_applied($node), 'new events are applied');
is(query(q{SELECT string_agg(id, ' ' ORDER BY id) FROM late}), 'new-0 new-1 new-2', 'only the new events are applied');

#
# The launcher ends, and its successor finds the embedded broker running.
#
query(q{DELETE FROM spine_pipelines WHERE name = 'late'});
query(q{ALTER SYSTEM SET spine.brokers = ''; SELECT pg_reload_conf()});
ok(wait_for_state($node, 'failed'), 'the embedded broker is another cluster');
query(q{DELETE FROM spine_offsets});
is(query(q{SELECT spine_produce('acme', 10); SELECT spine_wait()}), "10\nt", 'events pass through the embedded broker');
my $address = query('SELECT spine_brokers()');
my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'spine launcher'};
my $old = query($launcher);
query("SELECT pg_terminate_backend($old)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($launcher) l WHERE pid <> $old"), 'another launcher starts');
query(q{ALTER SYSTEM SET spine.workers = 1; SELECT pg_reload_conf()});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine worker'}),
	'the new launcher changes the number of workers');
is(query('SELECT spine_brokers()'), $address, 'the embedded broker is the one from before');
is(query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'}), '1', 'there is no second embedded broker');
query("ALTER SYSTEM SET spine.brokers = '$broker->{address}'; SELECT pg_reload_conf()");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'}),
	'the new launcher can stop the embedded broker');

#
# The broker hangs while a commit to the consumer group is under way (one is sent
# within 5 s after a batch).  The worker can still end, and its successor can say what is
# wrong.
#
ok(wait_for_state($node, 'running'), 'on the other broker again');
foreach my $n (1, 2)
{
	send_events(1, order_event(order_id => "last-$n"));
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM events WHERE order_id = 'last-$n'"), "event $n");
}
$broker->{process}->signal('STOP');
ok($node->poll_query_until('postgres', q{SELECT max(last_commit_at) < clock_timestamp() - interval '5500 ms' FROM spine_status}),
	'the broker hangs, with a commit to the consumer group under way');
($worker) = worker_pids($node);
my $start = time;
kill 'TERM', $worker;
usleep(1000) while kill(0, $worker) && time < $start + 120;
my $seconds = time - $start;
note sprintf('SIGTERM ended the worker after %.0f ms', $seconds * 1000);
# otherwise the worker would end when librdkafka stops waiting for an answer, after a minute
cmp_ok($seconds, '<', 50, 'SIGTERM ends the worker even so');
ok(wait_for_state($node, 'waiting'), 'the next worker says that it waits');
$broker->{process}->signal('CONT');
ok(wait_for_state($node, 'running'), 'the worker continues when the broker does');

$node->stop;
stop_broker($broker);
done_testing();

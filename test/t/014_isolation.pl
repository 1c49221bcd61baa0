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
# A trigger of the table's owner changes settings.  Its author is not us: what
# it sets must be gone before the bookkeeping, which runs as superuser.
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
ok(wait_applied($node), 'and the next one');
is(query('SELECT count(*) FROM evil.ran_as'), '0', 'nothing of the owner of the table was run by the worker');
is(query(q{SELECT event_time AT TIME ZONE 'UTC' FROM events WHERE order_id = 'second'}),
	'2026-05-01 12:00:00', 'a timestamp without a zone is UTC still');
query('ALTER TABLE current_orders OWNER TO postgres; DROP TRIGGER change_settings ON current_orders');

#
# An append sink without a key: a row that some unique index refuses is a dead
# letter, not skipped.
#
query(<<'SQL');
CREATE TABLE mails (mail text UNIQUE, n bigint);
INSERT INTO spine_pipelines (name) VALUES ('mails');
INSERT INTO spine_sinks (pipeline, target, mode, columns)
	VALUES ('mails', 'mails', 'append', '{"mail": "mail", "n": "$offset"}');
SQL
send_events(1, map { order_event(mail => $_) } 'a@b', 'c@d', 'a@b');
ok(wait_applied($node), 'a keyless append');
is(query(q{SELECT string_agg(mail, ' ' ORDER BY n) FROM mails WHERE mail IS NOT NULL}), 'a@b c@d', 'the rows that fit');
is(query(q{SELECT kafka_offset || ' ' || sqlstate FROM spine_dead_letters WHERE pipeline = 'mails' AND kafka_partition = 1}),
	'2 23505', 'and a dead letter for the one that does not');
query(q{DELETE FROM spine_pipelines WHERE name = 'mails'});

#
# An internal error that a trigger or a type raises for one row is that row's;
# when every row gets one, it is not the rows'.
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
ok(wait_for_state($node, 'paused'), 'paused, so that they are one batch');
send_events(2, order_event(order_id => 'good-1'), order_event(event_type => 'odd'), order_event(order_id => 'good-2'));
query(q{SELECT spine_resume('orders')});
ok(wait_applied($node), 'one internal error among good rows');
is(query(q{SELECT string_agg(order_id, ' ' ORDER BY order_id) FROM events WHERE order_id LIKE 'good%'}),
	'good-1 good-2', 'the good ones are applied');
is(query('SELECT kafka_offset || sqlstate FROM spine_dead_letters'), '1XX000', 'the other is a dead letter');
send_events(2, order_event(order_id => 'later', event_type => 'odd, too'));
ok($node->poll_query_until('postgres', q{SELECT bool_or(state = 'failed' AND last_error ~ 'odd') FROM spine_status}),
	'when no row passes, the pipeline fails');
is(query('SELECT count(*) FROM spine_dead_letters'), '1', 'and makes no dead letters');
query('DROP TRIGGER fussy ON events');
ok(wait_applied($node), 'and goes on when that is mended');
is(query(q{SELECT count(*) FROM events WHERE order_id = 'later'}), '1', 'with the row it waited with');

#
# One partition is lost (the broker has dropped what was not applied yet): the
# pipeline says which offsets, and the other partitions go on.
#
query(q{SELECT spine_pause('orders')});
ok(wait_for_state($node, 'paused'), 'paused');
my $filler = 'x' x 900_000;
send_values($broker->{address}, 'events', 0, [ map { qq({"n": $_, "filler": "$filler"}) } 1 .. 8 ]);
query(q{SELECT spine_resume('orders')});
ok($node->poll_query_until('postgres', <<'SQL'), 'failed, with the exact range');
SELECT bool_or(state = 'failed' AND concat(last_error, ' HINT: ' || hint) ~ 'offsets 3 to \d+ of partition 0 of topic "events" are gone from the log before they were applied HINT: .*SELECT spine_seek\(''orders'', 0, ''earliest''\)')
FROM spine_status
SQL
send_events(1, order_event(order_id => 'beside-1'));
send_events(2, order_event(order_id => 'beside-2'));
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM events WHERE order_id LIKE 'beside%'}),
	'the other partitions go on');
is(query('SELECT next_offset FROM spine_offsets WHERE partition = 0'), '3', 'nothing is skipped');
ok(wait_for_state($node, 'failed'), 'and it stays said');
query(q{SELECT spine_seek('orders', 0, 'earliest')});
ok(wait_for_state($node, 'running'), 'after the hint is followed, all run');
ok(wait_applied($node), 'and catch up');

#
# The same with a backlog of the others: it is explained before they are drained, they
# go on in full batches, and it is tried again alone.
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
comes_to($node, 'with a backlog: failed, with the reason', "SELECT bool_or($explained) FROM spine_status");
cmp_ok(query(q{SELECT count(*) FROM events WHERE order_id = 'backlog'}), '<', 20000, 'which is said before it is drained');
my $threads = client_threads($node);
my $said_at = query('SELECT max(last_error_at) FROM spine_status');
comes_to($node, 'the others are drained', q{SELECT count(*) = 20000 FROM events WHERE order_id = 'backlog'});
cmp_ok(query($batches) - $batches_before, '<=', 60, 'in full batches');
comes_to($node, 'it is tried again', "SELECT bool_or($explained AND last_error_at > '$said_at') FROM spine_status");
send_events(2, order_event(order_id => 'beside-3'));
comes_to($node, 'the others go on', q{SELECT count(*) = 1 FROM events WHERE order_id = 'beside-3'});
is(client_threads($node), $threads, 'with the same client');
is(query('SELECT next_offset FROM spine_offsets WHERE partition = 0'), $position, 'nothing is skipped');
query('DROP TRIGGER slow ON events');
query(q{SELECT spine_seek('orders', 0, 'earliest')});
ok(wait_for_state($node, 'running'), 'after the hint is followed, all run');
ok(wait_applied($node), 'and catch up');

#
# The broker refuses to have them read, and then does not: they go on by themselves.
#
$threads = client_threads($node);
tell_broker($broker, 'refuse');
comes_to($node, 'refused: failed, with the reason',
	q{SELECT bool_or(state = 'failed' AND last_error ~ 'cannot be read from offset \d+: .*uthoriz') FROM spine_status});
ok(wait_for_state($node, 'running'), 'and running when it is over');
send_events($_, order_event(order_id => 'after the refusal')) for 0 .. 2;
comes_to($node, 'nothing is lost', q{SELECT count(*) = 3 FROM events WHERE order_id = 'after the refusal'});
is(client_threads($node), $threads, 'with the same client');

#
# A partition is lost, and then its broker: nobody can be asked about it, and the other
# partition goes on all the same.
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
tell_broker($pair, 'lose');
comes_to($divided, 'and its broker is away',
	q{SELECT bool_or(last_error ~ 'offset 1000 of partition 1 of topic "events" is not there') FROM spine_status});
send_values($pair->{address}, 'events', 0, [ order_event(order_id => 'divided-2') ]);
comes_to($divided, 'the other one goes on', q{SELECT count(*) = 1 FROM events WHERE order_id = 'divided-2'});
$divided->stop;
stop_broker($pair);

#
# start = 'latest', with several workers at once: none of them takes what was
# there before for newly added.
#
query(q{ALTER SYSTEM SET spine.workers = 3; SELECT pg_reload_conf()});
query(<<'SQL');
CREATE TABLE late (id text, n bigint);
INSERT INTO spine_pipelines (name, start) VALUES ('late', 'latest');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('late', 'late', 'append', '{"id": "order_id", "n": "$offset"}');
SQL
ok($node->poll_query_until('postgres', q{SELECT count(*) = 3 FROM spine_offsets WHERE pipeline = 'late'}), 'latest: positions are taken');
send_events($_, order_event(order_id => "new-$_")) for 0 .. 2;
ok(wait_applied($node), 'new events');
is(query(q{SELECT string_agg(id, ' ' ORDER BY id) FROM late}), 'new-0 new-1 new-2', 'and only those');

#
# The launcher ends, and its successor finds the embedded broker running.
#
query(q{DELETE FROM spine_pipelines WHERE name = 'late'});
query(q{ALTER SYSTEM SET spine.brokers = ''; SELECT pg_reload_conf()});
ok(wait_for_state($node, 'failed'), 'the embedded broker is another cluster');
query(q{DELETE FROM spine_offsets});
is(query(q{SELECT spine_produce('acme', 10); SELECT spine_wait()}), "10\nt", 'on the embedded broker');
my $address = query('SELECT spine_brokers()');
my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'spine launcher'};
my $old = query($launcher);
query("SELECT pg_terminate_backend($old)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($launcher) l WHERE pid <> $old"), 'another launcher');
query(q{ALTER SYSTEM SET spine.workers = 1; SELECT pg_reload_conf()});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'spine worker'}),
	'does its work');
is(query('SELECT spine_brokers()'), $address, 'with the broker that was there');
is(query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'}), '1', 'and no other');
query("ALTER SYSTEM SET spine.brokers = '$broker->{address}'; SELECT pg_reload_conf()");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'spine embedded broker'}),
	'which it can stop as well');

#
# The broker stands still in the middle of everything: what was on its way to
# it (the commit to the consumer group, a second after a batch) keeps neither a
# worker from ending nor its successor from saying what is wrong.
#
ok(wait_for_state($node, 'running'), 'on the other broker again');
foreach my $n (1, 2)
{
	send_events(1, order_event(order_id => "last-$n"));
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM events WHERE order_id = 'last-$n'"), "event $n");
}
$broker->{process}->signal('STOP');
ok($node->poll_query_until('postgres', q{SELECT max(last_commit_at) < clock_timestamp() - interval '1500 ms' FROM spine_status}),
	'the broker stands still, with a commit to the consumer group under way');
($worker) = worker_pids($node);
my $start = time;
kill 'TERM', $worker;
usleep(1000) while kill(0, $worker) && time < $start + 120;
my $seconds = time - $start;
note sprintf('SIGTERM ended the worker after %.0f ms', $seconds * 1000);
# else it would be as long as librdkafka waits for an answer, which is a minute
cmp_ok($seconds, '<', 50, 'SIGTERM ends the worker all the same');
ok(wait_for_state($node, 'waiting'), 'the next one says that it waits');
$broker->{process}->signal('CONT');
ok(wait_for_state($node, 'running'), 'and goes on when the broker does');

$node->stop;
stop_broker($broker);
done_testing();

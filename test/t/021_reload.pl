# Every setting takes effect on running workers with ALTER SYSTEM (or ALTER DATABASE)
# and a reload, while events flow.  No event is lost or applied twice on the way.
#
# Broken when a worker keeps an old value or an old connection, when two workers apply
# the same partition or none does, or when a position in one cluster's log is used in
# another's.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('events', 3);
my $node = spine_node('main');

# Sends events to the topic that is set now, and waits until they are applied.
sub produce_and_apply
{
	my ($tenant, $n) = @_;

	$node->safe_psql('postgres', "SELECT spine_produce('$tenant', $n)");
	return wait_applied($node);
}

sub count_of
{
	my ($tenant) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM events WHERE tenant = '$tenant'");
}

# ALTER DATABASE SET (or RESET), and the reload that it needs.
sub set_for_database
{
	my ($what) = @_;

	$node->safe_psql('postgres', "ALTER DATABASE postgres $what; SELECT pg_reload_conf()");
	return;
}

#
# spine.brokers: from the embedded broker to another one, but not back
#
ok(produce_and_apply('embedded', 100), 'events through the embedded broker');
my $embedded = $node->safe_psql('postgres', 'SELECT spine_brokers()');
isnt($embedded, $broker->{address}, 'the embedded broker has another address');

# wait until every session has the new value, so that nothing goes to the wrong broker
set_config($node, 'spine.brokers' => $broker->{address});
ok($node->poll_query_until('postgres', 'SELECT spine_brokers()', $broker->{address}),
	'spine.brokers is set');
ok($node->poll_query_until('postgres',
		q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'spine embedded broker')}),
	'the embedded broker is stopped');
ok(produce_and_apply('real', 100), 'events through the other broker');
is(count_of('embedded') . ' ' . count_of('real'), '100 100', 'the events of both brokers are there');
is($node->safe_psql('postgres', q{SELECT count(*) FROM spine_offsets WHERE cluster_id LIKE 'embedded-%'}), '0',
	'the positions in the embedded broker end with the broker');

my $positions = q{SELECT string_agg(partition || ':' || next_offset, ' ' ORDER BY partition) FROM spine_offsets WHERE topic = 'events'};
my $before = $node->safe_psql('postgres', $positions);
set_config($node, 'spine.brokers' => '');
ok(wait_for_state($node, 'failed'), 'another cluster under the same positions: the pipeline stops');
like($node->safe_psql('postgres', 'SELECT DISTINCT concat(last_error, \' HINT: \' || hint) FROM spine_status'),
	qr/the broker's cluster is "embedded-.*belongs to cluster "(?!embedded).*HINT: .*"spine.brokers"/s,
	'the pipeline says which cluster, and what to do');
is($node->safe_psql('postgres', $positions), $before, 'the positions are kept');

set_config($node, 'spine.brokers' => $broker->{address});
ok(wait_for_state($node, 'running'), 'the right cluster again: the pipeline continues');
ok($node->poll_query_until('postgres', 'SELECT spine_brokers()', $broker->{address}),
	'new sessions have the right cluster too');
ok(produce_and_apply('real', 100), 'new events are applied');
is(count_of('real'), '200', 'no event is lost or applied twice');

#
# spine.topic
#
set_config($node, 'spine.topic' => 'elsewhere');
ok($node->poll_query_until('postgres', q{SELECT current_setting('spine.topic') = 'elsewhere'}), 'spine.topic is set');
ok(produce_and_apply('elsewhere', 100), 'another topic is read');
is(count_of('elsewhere'), '100', 'all of the other topic is applied');
is($node->safe_psql('postgres', $positions), $node->safe_psql('postgres', <<'SQL'), 'the first topic keeps its positions');
SELECT string_agg(kafka_partition || ':' || n, ' ' ORDER BY kafka_partition)
FROM (SELECT kafka_partition, max(kafka_offset) + 1 AS n FROM events WHERE tenant = 'real' GROUP BY 1
	  UNION ALL
	  SELECT p, 0 FROM generate_series(0, 2) p
	  WHERE p NOT IN (SELECT kafka_partition FROM events WHERE tenant = 'real')) o
SQL
set_config($node, 'spine.topic' => 'events');
ok($node->poll_query_until('postgres', q{SELECT current_setting('spine.topic') = 'events'}), 'spine.topic is set back');
ok(produce_and_apply('real', 100), 'the first topic is read from where it was');
is(count_of('real'), '300', 'no event is lost or applied twice');

# the same for one database
set_for_database(q{SET spine.topic = 'private'});
ok(produce_and_apply('private', 10), 'ALTER DATABASE SET spine.topic and a reload reach running workers');
is(count_of('private'), '10', q{the database's topic is applied});
set_for_database('RESET spine.topic');
ok(produce_and_apply('real', 10), 'ALTER DATABASE RESET spine.topic and a reload reach running workers');
is(count_of('real'), '310', 'no event is lost or applied twice');

#
# spine.kafka_options: workers and sessions connect again
#
set_config($node, 'spine.kafka_options' => 'security.protocol=ssl');
ok($node->wait_for_log(qr/parameter "spine.kafka_options" changed$/m), 'the server log says that the options changed, but not to what');
ok($node->poll_query_until('postgres',
		q{SELECT bool_and(state IN ('waiting', 'failed') AND last_error IS NOT NULL) FROM spine_status}),
	'TLS with a broker that does not speak it: the workers say so');
set_config($node, 'spine.kafka_options' => q{client.id=''it works'', fetch.max.bytes=2000000});
ok(wait_for_state($node, 'running'), 'options that suit the broker: the workers continue');
ok(produce_and_apply('real', 10), 'options that suit the broker: sessions can send');

# a value that librdkafka refuses changes nothing
$node->append_conf('postgresql.conf', "spine.kafka_options = 'no.such.option=1'\n");
$node->safe_psql('postgres', 'ALTER SYSTEM RESET spine.kafka_options');
my $log_start = -s $node->logfile;
$node->reload;
$node->wait_for_log(qr/invalid value for parameter "spine.kafka_options"/, $log_start);
ok(produce_and_apply('real', 10), 'a bad line in postgresql.conf stops nothing');
is($node->safe_psql('postgres', 'SHOW spine.kafka_options'), q{client.id='it works', fetch.max.bytes=2000000},
	'the old value stays');
$node->append_conf('postgresql.conf', "spine.kafka_options = ''\n");
$node->reload;

#
# spine.batch_rows and spine.batch_interval
#
sub batches_of
{
	my ($tenant) = @_;

	return $node->safe_psql('postgres', "SELECT count(DISTINCT applied_at) FROM events WHERE tenant = '$tenant'");
}

set_config($node, 'spine.batch_rows' => 10, 'spine.topic' => 'small');
ok($node->poll_query_until('postgres', q{SELECT current_setting('spine.topic') = 'small'}), 'spine.batch_rows is set');
ok(produce_and_apply('small', 200), 'events are applied in small batches');
cmp_ok(batches_of('small'), '>=', 20, 'a batch has at most 10 rows');
cmp_ok($node->safe_psql('postgres', q{SELECT max(last_batch_rows) FROM spine_status}), '<=', 10, 'spine_status shows small batches');

set_config($node, 'spine.batch_rows' => 50000, 'spine.topic' => 'large', 'spine.batch_interval' => '10s');
ok($node->poll_query_until('postgres', q{SELECT current_setting('spine.topic') = 'large'}), 'spine.batch_interval is set');
is($node->safe_psql('postgres', q{SELECT spine_produce('idle', 1); SELECT spine_wait('9s')}), "1\nt",
	'a worker that is idle does not wait for more records');

# A batch that waits for a lock takes long, and so does the rest after it.  What comes
# meanwhile is one batch.
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE events IN SHARE MODE');
$node->safe_psql('postgres', q{SELECT spine_produce('large', 1)});
wait_for_held_batch($node);
$node->safe_psql('postgres', q{SELECT spine_produce('large', 1)}) foreach 1 .. 50;
$holder->query_safe('COMMIT');
$node->safe_psql('postgres', q{SELECT spine_produce('large', 1)}) foreach 1 .. 2;
ok(wait_applied($node), 'all is applied after the rest');
is(batches_of('large'), '2', 'what comes during the rest is one batch');
$holder->quit;

set_config($node, 'spine.batch_interval' => 0);

#
# spine.log_interval
#
my $summary = qr/pipeline "orders" worker 0: applied \d+ events in \d+ batches, 0 dead letters/;
set_config($node, 'spine.log_interval' => 0, 'spine.topic' => 'chatty');
ok($node->poll_query_until('postgres', q{SELECT current_setting('spine.topic') = 'chatty'}), 'spine.log_interval is set');
$log_start = -s $node->logfile;
ok(produce_and_apply('chatty', 1), 'an event is applied');
$node->wait_for_log($summary, $log_start);
set_config($node, 'spine.log_interval' => -1, 'spine.topic' => 'silent');
ok($node->poll_query_until('postgres', q{SELECT current_setting('spine.topic') = 'silent'}), 'spine.log_interval is off');
ok(produce_and_apply('silent', 1), 'the worker has read the settings');
$log_start = -s $node->logfile;
ok(produce_and_apply('silent', 1), 'another event is applied') for (1 .. 3);
unlike(substr(slurp_file($node->logfile), $log_start), $summary, 'no summary');
set_config($node, 'spine.topic' => 'events', 'spine.batch_rows' => 50000, 'spine.log_interval' => 5);
ok($node->poll_query_until('postgres', q{SELECT current_setting('spine.topic') = 'events'}), 'spine.topic is events again');

#
# spine.producer_rate and spine.producer_tenants
#
sub await_events_of
{
	my ($tenant) = @_;

	return $node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM events WHERE tenant = '$tenant')");
}

my $producers = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'spine producer'};
is($node->safe_psql('postgres', $producers), '0', 'no producer worker runs');
set_config($node, 'spine.producer_rate' => 1000, 'spine.producer_tenants' => 'one, "and two"');
ok(await_events_of('one') && await_events_of('and two'), 'spine.producer_rate starts the producer, for each tenant');
set_config($node, 'spine.producer_tenants' => 'three');
ok(await_events_of('three'), 'spine.producer_tenants changes the tenants');
set_config($node, 'spine.producer_tenants' => '');
ok($node->poll_query_until('postgres', "$producers AND wait_event IS NOT NULL", '1'), 'without tenants the producer waits');
set_config($node, 'spine.producer_tenants' => 'four');
ok(await_events_of('four'), 'and goes on when there are tenants again');
is($node->safe_psql('postgres', $producers), '1', 'one process sends for all tenants');

#
# spine.workers, while events flow: partition p belongs to worker p modulo n
#
set_config($node, 'spine.producer_rate' => 2000,
	'spine.producer_tenants' => join(',', map { "tenant_$_" } 1 .. 12));
foreach my $n (2, 3, 1, 3, 2)
{
	set_config($node, 'spine.workers' => $n);
	ok($node->poll_query_until('postgres', <<SQL), "$n workers share the partitions");
SELECT count(*) = 3 AND count(DISTINCT worker_pid) = $n AND bool_and(state = 'running')
	AND (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'spine worker') = $n
FROM spine_status
SQL
	my $so_far = $node->safe_psql('postgres', 'SELECT sum(next_offset) FROM spine_offsets');
	ok($node->poll_query_until('postgres', "SELECT sum(next_offset) > $so_far FROM spine_offsets"), 'events flow');
}
set_config($node, 'spine.producer_rate' => 0);
ok($node->poll_query_until('postgres', $producers, '0'), 'spine.producer_rate = 0 stops the producer');

ok(wait_applied($node), 'everything is applied');
is($node->safe_psql('postgres', <<'SQL'), 't|t|0|0', 'every event of every topic is there once, and current_orders has the newest');
SELECT (SELECT sum(next_offset) FROM spine_offsets) + 100 = (SELECT count(*) FROM events),	-- 100 were on the embedded broker
	   (SELECT count(*) = count(DISTINCT event_id) FROM events),
	   (SELECT count(*) FROM (
			SELECT DISTINCT ON (tenant, order_id) * FROM events
			ORDER BY tenant, order_id, event_time DESC, kafka_offset DESC) e
		FULL JOIN current_orders c USING (tenant, order_id)
		WHERE (c.status, c.amount_cents, c.updated_at)
			IS DISTINCT FROM (e.event_type, e.amount_cents, e.event_time)),
	   (SELECT count(*) FROM spine_dead_letters)
SQL
is($node->safe_psql('postgres', q{SELECT sum(next_offset) FROM spine_offsets WHERE topic = 'events'}),
	log_end($broker->{address}, 'events', 3), 'the positions are at the end of the log');

$node->stop;
stop_broker($broker);
done_testing();

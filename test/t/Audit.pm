# What the audits of exactly-once share: events that are hard to get right, a table in
# which a record that is applied twice is there twice, and the comparison of the tables
# with the log.  The log is the truth.
package Audit;

use strict;
use warnings;
use Exporter 'import';
use File::Temp qw(tempdir);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(add_arrivals make_events count_applied copy_log audit);

my $work = tempdir(CLEANUP => 1);
my $files = 0;

# Adds a sink without a key, so that every application of a record leaves a row.
sub add_arrivals
{
	my ($node) = @_;

	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE arrivals (kafka_partition int, kafka_offset bigint);
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('orders', 'arrivals', 'append',
	'{"kafka_partition": "$partition", "kafka_offset": "$offset"}');
SQL
	return;
}

# Makes a file of lines "tenant<TAB>event".  There are few orders, and coarse times in
# random order.  So every order has many events, most of them out of order and some at
# the same time.
sub make_events
{
	my ($node, $count) = @_;
	my $file = "$work/events_" . $files++;

	$node->safe_psql('postgres', <<SQL);
COPY (
	SELECT tenant, spine_make_event(tenant) || jsonb_build_object(
		'order_id', 'ord-' || ceil(random() * 500),
		'event_time', timestamptz '2026-01-01Z' + floor(random() * 3600) * interval '1 s')
	FROM generate_series(1, $count),
		LATERAL (SELECT 'tenant-' || (generate_series % 24) AS tenant) t
) TO '$file';
SQL
	return $file;
}

# The number of records before the positions, over all partitions.
sub count_applied
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT coalesce(sum(next_offset), 0) FROM spine_offsets');
}

# Copies the topic, read with kcat, to a table of the node.  Every event that was sent
# has to be in it, once.
sub copy_log
{
	my ($node, $address, $topic, $sent) = @_;
	my $file = "$work/log";

	run_log([ 'kcat', '-b', $address, '-q', '-C', '-t', $topic, '-o', 'beginning',
			'-e', '-f', '%p\t%o\t%s\n' ], '>', $file)
	  or die 'kcat failed';
	$node->safe_psql('postgres', <<SQL);
CREATE TABLE log (kafka_partition int, kafka_offset bigint, event jsonb);
COPY log FROM '$file';
SQL
	is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT event->>'event_id') FROM log}),
		"$sent|$sent", 'the log has everything that was sent, once');
	return;
}

# Compares the tables with the log.
sub audit
{
	my ($node, $when) = @_;

	is($node->safe_psql('postgres', <<'SQL'), '0', "$when: every record was applied once");
SELECT count(*) FROM
	(SELECT kafka_partition, kafka_offset, count(*) FROM arrivals GROUP BY 1, 2) a
FULL JOIN log USING (kafka_partition, kafka_offset)
WHERE count IS DISTINCT FROM 1 OR event IS NULL
SQL
	is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT event_id) FROM events'),
		'0', "$when: no event is there twice");
	is($node->safe_psql('postgres', <<'SQL'), '0', "$when: every event of the log is in events, and no other");
SELECT count(*) FROM log l FULL JOIN events e ON e.event_id = (l.event->>'event_id')::uuid
WHERE (l.kafka_partition, l.kafka_offset, l.event->>'tenant', l.event->>'order_id', l.event->>'event_type',
	(l.event->>'amount_cents')::bigint, (l.event->>'event_time')::timestamptz)
	IS DISTINCT FROM (e.kafka_partition, e.kafka_offset, e.tenant, e.order_id, e.event_type,
	e.amount_cents, e.event_time)
SQL
	is($node->safe_psql('postgres', <<'SQL'), '0', "$when: current_orders has the newest event of each order");
SELECT count(*) FROM (
	SELECT DISTINCT ON (event->>'tenant', event->>'order_id') event
	FROM log ORDER BY event->>'tenant', event->>'order_id',
		(event->>'event_time')::timestamptz DESC, kafka_offset DESC) l
FULL JOIN current_orders c ON c.tenant = event->>'tenant' AND c.order_id = event->>'order_id'
WHERE (event->>'event_type', (event->>'amount_cents')::bigint, (event->>'event_time')::timestamptz)
	IS DISTINCT FROM (c.status, c.amount_cents, c.updated_at)
SQL
	is($node->safe_psql('postgres', <<'SQL'), '0', "$when: the offsets are the ends of the log");
SELECT count(*) FROM
	(SELECT kafka_partition AS partition, max(kafka_offset) + 1 AS log_end FROM log GROUP BY 1) l
FULL JOIN spine_offsets o USING (partition)
WHERE coalesce(log_end, 0) IS DISTINCT FROM next_offset
SQL
	is($node->safe_psql('postgres', 'SELECT count(*) FROM spine_dead_letters'), '0',
		"$when: no dead letters");
	return;
}

1;

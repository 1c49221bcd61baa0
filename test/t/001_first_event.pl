# The first minute: CREATE EXTENSION, produce, look.
#
# Broken when the launcher does not find the database, the embedded broker does not
# start, or a batch does not commit.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = spine_node('main');

is($node->safe_psql('postgres', q{SELECT spine_produce('acme', 1000)}), '1000',
	'spine_produce returns what the broker acknowledged');
ok(wait_applied($node), 'spine_wait returns true');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT event_id) FROM events'),
	'1000|1000', 'every event is in events, once');
is($node->safe_psql('postgres', <<'SQL'), '0', 'current_orders has the newest event of each order');
SELECT count(*) FROM (
	SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type, amount_cents, event_time
	FROM events ORDER BY tenant, order_id, event_time DESC, kafka_offset DESC) e
FULL JOIN current_orders c USING (tenant, order_id)
WHERE (c.status, c.amount_cents, c.updated_at) IS DISTINCT FROM (e.event_type, e.amount_cents, e.event_time)
SQL

# The latency on an idle topic is shown, not asserted.
my $start = time;
$node->safe_psql('postgres', q{SELECT spine_produce('acme', 1); SELECT spine_wait()});
note sprintf('one event on an idle topic, with a new session: %.0f ms', (time - $start) * 1000);

$node->stop;
done_testing();

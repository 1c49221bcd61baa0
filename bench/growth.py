"""Does spine stay as fast while the tables grow?

SQL fills events and current_orders, with one order for ten events. At each size two
backlogs are drained. The events of the first belong to as many orders as there are at the
first size, because old orders no longer change. The events of the second belong to all
orders: the more orders there are, the fewer events of a batch fall on the same order, and
the more pages are written. Then latency, and /stats for one client that asks again and
again, are measured at 1,000 events/s. The events that each run adds stay. All sizes are
compared with the first one.
"""
from drain import TENANTS, drain, fill_topic, rate
from latency import measure, new_database
from peer_http import let_spine_http_read, measure_spine_http
from private import say

DATABASE = 'growth'
EVENTS_PER_ORDER = 10
LATENCY_RATE = 1000

# Event i belongs to tenant i % 48 and to an order drawn by a hash. Times increase with i
# and end a day ago, so that later events are newer. The key of events is rebuilt after the
# rows, which takes a third of the time. The triggers are off meanwhile.
FILL = """
ALTER TABLE events DROP CONSTRAINT events_pkey;
INSERT INTO events (tenant, event_id, event_type, order_id, amount_cents, event_time, kafka_partition, kafka_offset)
SELECT 'tenant-' || to_char(i % {tenants}, 'FM000'), md5(i::text)::uuid,
       (ARRAY['order_placed', 'order_paid', 'order_shipped', 'order_cancelled'])[1 + i % 4],
       'ord-' || 1 + abs(hashint8(i)) % {orders}, 500 + i % 49501,
       now() - interval '1 day' - ({last} - i) * interval '1 ms', i % {tenants} % 3, -1
FROM generate_series({first}::bigint, {last}) i;
ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (tenant, event_time, event_id);
ALTER TABLE current_orders DISABLE TRIGGER USER;
INSERT INTO current_orders (tenant, order_id, status, amount_cents, updated_at)
SELECT 'tenant-' || to_char(t, 'FM000'), 'ord-' || o, 'order_placed', 500 + o % 49501, now() - interval '1 day'
FROM generate_series(0, {tenants} - 1) t, generate_series(1, {orders}) o
ON CONFLICT DO NOTHING;
ALTER TABLE current_orders ENABLE TRIGGER USER;
SELECT spine_recount_orders();
VACUUM ANALYZE events, current_orders;
"""


def orders_of(events):
    """The number of orders of each tenant."""
    return max(events // EVENTS_PER_ORDER // TENANTS, 1)


def run(private, results, sizes, runs):
    private.start_kafka()
    topic = 'growth'
    new_database(private, DATABASE, topic)
    let_spine_http_read(private, DATABASE)
    filled = 0
    found, first = {}, sizes['growth_steps'][0]
    first_orders = orders_of(first)
    for step, size in enumerate(sizes['growth_steps']):
        orders = orders_of(size)
        say('growth: filling up to %d events and %d orders' % (size, orders * TENANTS))
        private.sql(FILL.format(tenants=TENANTS, orders=orders, first=filled + 1, last=size), DATABASE)
        filled = size
        found[size] = []
        for number in range(runs):
            seed = 1000 * step + 10 * number
            run = {'size': size, 'orders': orders * TENANTS, 'events_before': int(private.value(
                "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'events'", DATABASE))}
            for name, drawn in (('drain_active', first_orders), ('drain_all', orders)):
                seed += 1
                fill_topic(private, topic, sizes['growth_drain'], 3, seed=seed, create=False, orders=drawn)
                run[name] = drain(private, DATABASE)
            run['latency'] = measure(private, DATABASE, topic, LATENCY_RATE, sizes['latency_seconds'], seed)
            run['stats'] = measure_spine_http(private, DATABASE, topic, '/stats', orders, sizes['http_seconds'], seed + 1)
            private.pause(DATABASE)
            found[size].append(run)
            results.add_raw('growth', **run)
            say('growth: run %d: %.0f events/s, of all orders %.0f, %.0f MB; p99 %.1f ms, /stats p99 %.1f ms' % (
                number + 1, rate(run['drain_active']), rate(run['drain_all']), run['drain_all']['memory']['own_mb'],
                run['latency']['spine']['p99'], run['stats']['p99_ms']))
        for case, unit, pick, value in (
                ('drain, the same orders', 'events/s', lambda run: run['drain_active'], rate),
                ('drain, of all orders', 'events/s', lambda run: run['drain_all'], rate),
                ('p99', 'ms', lambda run: run['latency']['spine'], lambda found: found['p99']),
                ('/stats p99', 'ms', lambda run: run['stats'], lambda found: found['p99_ms'])):
            ours, theirs = ([pick(run) for run in found[of]] for of in (size, first))
            results.compare('growth', '{}, {:,} events, {:,} orders'.format(case, size, orders * TENANTS), unit,
                            [value(run) for run in ours], 'the first size', [value(run) for run in theirs],
                            ours, theirs)
    private.drop_database(DATABASE)
    private.sql('DROP ROLE spine_http')

"""What becomes of spine while its tables grow to 100 million events and 10 million orders?

All events come through Kafka, in twenty steps, over orders that are drawn evenly: all of them
are at work all the time. Each step drains a backlog, and then measures latency at 1,000
events/s. Autovacuum is on, and checkpoints come as they do by default. The log of Kafka is
trimmed after each step. EVENTS and ORDERS in the environment set other sizes.
"""
import os
import shutil

from drain import TENANTS, drain, fill_topic, rate
from latency import measure_spine, new_database
from private import say

DATABASE = 'scale'
TOPIC = 'scale'
PARTITIONS = 3
STEPS = 20
LATENCY_RATE = 1000
SHOWN = (1, 5, 10, 15, 20)      # steps that have a row in the table

# Upper bounds of what the disk must hold, in bytes.
PER_EVENT, PER_ORDER, PER_EVENT_IN_KAFKA = 300, 500, 120
KAFKA_KEEPS = 60_000_000        # events: Kafka deletes what is trimmed every five minutes
WAL = 9 << 30

SETTINGS = {'max_wal_size': '4GB', 'checkpoint_timeout': '5min'}

# The bench itself looks for the newest rows of events by their times.
INDEX = 'CREATE INDEX bench_newest ON events USING brin (event_time, applied_at)'

TABLES = """SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_live_tup, n_dead_tup, autovacuum_count
    FROM pg_stat_user_tables WHERE relname IN ('events', 'current_orders', 'spine_offsets')"""


def check_space(private, events, orders):
    need = events * PER_EVENT + orders * PER_ORDER + min(events, KAFKA_KEEPS) * PER_EVENT_IN_KAFKA + min(WAL, events * 1000)
    free = shutil.disk_usage(private.directory).free
    say('scale: takes up to %.1f GB in %s, which has %.1f GB free' % (need / 1e9, private.directory, free / 1e9))
    if free < need * 1.1:
        raise SystemExit('scale: the disk is too small: set EVENTS and ORDERS to less than %d and %d' % (events, orders))


def table_sizes(private):
    return {name: dict(zip(('table_bytes', 'index_bytes', 'live', 'dead', 'autovacuums'), map(int, figures)))
            for name, *figures in private.sql(TABLES, DATABASE)}


def measure_step(private, number, per_step, orders, seconds):
    fill_topic(private, TOPIC, per_step, PARTITIONS, seed=number, create=False, orders=orders)
    step = {'step': number, 'drain': drain(private, DATABASE)}
    step['latency'] = measure_spine(private, DATABASE, TOPIC, LATENCY_RATE, seconds, 1000 + number)
    private.pause(DATABASE)
    private.load('trim', TOPIC, PARTITIONS)
    private.sql("SELECT brin_summarize_new_values('bench_newest')", DATABASE)
    return step | {'tables': table_sizes(private)}


def run(private, results, sizes, runs):
    events = int(os.environ.get('EVENTS') or sizes['scale_events'])
    orders = max(int(os.environ.get('ORDERS') or events // 10) // TENANTS, 1)
    check_space(private, events, orders * TENANTS)
    private.start_kafka()
    before = {name: private.value('SHOW ' + name) for name in SETTINGS}
    for name, value in SETTINGS.items():
        private.set(name, value)
    new_database(private, DATABASE, TOPIC)
    private.sql(INDEX, DATABASE)
    steps = []
    for number in range(1, STEPS + 1):
        step = measure_step(private, number, events // STEPS, orders, sizes['latency_seconds'])
        step.update(events=events * number // STEPS, orders=orders * TENANTS)
        steps.append(step)
        results.add_raw('scale', **step)
        say('scale: {:,} events: {:,.0f} events/s, p99 {:.1f} ms, {:.0f} bytes of WAL an event, {:.0f} MB'.format(
            step['events'], rate(step['drain']), step['latency']['p99'],
            step['drain']['wal_bytes'] / step['drain']['events'], step['drain']['memory']['own_mb']))
    first = steps[0]
    for step in (steps[number - 1] for number in SHOWN):
        case = '{:,} events'.format(step['events'])
        results.compare('scale', case, 'events/s', [rate(step['drain'])], 'the first step', [rate(first['drain'])],
                        [step['drain']], [first['drain']])
        results.compare('scale', case + ', p99', 'ms', [step['latency']['p99']], 'the first step',
                        [first['latency']['p99']], [step['latency']], [first['latency']])
    private.drop_database(DATABASE)
    for name, value in before.items():
        private.set(name, value)

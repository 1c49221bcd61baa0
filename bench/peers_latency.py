"""How long it takes from the making of an event until a query shows it: spine, and each of the
consumers that one would use instead, with the same generator and the same observer (observe.sql).

A stretch begins with a warm-up, which does not count: connections, plans, the JIT of a JVM. The
CPU time is that of the consumer and of the whole server, without the observer's.
"""
import os
import subprocess
import time

from consumers import (HOME, PEERS, Failed, LeftOut, end_peer, make_directory, make_peer_database,
                       start_peer)
from drain import TENANTS
from latency import ORDERS, percentiles
from private import BENCH, cpu_seconds, say
from quiet import busy_core, tree_cpu_seconds

PARTITIONS = 3
WARM_UP_S = 10
AFTER_S = 10            # longer than any consumer waits before it writes
PATIENCE_S = 180
SPINE = 'spine'
DATABASE = 'latency_of_'

# Each event's wait, in ms: until the first look that showed it, or a later event of its partition.
WAITS = """SELECT 1000 * extract(epoch FROM s.seen_at - e.event_time)
    FROM (SELECT * FROM events WHERE event_time >= '%s') e
    CROSS JOIN LATERAL (SELECT seen_at FROM bench_seen s WHERE s.kafka_partition = e.kafka_partition
        AND s.kafka_offset >= e.kafka_offset ORDER BY s.kafka_offset LIMIT 1) s"""


def await_events(private, database, events, is_alive):
    until = time.monotonic() + PATIENCE_S
    while int(private.value('SELECT count(*) FROM events', database)) < events:
        if time.monotonic() > until or not is_alive():
            raise Failed('the events did not arrive in %s' % database)
        time.sleep(0.5)


def stretch(private, database, topic, rate, seconds, is_busy, process):
    """Sends events to a consumer that runs. process is None for spine."""
    def pace(length, seed):
        private.load('pace', topic, int(rate * length), PARTITIONS, TENANTS, ORDERS, seed, rate)

    roots = [private.postmaster_pid()] + ([process.pid] if process else [])
    pace(WARM_UP_S, 1)
    await_events(private, database, rate * WARM_UP_S, lambda: process is None or process.poll() is None)
    start = private.value('SELECT clock_timestamp()', database)
    with busy_core(is_busy), private.watch() as watch:
        observer = subprocess.Popen(private.psql(database, '-c', 'CALL bench_observe(%d, %f)'
                                                 % (PARTITIONS, seconds + AFTER_S)),
                                    env=dict(private.environment, PGAPPNAME='observer'))
        cpu = tree_cpu_seconds(*roots)
        pace(seconds, 2)
        cpu = tree_cpu_seconds(*roots) - cpu - sum(cpu_seconds(int(row[0])) for row in private.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'observer'"))
    if observer.wait():
        raise Failed('the observer failed: see above')
    private.sql('CREATE INDEX ON bench_seen (kafka_partition, kafka_offset); ANALYZE bench_seen', database)
    waits = [float(row[0]) for row in private.sql(WAITS % start, database)]
    events = int(rate * seconds)
    if not waits:
        raise Failed('no event was seen in %s' % database)
    return percentiles(waits) | {'events': events, 'unseen': events - len(waits), 'cpu_seconds': cpu,
                                 'machine': watch.found}


def measure(private, name, prepare, topic, rate, seconds, is_busy):
    """prepare is None for spine."""
    database = DATABASE + name.replace('-', '_')
    private.load('create', topic, PARTITIONS)
    process = None
    try:
        if prepare is None:
            private.new_database(database, topic=topic)
        else:
            command = prepare(private, topic, None, None, make_directory(private, topic))
            make_peer_database(private, database)
        private.sql('', database, '-f', BENCH + '/observe.sql')
        if prepare is None:
            private.sql("SELECT spine_resume('orders')", database)
        else:
            process = start_peer(private, database, '%s/%s-latency.log' % (HOME, name), *command)
        return stretch(private, database, topic, rate, seconds, is_busy, process)
    finally:
        if process:
            end_peer(process)
        private.drop_database(database)


def run(private, results, left_out, is_busy=False):
    part = 'peers-latency-busy' if is_busy else 'peers-latency'
    rate, seconds = int(os.environ.get('RATE') or 1000), int(os.environ.get('SECONDS') or 20)
    found = {}
    for name, (title, prepare) in {SPINE: (SPINE, None), **PEERS}.items():
        say('latency: %s, %d events/s' % (title, rate))
        try:
            found[name] = measure(private, name, prepare, '%s-%s' % (part, name), rate, seconds,
                                  is_busy)
        except (LeftOut, Failed) as reason:
            if name == SPINE:
                raise
            left_out['latency of ' + name] = '%s: %s' % (type(reason).__name__, reason)
            continue
        results.add_raw(part, consumer=name, title=title, rate=rate, is_busy=is_busy, **found[name])
        say('latency: p50 %.1f ms, p99 %.1f ms, %.1f µs of CPU an event' % (
            found[name]['p50'], found[name]['p99'], 1e6 * found[name]['cpu_seconds'] / found[name]['events']))
    spine = found.pop(SPINE)
    for percentile in ('p50', 'p99'):
        for name, peer in found.items():
            results.compare(part, '%d events/s%s, %s' % (rate, ', one core busy' * is_busy, percentile), 'ms',
                            [spine[percentile]], PEERS[name][0], [peer[percentile]], [spine], [peer])

"""How long it takes from the making of an event until a query shows it, at steady rates.

The limit, in the same run, is the time until a plain librdkafka consumer has the event,
plus the commit of one row. Both are measured from event_time, which the generator sets
when it sends. latency.sql explains how visibility is observed.
"""
import bisect
import math
import statistics
import subprocess
import time

from drain import TENANTS
from private import BENCH, cpu_seconds, say
from quiet import busy_core

PARTITIONS = 3
ORDERS = 2000
DATABASE = 'latency'
PATIENCE_S = 30
WARM_UP_S = 1           # the start of each stretch is left out: connections, plans, first pages
KAFKA_WARM_UP_S = 15    # before all: a new Java machine compiles its code beside what is measured
WAL_SEGMENTS = 64       # more than a stretch fills


def histogram(values):
    """How many values fall into each bucket. Bucket i begins at 10^(i/10) ms."""
    counts = {}
    for value in values:
        bucket = math.floor(10 * math.log10(max(value, 0.01)))
        counts[bucket] = counts.get(bucket, 0) + 1
    return dict(sorted(counts.items()))


def percentiles(values):
    values = sorted(values)
    return {name: values[min(int(len(values) * share), len(values) - 1)]
            for name, share in (('p50', .5), ('p99', .99), ('p999', .999))} | {
                'n': len(values), 'histogram': histogram(values)}


def pace_arguments(topic, rate, seconds, seed):
    return ['pace', topic, int(rate * seconds), PARTITIONS, TENANTS, ORDERS, seed, rate]


def read_lines(path, expected):
    """Waits until the file has that many lines."""
    until = time.monotonic() + PATIENCE_S
    while True:
        with open(path) as file:
            lines = file.read().splitlines()
        if len(lines) >= expected:
            return lines
        if time.monotonic() > until:
            raise RuntimeError('the plain consumer wrote %d of %d lines' % (len(lines), expected))
        time.sleep(0.1)


def consumer_ms(private, topic, rate, seconds, seed):
    """How long a consumer without a database waits for each event."""
    path = private.directory + '/watch'
    with open(path, 'w') as output:
        watch = private.start_load('watch', topic, PARTITIONS, stdin=subprocess.PIPE, stdout=output)
    try:
        read_lines(path, 1)         # "ready"
        private.load(*pace_arguments(topic, rate, seconds, seed))
        lines = read_lines(path, 1 + int(rate * seconds))
    finally:
        watch.communicate('')
    return percentiles([int(line) / 1000 for line in lines[1 + int(rate * WARM_UP_S):]])


def commit_ms(private, database):
    private.sql('CALL bench_commit(300)', database)
    return float(private.value('SELECT 1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) '
                               'FROM bench_commits', database))


def prepare_wal(private, database):
    """A server that has run for a while recycles its segments of WAL. A new server has to make
    each of them, which takes as long as writing and flushing 16 MB, in the middle of a commit."""
    private.set('min_wal_size', '%dMB' % (16 * 2 * WAL_SEGMENTS))
    private.sql("SELECT pg_logical_emit_message(false, 'bench', ''), pg_switch_wal();" * WAL_SEGMENTS, database)
    private.sql('CHECKPOINT', database)


def spine_ms(private, database, topic, rate, seconds, seed):
    """How long it takes until spine's tables have each event. The pipeline must run and have caught up."""
    private.sql('TRUNCATE bench_seen', database)
    start = private.value('SELECT clock_timestamp()', database)
    observer = subprocess.Popen(private.psql(database, '-c', "CALL bench_observe('%s', %f)" % (topic, seconds + 3)),
                                env=private.environment)
    try:
        generator = private.load(*pace_arguments(topic, rate, seconds, seed))
        private.value("SELECT spine_wait('2 min')", database)
    finally:
        failed = observer.wait()    # the observer ends by itself
    if failed:
        raise RuntimeError('the observer failed: see above')

    seen = [[] for _ in range(PARTITIONS)]      # per partition: positions and their times
    for time, positions in private.sql('SELECT extract(epoch FROM seen_at), array_to_string(positions, \',\') '
                                       'FROM bench_seen WHERE cardinality(positions) = %d ORDER BY 1' % PARTITIONS,
                                       database):
        for partition, position in enumerate(positions.split(',')):
            seen[partition].append((int(position), float(time)))
    waits = []
    missed = 0
    for partition, offset, time in private.sql(
            "SELECT kafka_partition, kafka_offset, extract(epoch FROM event_time) FROM events "
            "WHERE event_time >= '%s'::timestamptz + %d * interval '1 s'" % (start, WARM_UP_S), database):
        marks = seen[int(partition)]
        i = bisect.bisect_right(marks, (int(offset), float('inf')))
        if i < len(marks):
            waits.append(1000 * (marks[i][1] - float(time)))
        else:
            missed += 1
    # events that came after the observer had ended have the worst latency: they are counted, not dropped
    return percentiles(waits) | {'unseen': missed, 'generator': generator}


def measure_consumer(private, database, topic, rate, seconds, seed, is_busy=False):
    private.pause(database)
    with busy_core(is_busy), private.watch() as watch:
        limit = consumer_ms(private, topic, rate, seconds, seed)
    return limit | {'machine': watch.found, 'commit_ms': commit_ms(private, database)}


def measure_spine(private, database, topic, rate, seconds, seed, is_busy=False):
    private.sql("SELECT spine_resume('orders'); SELECT spine_wait('10 min')", database)
    workers = private.worker_pids(database)
    cpu = sum(cpu_seconds(pid) for pid in workers)
    with busy_core(is_busy), private.watch() as watch:
        spine = spine_ms(private, database, topic, rate, seconds, seed)
    return spine | {'events': int(rate * seconds), 'machine': watch.found,
                    'cpu_seconds': sum(cpu_seconds(pid) for pid in workers) - cpu}


def measure(private, database, topic, rate, seconds, seed, is_busy=False):
    """Measures both, the one first with an even seed, and the other first with an odd one. With is_busy, a busy loop
    takes one core meanwhile."""
    sides = {'consumer': measure_consumer, 'spine': measure_spine}
    found = {'rate': rate, 'is_busy': is_busy}
    for name in list(sides)[::-1 if seed % 2 else 1]:
        found[name] = sides[name](private, database, topic, rate, seconds, 2 * seed + (name == 'spine'),
                                  is_busy)
    private.pause(database)
    return found


def new_database(private, database, topic):
    private.load('create', topic, PARTITIONS)
    private.new_database(database, topic=topic)
    private.sql('', database, '-f', BENCH + '/latency.sql')


def warm_up(private, database, topic, rate):
    private.sql("SELECT spine_resume('orders')", database)
    private.load(*pace_arguments(topic, rate, KAFKA_WARM_UP_S, 0))
    private.sql("SELECT spine_wait('10 min')", database)


def run(private, results, sizes, runs, is_busy=False):
    part = 'latency-busy' if is_busy else 'latency'
    private.start_kafka()
    topic = part
    new_database(private, DATABASE, topic)
    warm_up(private, DATABASE, topic, max(sizes['latency_rates']))
    seconds = sizes['latency_seconds'] + WARM_UP_S
    for rate in sizes['latency_rates']:
        found = []
        for number in range(runs):
            prepare_wal(private, DATABASE)
            found.append(measure(private, DATABASE, topic, rate, seconds, 1000 * rate + number, is_busy))
            results.add_raw(part, **found[-1])
            say('latency: %d events/s, run %d: p50 %.1f ms, p99 %.1f ms' % (
                rate, number + 1, found[-1]['spine']['p50'], found[-1]['spine']['p99']))
            if found[-1]['spine']['unseen']:
                say('latency: %d events were not seen in time' % found[-1]['spine']['unseen'])
        for name in ('p50', 'p99', 'p999'):
            results.compare(part, '%d events/s%s, %s' % (rate, ', one core busy' * is_busy, name.replace('999', '99.9')), 'ms',
                            [r['spine'][name] for r in found], 'plain consumer + a commit',
                            [r['consumer'][name] + r['consumer']['commit_ms'] for r in found],
                            [r['spine'] for r in found], [r['consumer'] for r in found])
    private.drop_database(DATABASE)

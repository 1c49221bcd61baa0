"""How fast a backlog is applied, and how close that is to two limits by hand.

The events are already on the topic, and spine applies them to a new database. A copy of that
database has the rows for the two limits: handwritten.sql (the SQL that one would write, in
batches of 50,000 events) and copy.c (COPY in binary and a reduced upsert, in the batches that
spine made). Their sessions have the rows parsed and in memory before the clock starts.

The sides take turns, and the order changes with each run. The first round warms up: files,
caches, the JIT of Kafka. It does not count.
"""
import json
import subprocess
import time

from private import BENCH, cpu_seconds, say
from quiet import TICKS, tree_cpu_seconds

TENANTS = 48
EVENTS_PER_ORDER = 4
DATABASE = 'drain'
BY_HAND = 'drain_by_hand'
COLUMNS = 'tenant, event_id, event_type, order_id, amount_cents, event_time, kafka_partition, kafka_offset'

# Waits until everything on the topic is applied. Not with spine_wait: like every
# statement it holds a snapshot, and while it waits no dead row can be pruned, but
# current_orders depends on pruning.
WAIT = """
CREATE OR REPLACE PROCEDURE bench_wait()
LANGUAGE plpgsql
AS $$
DECLARE
    to_offset bigint := (SELECT sum(end_offset) FROM spine_topic_offsets(current_setting('spine.topic')));
    looks int := 0;
    until timestamptz := clock_timestamp() + interval '30 min';
BEGIN
    WHILE coalesce((SELECT sum(next_offset) FROM spine_offsets), 0) < to_offset LOOP
        looks := looks + 1;
        IF clock_timestamp() > until OR
            looks % 100 = 0 AND EXISTS (SELECT 1 FROM spine_status WHERE state = 'failed')
        THEN
            RAISE 'spine did not apply everything: %', (SELECT string_agg(last_error, '; ') FROM spine_status);
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
"""


def fill_topic(private, topic, events, partitions, seed=1, create=True, orders=None):
    if create:
        private.load('create', topic, partitions)
    orders = orders or max(events // EVENTS_PER_ORDER // TENANTS, 1)
    private.load('fill', topic, events, partitions, TENANTS, orders, seed)


def table_work(private, database):
    """Rows inserted and updated in current_orders so far, and those updated HOT."""
    row = private.sql("SELECT n_tup_ins, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
                      "WHERE relname = 'current_orders'", database)[-1]
    return [int(field) for field in row]


def wal_position(private, database):
    return int(private.value("SELECT pg_current_wal_insert_lsn() - '0/0'", database))


def changes(private, database, before):
    """What has happened since `before`, which is (wal_position, table_work)."""
    after = table_work(private, database)
    inserted, updated, hot = (a - b for a, b in zip(after, before[1]))
    return {'wal_bytes': wal_position(private, database) - before[0], 'orders_inserted': inserted,
            'orders_updated': updated, 'hot_share': round(hot / updated, 4) if updated else None}


def drain(private, database):
    """Resumes a paused pipeline, and measures until everything on its topic is applied."""
    private.sql(WAIT + 'CHECKPOINT', database)
    before = wal_position(private, database), table_work(private, database)
    memory = private.follow(database)
    broker_cpu = cpu_seconds(private.kafka_pid())
    with private.watch() as watch:
        server_cpu = tree_cpu_seconds(private.postmaster_pid())
        rows = private.sql("SELECT clock_timestamp(); SELECT spine_resume('orders'); "
                           "CALL bench_wait(); SELECT clock_timestamp();", database)
        server_cpu = tree_cpu_seconds(private.postmaster_pid()) - server_cpu
        cpu = sum(cpu_seconds(pid) for pid in private.worker_pids(database))
    broker_cpu = cpu_seconds(private.kafka_pid()) - broker_cpu
    peak = memory.end()
    private.pause(database)     # the workers report their table statistics when they exit
    start, end = rows[0][0], rows[-1][0]
    seconds, start_up, events, batches = private.sql(
        "SELECT extract(epoch FROM '%s'::timestamptz - '%s'), extract(epoch FROM min(applied_at) - '%s'),"
        " count(*), count(DISTINCT applied_at) FROM events WHERE applied_at >= '%s'"
        % (end, start, start, start), database)[0]
    return {'events': int(events), 'seconds': float(seconds), 'start_up_seconds': float(start_up),
            'cpu_seconds': cpu, 'server_cpu_seconds': server_cpu, 'broker_cpu_seconds': broker_cpu, 'commits': int(batches),
            'memory': peak, 'machine': watch.found, **changes(private, database, before)}


def copy_database(private, database, sessions):
    """Makes a copy of spine's database, with its rows as copy.c wants them."""
    private.sql('CREATE DATABASE {0} TEMPLATE {1}; ALTER DATABASE {0} SET spine.enabled = off'.format(BY_HAND, database))
    private.sql('', BY_HAND, '-f', BENCH + '/copy.sql')
    private.sql('CALL bench_share(%d); VACUUM ANALYZE bench_rows' % sessions, BY_HAND)


def prepare_by_hand(private, sessions):
    """The rows as handwritten.sql wants them."""
    private.sql('', BY_HAND, '-f', BENCH + '/handwritten.sql')
    private.sql('CALL bench_prepare(%d); VACUUM ANALYZE bench_batches' % sessions, BY_HAND)


def empty(private, database, *tables):
    """Empties the tables, and the totals of orders, whose triggers do not see a TRUNCATE."""
    private.sql('TRUNCATE %s; SELECT spine_recount_orders(); CHECKPOINT'
                % ', '.join(tables), database)


def check_count(private, database, table, events, who):
    applied = int(private.value('SELECT count(*) FROM ' + table, database))
    if applied != events:
        raise RuntimeError('%s wrote %d of %d events' % (who, applied, events))


def hand_write(private, database, sessions):
    """Applies the rows by hand-written SQL."""
    empty(private, database, 'events', 'current_orders', 'bench_times')
    gate = subprocess.Popen(private.psql(database), env=private.environment, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    gate.stdin.write('SELECT pg_advisory_lock(1);\n')
    gate.stdin.flush()
    gate.stdout.readline()
    writers = [subprocess.Popen(private.psql(database, '-c', 'SET jit = off', '-c', 'CALL bench_apply(%d)' % i),
                                env=private.environment) for i in range(sessions)]
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while int(private.value(waiting, database)) < sessions:
        if any(writer.poll() is not None for writer in writers):
            raise RuntimeError('the hand-written SQL failed: see above')
        time.sleep(0.1)
    before = wal_position(private, database), table_work(private, database)
    with private.watch() as watch:
        gate.communicate('SELECT pg_advisory_unlock(1);\n')
        failed = any([writer.wait() for writer in writers])
    if failed:
        raise RuntimeError('the hand-written SQL failed: see above')

    events, commits = private.sql('SELECT sum(rows), count(*) FROM bench_batches', database)[0]
    check_count(private, database, 'events', int(events), 'the hand-written SQL')
    seconds, ticks = private.sql('SELECT extract(epoch FROM max(ended) - min(started)), sum(cpu_ticks) '
                                 'FROM bench_times', database)[0]
    return {'events': int(events), 'seconds': float(seconds), 'cpu_seconds': int(ticks) / TICKS,
            'commits': int(commits), 'machine': watch.found, **changes(private, database, before)}


def copy(private, database, sessions, table='events', columns=COLUMNS, kind='upsert'):
    """Applies the rows by COPY in binary, and by a reduced upsert."""
    empty(private, database, table, 'current_orders')
    writers = [subprocess.Popen([private.copy_program, str(i), table, columns, kind], text=True,
                                env=dict(private.environment, PGDATABASE=database),
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE) for i in range(sessions)]
    if any([writer.stdout.readline() != 'ready\n' for writer in writers]):
        raise RuntimeError('COPY by hand failed: see above')
    before = wal_position(private, database), table_work(private, database)
    with private.watch() as watch:
        for writer in writers:
            writer.stdin.write('go\n')
            writer.stdin.flush()
        answers = [json.loads(writer.communicate()[0]) for writer in writers]
    events = int(private.value('SELECT count(*) FROM bench_rows', database))
    check_count(private, database, table, events, 'COPY by hand')
    return {'events': events, 'seconds': max(a['end'] for a in answers) - min(a['start'] for a in answers),
            'cpu_seconds': sum(a['cpu_seconds'] for a in answers), 'commits': sum(a['commits'] for a in answers),
            'machine': watch.found, **changes(private, database, before)}


def rate(run):
    return run['events'] / run['seconds']


def in_turn(private, sides, runs):
    """Measures all sides (functions of the same name) in each run, in another order each time, and once more
    before, which does not count. Autovacuum is off: it would come to one side for what the other has written.
    Returns the runs of each side."""
    found = {name: [] for name in sides}
    private.set('autovacuum', 'off')
    for number in range(runs + 1):
        names = list(sides) if number % 2 == 0 else list(reversed(sides))
        run = {name: sides[name]() for name in names}
        if number > 0:
            for name in sides:
                found[name].append(run[name])
            say('run %d of %d: %s' % (number, runs, ', '.join('%s %.0f events/s' % (name, rate(run[name]))
                                                              for name in sides)))
    private.set('autovacuum', 'on')
    return found


def run_spine(private, topic, workers):
    private.new_database(DATABASE, topic=topic, workers=workers)
    return drain(private, DATABASE)


def run(private, results, sizes, runs):
    private.start_kafka()
    events = sizes['drain_events']
    for partitions in (3, 16):
        topic = 'drain-%d' % partitions
        say('drain: %d events on %d partitions' % (events, partitions))
        fill_topic(private, topic, events, partitions)
        for workers in (1, 2):
            case = '%d partitions, %d worker%s' % (partitions, workers, 's'[workers < 2:])
            say('drain: %s: the batches that spine makes' % case)
            run_spine(private, topic, workers)
            copy_database(private, DATABASE, workers)
            prepare_by_hand(private, workers)
            found = in_turn(private, {'spine': lambda: run_spine(private, topic, workers),
                                      'hand-written SQL': lambda: hand_write(private, BY_HAND, workers),
                                      'COPY by hand': lambda: copy(private, BY_HAND, workers)}, runs)
            private.drop_database(BY_HAND)
            private.drop_database(DATABASE)
            spine = found.pop('spine')
            for number in range(runs):
                results.add_raw('drain', partitions=partitions, workers=workers, spine=spine[number],
                                **{name: of[number] for name, of in found.items()})
            for name, others in found.items():
                results.compare('drain', case, 'events/s', [rate(r) for r in spine], name,
                                [rate(r) for r in others], spine, others)

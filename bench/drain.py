"""How fast a backlog is applied, and how close that is to hand-written SQL.

The events are already on the topic. spine applies them to a new database. Then
handwritten.sql applies the same rows, in the same batches, to the same tables; its
sessions have the rows parsed and in memory.
"""
import subprocess
import time

from private import BENCH, TICKS, cpu_seconds, say

TENANTS = 48
EVENTS_PER_ORDER = 4
DATABASE = 'drain'

# Waits until everything on the topic is applied. Not with spine_wait: like every
# statement it holds a snapshot, and while it waits no dead row can be pruned, but
# current_orders depends on pruning.
WAIT = """
CREATE OR REPLACE PROCEDURE bench_wait()
LANGUAGE plpgsql
AS $$
DECLARE
    to_offset bigint := (SELECT sum(end_offset) FROM spine_topic_offsets(current_setting('spine.topic')));
    until timestamptz := clock_timestamp() + interval '30 min';
BEGIN
    WHILE coalesce((SELECT sum(next_offset) FROM spine_offsets), 0) < to_offset LOOP
        IF clock_timestamp() > until THEN
            RAISE 'spine did not apply everything';
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
    broker_pid = int(open(private.kafka + '/pid').read())
    broker_cpu = cpu_seconds(broker_pid)
    rows = private.sql("SELECT clock_timestamp(); SELECT spine_resume('orders'); "
                       "CALL bench_wait(); SELECT clock_timestamp();", database)
    cpu = sum(cpu_seconds(pid) for pid in private.worker_pids(database))
    broker_cpu = cpu_seconds(broker_pid) - broker_cpu
    peak = memory.end()
    private.pause(database)     # the workers report their table statistics when they exit
    start, end = rows[0][0], rows[-1][0]
    seconds, start_up, events, batches = private.sql(
        "SELECT extract(epoch FROM '%s'::timestamptz - '%s'), extract(epoch FROM min(applied_at) - '%s'),"
        " count(*), count(DISTINCT applied_at) FROM events WHERE applied_at >= '%s'"
        % (end, start, start, start), database)[0]
    return {'events': int(events), 'seconds': float(seconds), 'start_up_seconds': float(start_up),
            'cpu_seconds': cpu, 'broker_cpu_seconds': broker_cpu, 'commits': int(batches),
            'memory': peak, **changes(private, database, before)}


def hand_write(private, database, sessions):
    """Applies the same rows again, by hand-written SQL."""
    private.sql('', database, '-f', BENCH + '/handwritten.sql')
    private.sql('CALL bench_prepare(%d); VACUUM ANALYZE bench_batches; CHECKPOINT' % sessions, database)

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
    gate.communicate('SELECT pg_advisory_unlock(1);\n')
    if any([writer.wait() for writer in writers]):
        raise RuntimeError('the hand-written SQL failed: see above')

    events, commits = private.sql('SELECT sum(rows), count(*) FROM bench_batches', database)[0]
    applied = private.value('SELECT count(*) FROM events', database)
    if applied != events:
        raise RuntimeError('the hand-written SQL wrote %s of %s events' % (applied, events))
    seconds, ticks = private.sql('SELECT extract(epoch FROM max(ended) - min(started)), sum(cpu_ticks) '
                                 'FROM bench_times', database)[0]
    return {'events': int(events), 'seconds': float(seconds), 'cpu_seconds': int(ticks) / TICKS,
            'commits': int(commits), **changes(private, database, before)}


def rate(run):
    return run['events'] / run['seconds']


def run(private, results, sizes, runs):
    private.start_kafka()
    events = sizes['drain_events']
    for partitions in (3, 16):
        topic = 'drain-%d' % partitions
        say('drain: %d events on %d partitions' % (events, partitions))
        fill_topic(private, topic, events, partitions)
        for workers in (1, 2):
            spine, hand = [], []
            for number in range(runs):
                private.new_database(DATABASE, topic=topic, workers=workers)
                spine.append(drain(private, DATABASE))
                hand.append(hand_write(private, DATABASE, workers))
                private.drop_database(DATABASE)
                say('drain: %d partitions, %d workers, run %d: %.0f events/s, by hand %.0f'
                    % (partitions, workers, number + 1, rate(spine[-1]), rate(hand[-1])))
                results.add_raw('drain', partitions=partitions, workers=workers,
                                spine=spine[-1], handwritten=hand[-1])
            results.compare('drain', '%d partitions, %d worker%s' % (partitions, workers, 's'[workers < 2:]),
                            'events/s', [rate(r) for r in spine],
                            'hand-written SQL', [rate(r) for r in hand])

#!/usr/bin/env python3
"""Compares spine with what one would use instead: see "Peers" in docs/BENCHMARKS.md.

    bench/peers.py [PEER...]    python spark spark-5s connect append-debezium append-jdbc latency latency-busy;
                                all of them

spine, with one worker and with two, and the peer read the same topic into the same tables, RUNS
times (default 1) with EVENTS events (default 200000). The append peers fill one table, once with
a key and once without. latency measures how long an event takes to become visible, with each of
the consumers, with the machine to themselves and beside a busy loop; RATE (default 1000) is the
number of events a second, SECONDS (default 20) the length. Peers are downloaded to build/peers,
which also keeps their output. A peer that cannot be downloaded is left out, with the reason.
Aiven's JDBC sink is in no public registry: JDBC_SINK=DIRECTORY says where its jars are. Leaves
everything that was measured in build/bench/peers.json.
"""
import os
import signal
import subprocess
import sys
import time

import append
import drain
import peers_latency
from consumers import (APPEND_PEERS, BOTH_TABLES, HOME, PEERS, Failed, LeftOut, end_peer, make_directory,
                       make_peer_database, start_peer, versions)
from bench import describe, judge, quiet_before, show
from private import TREE, Private, say
from quiet import tree_cpu_seconds
from results import Results

PARTITIONS = 3
TIMEOUT = 900
WORKERS = (1, 2)
LATENCY = ('latency', 'latency-busy')
TOPIC = 'peers'
SPINE_SIDE = 'spine_side'

# Rows, and sums over them that do not depend on their order.
SUMS = """SELECT (SELECT count(*) FROM events),
    (SELECT sum(hashtextextended(concat_ws('|', tenant, event_id, event_type, order_id, amount_cents,
        event_time, kafka_partition, kafka_offset), 0)) FROM events),
    (SELECT sum(hashtextextended(concat_ws('|', tenant, order_id, status, amount_cents, currency,
        updated_at), 0)) FROM current_orders)"""

# Orders that differ from the newest of their events.
WRONG = """SELECT count(*) FROM (SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type,
        amount_cents, event_time FROM events ORDER BY tenant, order_id, event_time DESC) e
    FULL JOIN current_orders c USING (tenant, order_id)
    WHERE (c.status, c.amount_cents, c.updated_at)
        IS DISTINCT FROM (e.event_type, e.amount_cents, e.event_time)"""

# The last event of each partition.
LAST = """SELECT json_build_object('tenants', json_agg(tenant), 'orders', json_agg(order_id),
        'times', json_agg(event_time), 'partitions', json_agg(kafka_partition), 'offsets', json_agg(kafka_offset))
    FROM (SELECT DISTINCT ON (kafka_partition) * FROM events ORDER BY kafka_partition, kafka_offset DESC) e"""


# --------------------------------------------------------------------------- a run

def check(private, database, case, events, expected=None):
    sums = private.sql(SUMS, database)[0]
    wrong = int(private.value(WRONG, database)) if case == BOTH_TABLES else 0
    result = {'events': int(sums[0]), 'sums': sums[1:3] if case == BOTH_TABLES else sums[1:2], 'orders_wrong': wrong}
    if result['events'] != events or wrong or (expected and result['sums'] != expected):
        raise Failed('the tables are wrong: %s' % result)
    return result


def run_spine(private, case, events, workers, expected=None):
    private.new_database(SPINE_SIDE, topic=TOPIC, workers=workers)
    if case != BOTH_TABLES:
        append.only_events(private, SPINE_SIDE, append.KEYS[case])
    run = drain.drain(private, SPINE_SIDE)
    run['cpu_seconds'] = run['server_cpu_seconds']
    run.update(check(private, SPINE_SIDE, case, events, expected))
    run['rate'] = events / (run['seconds'] - run['start_up_seconds'])
    return run


def run_peer(private, database, log, command):
    """Returns when the peer's process began, and when its last commit was."""
    began = time.time()
    process = start_peer(private, database, log, *command)
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Failed('not done after %d s: see %s' % (TIMEOUT, log))
    finally:
        end_peer(process)
    if process.returncode:
        raise Failed('see ' + log)
    return began, float(output.splitlines()[-1])


def measure_peer(private, peer, prepare, case, events, last, expected):
    """A rate, also spine's, is measured from the start of the first transaction to the last commit. The time before
    is start_up_seconds. The CPU time is that of the peer, and of the whole server."""
    directory = make_directory(private, peer)
    database = os.path.basename(directory).lower().replace('-', '_').replace('.', '_')      # of no other run
    command = prepare(private, TOPIC, events, last, directory)
    make_peer_database(private, database, case)
    wal = drain.wal_position(private, database)
    with private.watch() as watch:
        cpu = tree_cpu_seconds(private.postmaster_pid(), os.getpid())
        began, end = run_peer(private, database, '%s/%s.log' % (HOME, peer), command)
        cpu = tree_cpu_seconds(private.postmaster_pid(), os.getpid()) - cpu
    first = float(private.value('SELECT extract(epoch FROM min(applied_at)) FROM events', database))
    run = {'seconds': end - began, 'start_up_seconds': first - began, 'rate': events / (end - first),
           'cpu_seconds': cpu, 'machine': watch.found, 'wal_bytes': drain.wal_position(private, database) - wal}
    run.update(check(private, database, case, events, expected))
    private.drop_database(database)
    return run


def measure(private, results, peer, title, prepare, case, events, runs):
    """Runs spine and the peer in turn, and compares their rates."""
    say('peers: %s, %s' % (title, case))
    warm = run_spine(private, case, events, 1)
    last, expected = private.value(LAST, SPINE_SIDE), warm['sums']
    found = {side: [] for side in (*WORKERS, peer)}
    for number in range(runs):
        sides = list(found) if number % 2 == 0 else list(reversed(found))
        for side in sides:
            found[side].append(measure_peer(private, peer, prepare, case, events, last, expected)
                               if side == peer else run_spine(private, case, events, side, expected))
        results.add_raw(peer, case=case, **{str(side): found[side][-1] for side in found})
        say('peers: %s' % ', '.join('%s %.0f events/s, start-up %.1f s' % (
            'spine with %s' % side if side in WORKERS else peer, found[side][-1]['rate'],
            found[side][-1]['start_up_seconds']) for side in found))
    for workers in WORKERS:
        results.compare('peers', '{}, {} worker{}'.format(case, workers, 's'[workers < 2:]), 'events/s',
                        [run['rate'] for run in found[workers]], title, [run['rate'] for run in found[peer]],
                        found[workers], found[peer])


def main(peers):
    unknown = [peer for peer in peers if peer not in (*PEERS, *APPEND_PEERS, *LATENCY)]
    if unknown:
        sys.exit('peers: there is no ' + ' '.join(unknown))
    events, runs = int(os.environ.get('EVENTS') or 200_000), int(os.environ.get('RUNS') or 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.makedirs(HOME, exist_ok=True)
    os.makedirs(TREE + '/build/bench', exist_ok=True)
    busy = quiet_before()
    private = Private()
    left_out = {}
    try:
        private.build()
        private.start_server()
        private.start_kafka()
        results = Results(describe(private, 'peers', {'events': events, 'partitions': PARTITIONS, 'runs': runs,
                                                           'jdbc_sink': bool(os.environ.get('JDBC_SINK'))}, busy))
        drain.fill_topic(private, TOPIC, events, PARTITIONS)
        for peer in peers:
            try:
                if peer in LATENCY:
                    peers_latency.run(private, results, left_out, is_busy=peer == 'latency-busy')
                elif peer in PEERS:
                    measure(private, results, peer, *PEERS[peer], BOTH_TABLES, events, runs)
                else:
                    for case in append.KEYS:
                        measure(private, results, peer, *APPEND_PEERS[peer], case, events, runs)
            except (LeftOut, Failed) as reason:
                left_out[peer] = '%s: %s' % (type(reason).__name__, reason)
                say('peers: %s: %s' % (peer, left_out[peer]))
            results.about.update(left_out=left_out, peers=versions())
            results.save(TREE + '/build/bench/peers.json')
    except BaseException:
        private.keep_log()
        raise
    finally:
        private.close()
    print()
    show(results.about)
    print(results.table())
    print('\n' + judge(results.rows))
    for peer, reason in left_out.items():
        print('%s: %s' % (peer, reason))
    print('\nall results: build/bench/peers.json')
    if any(reason.startswith('Failed') for reason in left_out.values()):
        sys.exit(1)


if __name__ == '__main__':
    try:
        main(sys.argv[1:] or [*PEERS, *APPEND_PEERS, *LATENCY])
    except KeyboardInterrupt:
        sys.exit(130)

#!/usr/bin/env python3
"""Compares spine with what one would use instead: see "Peers" in docs/BENCHMARKS.md.

    bench/peers.py [PEER...]    python spark spark-5s connect; all of them

spine and then the peer read the same topic into the same tables, RUNS times (default 1)
with EVENTS events (default 200000). Peers are downloaded to build/peers, which also keeps
their output. A peer that cannot be downloaded is left out, with the reason. Leaves
everything that was measured in build/bench/peers.json.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import drain
from bench import describe, show
from private import BENCH, TREE, Private, busy_share, say
from results import Results

HOME = os.path.join(TREE, 'build', 'peers')
PYTHON = HOME + '/venv/bin/python'
PYSPARK = 'pyspark==4.2.0'      # the version of bench/peers-spark.xml
PARTITIONS = 3
TIMEOUT = 900
TOPIC = 'peers'
SPINE_SIDE = 'spine_side'

# Rows, and sums over them that do not depend on their order.
SUMS = """SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM current_orders),
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
        'times', json_agg(event_time), 'ids', json_agg(event_id))
    FROM (SELECT DISTINCT ON (kafka_partition) * FROM events ORDER BY kafka_partition, kafka_offset DESC) e"""


class LeftOut(Exception):
    pass


class Failed(Exception):
    pass


# --------------------------------------------------------------------------- downloads

def fetch(what, *command):
    """Runs the command. If it fails, its output is in build/peers."""
    say('peers: getting ' + what)
    log = '%s/%s.log' % (HOME, what.split()[0])
    with open(log, 'w') as file:
        if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode:
            raise LeftOut('%s could not be downloaded: see build/peers/%s' % (what, os.path.basename(log)))
    os.remove(log)


def pip(*packages):
    if not os.path.exists(PYTHON):
        fetch('venv for the peers', sys.executable, '-m', 'venv', HOME + '/venv')
    fetch(' '.join(packages), PYTHON, '-m', 'pip', 'install', '-q', *packages)


def maven(name):
    """The directory of the jars that bench/peers-NAME.xml names. It gets its name only when it is complete."""
    target, pom = '%s/%s' % (HOME, name), '%s/peers-%s.xml' % (BENCH, name)
    if not os.path.isdir(target) or os.path.getmtime(target) < os.path.getmtime(pom):
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(target + '.new', ignore_errors=True)
        fetch(name + ' jars', 'mvn', '-q', '-B', '-f', pom, '-Dmaven.repo.local=%s/build/m2' % TREE,
              'dependency:copy-dependencies', '-DoutputDirectory=%s.new' % target)
        os.rename(target + '.new', target)
        os.utime(target)
    return target


def versions():
    code = ("import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version "
            "for d in m.distributions() if d.metadata['Name'] not in ('pip', 'setuptools')}))")
    found = {}
    if os.path.exists(PYTHON):
        found = json.loads(subprocess.run([PYTHON, '-c', code], check=True, stdout=subprocess.PIPE).stdout)
    for name in ('spark', 'connect'):
        if os.path.isdir('%s/%s' % (HOME, name)):
            found[name] = sorted(os.listdir('%s/%s' % (HOME, name)))
    return found


# --------------------------------------------------------------------------- the peers

# Each downloads what it needs, and returns the command line of bench/peer_NAME.py.

def python(private, events, directory):
    pip('confluent-kafka', 'psycopg[binary]')
    return ['python', private.brokers, TOPIC, str(events)]


def spark(trigger):
    def prepare(private, events, directory):
        jars = maven('spark')
        pip(PYSPARK, 'psycopg2-binary')
        return ['spark', private.brokers, TOPIC, str(events), trigger, jars, directory]
    return prepare


def connect(private, events, directory):
    jars = maven('connect')
    pip('psycopg[binary]')
    return ['connect', private.brokers, TOPIC, private.value(LAST, SPINE_SIDE), jars, directory]


PEERS = {'python': ('plain Python consumer', python),
         'spark': ('Spark, as fast as possible', spark('0 seconds')),
         'spark-5s': ('Spark, every 5 s', spark('5 seconds')),
         'connect': ("Kafka Connect, Debezium's JDBC sink (the last to come wins)", connect)}


# --------------------------------------------------------------------------- a run

def check(private, database, events, expected=None):
    sums = private.sql(SUMS, database)[0]
    result = {'events': int(sums[0]), 'orders': int(sums[1]), 'sums': sums[2:],
              'orders_wrong': int(private.value(WRONG, database))}
    if result['events'] != events or result['orders_wrong'] or (expected and sums[2:] != expected):
        raise Failed('the tables are wrong: %s' % result)
    return result


def run_spine(private, events):
    private.new_database(SPINE_SIDE, topic=TOPIC, workers=1)
    run = drain.drain(private, SPINE_SIDE)
    run.update(check(private, SPINE_SIDE, events))
    run['rate'] = events / (run['seconds'] - run['start_up_seconds'])
    return run


def make_peer_database(private, name):
    """Makes the same tables, without a pipeline that fills them. The triggers that keep
    spine's totals are off, because only spine has them."""
    private.sql('CREATE DATABASE %s' % name)
    private.sql('ALTER DATABASE %s SET spine.enabled = off' % name)
    private.sql('CREATE EXTENSION spine; ALTER TABLE current_orders DISABLE TRIGGER USER; CHECKPOINT', name)


def run_peer(private, database, log, name, *arguments):
    """Returns when the peer's process began, and when its last commit was. Its groups in Kafka
    are named after the database, so that no run begins where another ended."""
    environment = dict(private.environment, PGDATABASE=database,
                       PATH=os.path.dirname(PYTHON) + ':' + os.environ['PATH'])
    began = time.time()
    with open(log, 'w') as file:
        process = subprocess.Popen([PYTHON, '%s/peer_%s.py' % (BENCH, name), *arguments], env=environment,
                                   text=True, stdout=subprocess.PIPE, stderr=file, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Failed('not done after %d s: see %s' % (TIMEOUT, log))
    finally:
        if process.poll() is None:          # ends the process with its JVM
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise Failed('see ' + log)
    return began, float(output.splitlines()[-1])


def measure(private, results, peer, events, number):
    """Runs spine, then the peer, and returns both rates. A rate, also spine's, is measured from
    the start of the first transaction to the last commit. The time before is start_up_seconds."""
    title, prepare = PEERS[peer]
    spine = run_spine(private, events)
    database = '%s_%d' % (peer.replace('-', '_'), number)
    directory = '%s/%s' % (private.directory, database)
    os.mkdir(directory)
    command = prepare(private, events, directory)
    make_peer_database(private, database)
    say('peers: ' + title)
    began, end = run_peer(private, database, '%s/%s.log' % (HOME, peer), *command)
    first = float(private.value('SELECT extract(epoch FROM min(applied_at)) FROM events', database))
    run = {'seconds': end - began, 'start_up_seconds': first - began, 'rate': events / (end - first)}
    run.update(check(private, database, events, spine['sums']))
    private.drop_database(database)
    results.add_raw(peer, spine=spine, peer=run)
    say('peers: spine %.0f events/s, start-up %.1f s; %s %.0f, start-up %.1f s'
        % (spine['rate'], spine['start_up_seconds'], title, run['rate'], run['start_up_seconds']))
    return spine['rate'], run['rate']


def main(peers):
    unknown = [peer for peer in peers if peer not in PEERS]
    if unknown:
        sys.exit('peers: there is no ' + ' '.join(unknown))
    events, runs = int(os.environ.get('EVENTS') or 200_000), int(os.environ.get('RUNS') or 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.makedirs(HOME, exist_ok=True)
    os.makedirs(TREE + '/build/bench', exist_ok=True)
    busy = busy_share()
    private = Private()
    left_out = {}
    try:
        private.build()
        private.start_server()
        private.start_kafka()
        results = Results(describe(private, 'peers', {'events': events, 'partitions': PARTITIONS, 'runs': runs}, busy))
        drain.fill_topic(private, TOPIC, events, PARTITIONS)
        for peer in peers:
            try:
                rates = [measure(private, results, peer, events, number) for number in range(runs)]
                results.compare('peers', '%d events' % events, 'events/s', [rate[0] for rate in rates],
                                PEERS[peer][0], [rate[1] for rate in rates])
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
    for peer, reason in left_out.items():
        print('%s: %s' % (PEERS[peer][0], reason))
    print('\nall results: build/bench/peers.json')
    if any(reason.startswith('Failed') for reason in left_out.values()):
        sys.exit(1)


if __name__ == '__main__':
    try:
        main(sys.argv[1:] or list(PEERS))
    except KeyboardInterrupt:
        sys.exit(130)

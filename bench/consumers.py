"""The consumers that spine is compared with: how each is downloaded, started and ended."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import append
from private import BENCH, TREE, say

HOME = os.path.join(TREE, 'build', 'peers')
PYTHON = HOME + '/venv/bin/python'
PYSPARK = 'pyspark==4.2.0'      # the version of bench/peers-spark.xml


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
    if os.environ.get('JDBC_SINK'):
        found['jdbc_sink'] = sorted(os.listdir(os.environ['JDBC_SINK']))
    return found


# --------------------------------------------------------------------------- the peers

# Each downloads what it needs, and returns the command line of bench/peer_NAME.py. The last event
# of each partition is None where the peer is to run until it is ended.

NO_END = 10 ** 12


def python(private, topic, events, last, directory):
    pip('confluent-kafka', 'psycopg[binary]')
    return ['python', private.brokers, topic, str(events or NO_END), '0.5' if last else '0']


def spark(trigger):
    def prepare(private, topic, events, last, directory):
        jars = maven('spark')
        pip(PYSPARK, 'psycopg2-binary')
        return ['spark', private.brokers, topic, str(events or NO_END), trigger, jars, directory]
    return prepare


def connect(kind):
    def prepare(private, topic, events, last, directory):
        jars = maven('connect') + '/*'
        if kind == 'aiven':
            if not os.environ.get('JDBC_SINK'):
                raise LeftOut("no registry has Aiven's JDBC sink: unpack a release, and set JDBC_SINK to its directory")
            jars += ':%s/*' % os.path.abspath(os.environ['JDBC_SINK'])
        pip('psycopg[binary]')
        return ['connect', private.brokers, topic, last or '{}', jars, directory, kind]
    return prepare


BOTH_TABLES = 'both tables'
PEERS = {'python': ('plain Python consumer', python),
         'spark': ('Spark, as fast as possible', spark('0 seconds')),
         'spark-5s': ('Spark, every 5 s', spark('5 seconds')),
         'connect': ("Kafka Connect, Debezium's JDBC sink (the last to come wins)", connect('both'))}
APPEND_PEERS = {'append-debezium': ("Kafka Connect, Debezium's JDBC sink", connect('debezium')),
                'append-jdbc': ("Kafka Connect, Aiven's JDBC sink", connect('aiven'))}


# --------------------------------------------------------------------------- a process

def make_peer_database(private, name, case=BOTH_TABLES):
    """Makes the same tables, without a pipeline that fills them. The triggers that keep
    spine's totals are off, because only spine has them."""
    private.sql('CREATE DATABASE %s' % name)
    private.sql('ALTER DATABASE %s SET spine.enabled = off' % name)
    private.sql('CREATE EXTENSION spine; ALTER TABLE current_orders DISABLE TRIGGER USER; CHECKPOINT', name)
    if case != BOTH_TABLES:
        append.only_events(private, name, append.KEYS[case])


def start_peer(private, database, log, name, *arguments):
    """The process leads a group, which has its JVM, too. The peer's groups in Kafka are named after the database,
    so that no run begins where another ended."""
    environment = dict(private.environment, PGDATABASE=database,
                       PATH=os.path.dirname(PYTHON) + ':' + os.environ['PATH'])
    with open(log, 'w') as file:
        return subprocess.Popen([PYTHON, '%s/peer_%s.py' % (BENCH, name), *arguments], env=environment,
                                text=True, stdout=subprocess.PIPE, stderr=file, start_new_session=True)


def end_peer(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def make_directory(private, name):
    return tempfile.mkdtemp(prefix=name + '.', dir=private.directory)

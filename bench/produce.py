"""How fast spine_produce sends, compared with a C program with the same library and
settings, whose events are made before the clock starts, and with kcat, which reads the
events from a file. All of them send to one partition, because the tenant is the key and
there is one tenant.
"""
import os
import subprocess
import time

from private import say

DATABASE = 'produce'
PARTITIONS = 3


def with_spine(private, n):
    """Connects before the clock starts, like the C program."""
    rows = private.sql(
        "SELECT spine_produce('acme', 1); CREATE TEMP TABLE t AS SELECT pg_read_file('/proc/self/stat', 0, 4096) AS stat;"
        "SELECT clock_timestamp(); SELECT spine_produce('acme', %d); SELECT clock_timestamp();"
        "SELECT ticks(t.stat), ticks(pg_read_file('/proc/self/stat', 0, 4096)) FROM t" % n, DATABASE)
    seconds = float(private.value("SELECT extract(epoch FROM '%s'::timestamptz - '%s')" % (rows[3][0], rows[1][0])))
    before, after = (int(field) for field in rows[4])
    return {'events': int(rows[2][0]), 'seconds': seconds, 'cpu_seconds': (after - before) / os.sysconf('SC_CLK_TCK')}


def with_kcat(private, topic, path, n):
    start, before = time.monotonic(), os.times()
    subprocess.run(['kcat', '-b', private.brokers, '-q', '-P', '-t', topic, '-K', '\t', '-l', path, '-z', 'lz4',
                    '-X', 'enable.idempotence=true', '-X', 'linger.ms=2', '-X', 'partitioner=murmur2_random'],
                   check=True)
    seconds, after = time.monotonic() - start, os.times()
    return {'events': n, 'seconds': seconds,
            'cpu_seconds': after.children_user + after.children_system - before.children_user - before.children_system}


def run(private, results, sizes, runs):
    private.start_kafka()
    n = sizes['produce_events']
    topic = 'produce'
    private.load('create', topic, PARTITIONS)
    private.new_database(DATABASE, topic=topic)
    private.sql("""CREATE FUNCTION ticks(stat text) RETURNS bigint LANGUAGE sql AS
        $$ SELECT f[12]::bigint + f[13]::bigint FROM string_to_array(regexp_replace(stat, '^.*\\) ', ''), ' ') f $$""",
                DATABASE)
    path = os.path.join(private.directory, 'lines')
    with open(path, 'w') as file:
        subprocess.run([private.load_program, '-', 'lines', str(n)], check=True, stdout=file)

    sides = {'spine': lambda: with_spine(private, n), 'librdkafka': lambda: private.load('blast', topic, n),
             'kcat': lambda: with_kcat(private, topic, path, n)}
    found = []
    for number in range(runs):
        found.append({})
        for name in list(sides)[::-1 if number % 2 else 1]:
            with private.watch() as watch:
                found[-1][name] = sides[name]()
            found[-1][name]['machine'] = watch.found
        results.add_raw('produce', **found[-1])
        say('produce: run %d: ' % (number + 1) + ', '.join(
            '%s %.0f events/s' % (name, r['events'] / r['seconds']) for name, r in found[-1].items()))
    rates = {name: [r[name]['events'] / r[name]['seconds'] for r in found] for name in found[0]}
    runs_of = {name: [r[name] for r in found] for name in sides}
    for name, title in (('librdkafka', 'C, pre-made events'), ('kcat', 'kcat, from a file')):
        results.compare('produce', 'one tenant', 'events/s', rates['spine'], title, rates[name],
                        runs_of['spine'], runs_of[name])
    private.drop_database(DATABASE)

"""From CREATE EXTENSION to the first event in the table, with the embedded broker: the
launcher has the database probed, a broker and a worker start, and one event arrives. The
comparison is PostgreSQL's part of this: CREATE EXTENSION alone.
"""
from private import say

DATABASE = 'start'


def seconds_of(private, statements):
    rows = private.sql('SELECT clock_timestamp(); %s; SELECT clock_timestamp()' % statements, DATABASE)
    return float(private.value("SELECT extract(epoch FROM '%s'::timestamptz - '%s')" % (rows[-1][0], rows[0][0])))


def new_database(private, enabled):
    private.sql("DROP DATABASE IF EXISTS {0} WITH (FORCE); CREATE DATABASE {0}; "
                "ALTER DATABASE {0} SET spine.enabled = {1}".format(DATABASE, enabled))


def run(private, results, sizes, runs):
    private.set('spine.brokers', '')
    whole, alone, ours, theirs = [], [], [], []
    for number in range(runs):
        new_database(private, 'off')
        with private.watch() as watch:
            alone.append(seconds_of(private, 'CREATE EXTENSION spine'))
        theirs.append({'machine': watch.found})
        new_database(private, 'on')
        with private.watch() as watch:
            whole.append(seconds_of(private,
                                    "CREATE EXTENSION spine; SELECT spine_produce('acme', 1); SELECT spine_wait()"))
        ours.append({'machine': watch.found})
        if private.value('SELECT count(*) FROM events', DATABASE) != '1':
            raise RuntimeError('the event did not arrive')
        private.drop_database(DATABASE)
        results.add_raw('start', spine_seconds=whole[-1], create_extension_seconds=alone[-1],
                        machine=ours[-1]['machine'])
        say('start: run %d: %.2f s' % (number + 1, whole[-1]))
    results.compare('start', 'to the first event', 's', whole, 'CREATE EXTENSION alone', alone, ours, theirs)
    private.set('spine.brokers', private.brokers or '')

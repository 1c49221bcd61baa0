"""How fast a backlog is appended to one table, beside COPY in binary by hand.

As drain, but the pipeline has only the sink of events. The table is once as it is, with its
key, and once without any index.
"""
from drain import BY_HAND, copy, copy_database, drain, fill_topic, in_turn, rate
from private import say

DATABASE = 'append'
TOPIC = 'append'
PARTITIONS = 3
KEYS = {'with its key': True, 'without a key': False}


def only_events(private, database, has_key):
    """Leaves the pipeline only the sink of events, and that table its key or not."""
    private.sql("SELECT spine_drop_sink('orders', 'current_orders')", database)
    if not has_key:
        private.sql("""SELECT spine_alter_sink('orders', 'events', '{"key": null}');
            ALTER TABLE events DROP CONSTRAINT events_pkey""", database)


def run_spine(private, topic, has_key, workers=1):
    private.new_database(DATABASE, topic=topic, workers=workers)
    only_events(private, DATABASE, has_key)
    return drain(private, DATABASE)


def run(private, results, sizes, runs):
    private.start_kafka()
    fill_topic(private, TOPIC, sizes['drain_events'], PARTITIONS)
    for case, has_key in KEYS.items():
        say('append: %s: the batches that spine makes' % case)
        run_spine(private, TOPIC, has_key)
        copy_database(private, DATABASE, 1)
        found = in_turn(private, {'spine': lambda: run_spine(private, TOPIC, has_key),
                                  'COPY by hand': lambda: copy(private, BY_HAND, 1, kind='append')}, runs)
        private.drop_database(BY_HAND)
        private.drop_database(DATABASE)
        spine, others = found['spine'], found['COPY by hand']
        for pair in zip(spine, others):
            results.add_raw('append', case=case, spine=pair[0], copy=pair[1])
        results.compare('append', 'events, ' + case, 'events/s', [rate(r) for r in spine], 'COPY by hand',
                        [rate(r) for r in others], spine, others)

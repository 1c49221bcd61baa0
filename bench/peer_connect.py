"""Kafka Connect, standalone, with a JDBC sink:
peer_connect.py BROKERS TOPIC LAST JARS DIRECTORY SINK

SINK is debezium or aiven, which say how events are appended to the table events, or "both":
Debezium's sink, with both tables, and a connector for each of them, because a sink connector
writes one table. Each connector has a task for every partition. A JDBC sink needs a schema,
and the events are plain JSON, so the converter is told the schema. batch.size and
max.poll.records are 10,000. For both tables each batch is one statement (unnest), and is
reduced to one row per key first. Debezium's sink cannot compare event_time: the last event to
arrive wins. The two tables do not change together. A repeated event rewrites its row.

LAST has the last event of each partition. Each partition is written in order, so once the
tables have these events, everything is there. Prints the time of that. Without a LAST (an empty
object) it runs until it is ended.
"""
import json
import os
import socket
import subprocess
import sys
import time

import psycopg

OVERLAP = 1000      # pages: what a task had written, but not committed, when it was last looked at

BROKERS, TOPIC, LAST, JARS, DIRECTORY, KIND = sys.argv[1:]

SCHEMA = {'type': 'struct', 'fields': [
    {'field': name, 'type': kind, 'name': meaning, 'version': 1, 'optional': False} if meaning
    else {'field': name, 'type': kind, 'optional': False} for name, kind, meaning in (
        ('event_id', 'string', 'io.debezium.data.Uuid'), ('tenant', 'string', None), ('event_type', 'string', None),
        ('order_id', 'string', None), ('amount_cents', 'int64', None),
        ('event_time', 'string', 'io.debezium.time.ZonedTimestamp'))]}

WORKER = {
    'bootstrap.servers': BROKERS,
    'key.converter': 'org.apache.kafka.connect.storage.StringConverter',
    'value.converter': 'org.apache.kafka.connect.json.JsonConverter',
    'value.converter.schemas.enable': 'true',
    'value.converter.schema.content': json.dumps(SCHEMA),
    'offset.storage.file.filename': DIRECTORY + '/offsets',
    'consumer.max.poll.records': 10000,
}

URL = ('jdbc:postgresql://localhost/%s?sslMode=disable&socketFactory=org.newsclub.net.unix.AFUNIXSocketFactory$FactoryArg'
       '&socketFactoryArg=%s/.s.PGSQL.5432' % (os.environ['PGDATABASE'], os.environ['PGHOST']))

PLACE = {
    'transforms': 'place',
    'transforms.place.type': 'org.apache.kafka.connect.transforms.InsertField$Value',
    'transforms.place.partition.field': 'kafka_partition',
    'transforms.place.offset.field': 'kafka_offset',
}

DEBEZIUM = {
    'connector.class': 'io.debezium.connector.jdbc.JdbcSinkConnector',
    'topics': TOPIC,
    'connection.url': URL,
    'connection.username': os.environ['PGUSER'],
    'connection.password': 'none',
    'schema.evolution': 'none',
    'use.time.zone': 'UTC',
    'batch.size': 10000,
    'dialect.postgres.unnest.insert.enabled': 'true',
}

UPSERT = DEBEZIUM | {
    'insert.mode': 'upsert',
    'primary.key.mode': 'record_value',
    'use.reduction.buffer': 'true',
}

# The connectors of each kind, by their tables.
CONNECTORS = {
    'both': {
        'events': UPSERT | PLACE | {
            'collection.name.format': 'events', 'primary.key.fields': 'tenant,event_time,event_id'},
        'current_orders': UPSERT | {
            'collection.name.format': 'current_orders',
            'primary.key.fields': 'tenant,order_id',
            'transforms': 'rename',
            'transforms.rename.type': 'org.apache.kafka.connect.transforms.ReplaceField$Value',
            'transforms.rename.exclude': 'event_id',
            'transforms.rename.renames': 'event_type:status,event_time:updated_at',
        },
    },
    'debezium': {
        'events': DEBEZIUM | PLACE | {
            'collection.name.format': 'events', 'insert.mode': 'insert', 'primary.key.mode': 'none'},
    },
    # the sink knows neither uuid nor timestamptz: it sends texts, whose types the server finds
    'aiven': {
        'events': PLACE | {
            'connector.class': 'io.aiven.connect.jdbc.JdbcSinkConnector',
            'topics': TOPIC,
            'connection.url': URL + '&stringtype=unspecified&reWriteBatchedInserts=true',
            'connection.user': os.environ['PGUSER'],
            'connection.password': 'none',
            'table.name.format': 'events',
            'insert.mode': 'insert',
            'pk.mode': 'none',
            'batch.size': 10000,
        },
    },
}


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def write_properties(name, *parts):
    path = '%s/%s.properties' % (DIRECTORY, name)
    with open(path, 'w') as file:
        for part in parts:
            file.writelines('%s=%s\n' % item for item in part.items())
    return path


def wait_for_all(db, process):
    """Waits until the tables have the last events. Looks at the newest part of events, because the table may have
    no index."""
    last, page = json.loads(LAST), 0
    new = """SELECT kafka_partition FROM events e JOIN unnest(%(partitions)s::int[], %(offsets)s::bigint[]) l (p, o)
        ON (kafka_partition, kafka_offset) = (p, o) WHERE e.ctid >= %(page)s::tid"""
    orders = """SELECT count(*) = cardinality(%(tenants)s::text[])
        FROM unnest(%(tenants)s::text[], %(orders)s::text[], %(times)s::timestamptz[]) l (t, o, e)
        JOIN current_orders ON (tenant, order_id) = (t, o) AND updated_at >= e"""
    missing = set(last.get('partitions', [-1]))
    while missing or ('current_orders' in CONNECTORS[KIND] and not db.execute(orders, last).fetchone()[0]):
        if process.poll() is not None:
            sys.exit('Kafka Connect ended with %d' % process.returncode)
        if last and missing:
            end = db.execute("SELECT pg_relation_size('events') / 8192").fetchone()[0]
            missing -= {row[0] for row in db.execute(new, last | {'page': '(%d,0)' % max(page - OVERLAP, 0)})}
            page = end
        time.sleep(0.1)


def main():
    partitions = len(json.loads(LAST).get('partitions', range(3)))
    files = [write_properties('worker', WORKER, {'listeners': 'http://127.0.0.1:%d' % free_port()})]
    for table, own in CONNECTORS[KIND].items():
        name = '%s-%s' % (os.environ['PGDATABASE'], table)
        files.append(write_properties(table, {'name': name, 'tasks.max': partitions}, own))
    process = subprocess.Popen(['java', '-Xms256m', '-Xmx2g', '-XX:-UsePerfData', '-Djava.io.tmpdir=' + DIRECTORY,
                                '-Djava.net.preferIPv4Stack=true', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
                                '-cp', JARS, 'org.apache.kafka.connect.cli.ConnectStandalone', *files],
                               stdout=sys.stderr)
    try:
        with psycopg.connect(autocommit=True) as db:
            wait_for_all(db, process)
            end = time.time()
    finally:
        process.terminate()
        process.wait()
    print(end)


main()

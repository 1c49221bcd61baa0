"""Kafka Connect, standalone, with Debezium's JDBC sink:
peer_connect.py BROKERS TOPIC LAST JARS DIRECTORY

There is one connector for each table, because a sink connector writes one table. Each
connector has a task for every partition. A JDBC sink needs a schema, and the events are
plain JSON, so the converter is told the schema. batch.size and max.poll.records are
10,000. Each batch is one statement (unnest), and is reduced to one row per key first.
Debezium's sink cannot compare event_time: the last event to arrive wins. The two tables do
not change together. A repeated event rewrites its row.

LAST has the last event of each partition. Each partition is written in order, so once both
tables have these events, everything is there. Prints the time of that.
"""
import json
import os
import socket
import subprocess
import sys
import time

import psycopg

BROKERS, TOPIC, LAST, JARS, DIRECTORY = sys.argv[1:]

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

SINK = {
    'connector.class': 'io.debezium.connector.jdbc.JdbcSinkConnector',
    'topics': TOPIC,
    'connection.url': 'jdbc:postgresql://localhost/%s?sslMode=disable'
                      '&socketFactory=org.newsclub.net.unix.AFUNIXSocketFactory$FactoryArg'
                      '&socketFactoryArg=%s/.s.PGSQL.5432' % (os.environ['PGDATABASE'], os.environ['PGHOST']),
    'connection.username': os.environ['PGUSER'],
    'connection.password': 'none',
    'insert.mode': 'upsert',
    'primary.key.mode': 'record_value',
    'schema.evolution': 'none',
    'use.time.zone': 'UTC',
    'batch.size': 10000,
    'use.reduction.buffer': 'true',
    'dialect.postgres.unnest.insert.enabled': 'true',
}

CONNECTORS = {
    'events': {
        'primary.key.fields': 'tenant,event_time,event_id',
        'transforms': 'place',
        'transforms.place.type': 'org.apache.kafka.connect.transforms.InsertField$Value',
        'transforms.place.partition.field': 'kafka_partition',
        'transforms.place.offset.field': 'kafka_offset',
    },
    'current_orders': {
        'primary.key.fields': 'tenant,order_id',
        'transforms': 'rename',
        'transforms.rename.type': 'org.apache.kafka.connect.transforms.ReplaceField$Value',
        'transforms.rename.exclude': 'event_id',
        'transforms.rename.renames': 'event_type:status,event_time:updated_at',
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
    """Waits until both tables have the last events. Looks every 50 ms."""
    last = json.loads(LAST)
    there = """SELECT
        (SELECT count(*) FROM unnest(%(tenants)s::text[], %(times)s::timestamptz[], %(ids)s::uuid[]) l (t, e, i)
            JOIN events ON (tenant, event_time, event_id) = (t, e, i)),
        (SELECT count(*) FROM unnest(%(tenants)s::text[], %(orders)s::text[], %(times)s::timestamptz[]) l (t, o, e)
            JOIN current_orders ON (tenant, order_id) = (t, o) AND updated_at >= e)"""
    while set(db.execute(there, last).fetchone()) != {len(last['ids'])}:
        if process.poll() is not None:
            sys.exit('Kafka Connect ended with %d' % process.returncode)
        time.sleep(0.05)


def main():
    partitions = len(json.loads(LAST)['ids'])
    files = [write_properties('worker', WORKER, {'listeners': 'http://127.0.0.1:%d' % free_port()})]
    for table, own in CONNECTORS.items():
        name = '%s-%s' % (os.environ['PGDATABASE'], table)
        files.append(write_properties(table, {'name': name, 'tasks.max': partitions,
                                              'collection.name.format': table}, SINK, own))
    process = subprocess.Popen(['java', '-Xms256m', '-Xmx2g', '-XX:-UsePerfData', '-Djava.io.tmpdir=' + DIRECTORY,
                                '-Djava.net.preferIPv4Stack=true', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
                                '-cp', JARS + '/*', 'org.apache.kafka.connect.cli.ConnectStandalone', *files],
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

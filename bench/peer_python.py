"""A plain consumer, as one would write it by hand: peer_python.py BROKERS TOPIC EVENTS LINGER

A batch takes what comes within LINGER seconds after its first record. Batches have at most 50,000 records (like spine's). Each batch is one COPY and two INSERTs
in one transaction, with the server's synchronous_commit. Offsets are committed after the
database, so a crash repeats a batch, which ON CONFLICT makes harmless. Prints the time of
the last commit.
"""
import json
import os
import sys
import time

import psycopg
from confluent_kafka import Consumer

BATCH = 50_000

COLUMNS = 'tenant, event_id, event_type, order_id, amount_cents, event_time, kafka_partition, kafka_offset'

STAGE = """CREATE TEMP TABLE stage (tenant text COLLATE "C", event_id uuid, event_type text,
    order_id text COLLATE "C", amount_cents bigint, currency text, event_time timestamptz,
    kafka_partition int, kafka_offset bigint) ON COMMIT DELETE ROWS"""

APPEND = 'INSERT INTO events (%s) SELECT %s FROM stage ON CONFLICT DO NOTHING' % (COLUMNS, COLUMNS)

UPSERT = """INSERT INTO current_orders AS c (tenant, order_id, status, amount_cents, currency, updated_at)
    SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type, amount_cents, currency, event_time
    FROM stage ORDER BY tenant, order_id, event_time DESC
    ON CONFLICT (tenant, order_id) DO UPDATE SET status = excluded.status,
        amount_cents = excluded.amount_cents, currency = excluded.currency, updated_at = excluded.updated_at
    WHERE c.updated_at < excluded.updated_at"""


def main(brokers, topic, expected, linger):
    consumer = Consumer({'bootstrap.servers': brokers, 'group.id': os.environ['PGDATABASE'],
                         'auto.offset.reset': 'earliest', 'enable.auto.commit': False,
                         'fetch.min.bytes': 1, 'queued.min.messages': 100000})
    consumer.subscribe([topic])
    done = 0
    with psycopg.connect() as db:
        db.execute(STAGE)
        db.commit()
        while done < expected:
            first = consumer.poll(0.5)
            if first is None:
                continue
            messages = [first] + consumer.consume(BATCH - 1, linger)
            with db.cursor() as cursor:
                with cursor.copy('COPY stage FROM STDIN') as copy:
                    for message in messages:
                        if message.error():
                            raise RuntimeError(message.error())
                        e = json.loads(message.value())
                        copy.write_row((e['tenant'], e['event_id'], e['event_type'], e['order_id'],
                                        e['amount_cents'], e.get('currency', 'USD'), e['event_time'],
                                        message.partition(), message.offset()))
                cursor.execute(APPEND)
                cursor.execute(UPSERT)
            db.commit()
            consumer.commit(asynchronous=False)
            done += len(messages)
    print(time.time())
    consumer.close()


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))

"""Spark Structured Streaming: peer_spark.py BROKERS TOPIC EVENTS TRIGGER JARS DIRECTORY

TRIGGER is the interval between batches ("0 seconds": as fast as possible). Spark runs as
local[2] with a heap of 2 GB. Each of the topic's partitions is one task, which writes its
rows with execute_values in pages of 5,000, both tables in one transaction. A
maxOffsetsPerTrigger of 200,000 keeps a batch within the heap. A repeated batch changes
nothing. Prints the time of the last commit.
"""
import glob
import json
import sys
import time

BROKERS, TOPIC, EXPECTED, TRIGGER, JARS, DIRECTORY = sys.argv[1:]


def write(rows):
    import psycopg2
    from psycopg2.extras import execute_values
    events, orders = [], {}
    for r in rows:
        e = json.loads(r.value)
        events.append((e['tenant'], e['event_id'], e['event_type'], e['order_id'], e['amount_cents'],
                       e['event_time'], r.partition, r.offset))
        key = e['tenant'], e['order_id']
        if key not in orders or orders[key][5] < e['event_time']:
            orders[key] = (*key, e['event_type'], e['amount_cents'], e.get('currency', 'USD'), e['event_time'])
    if not events:
        return
    db = psycopg2.connect('')
    try:
        with db, db.cursor() as cursor:
            execute_values(cursor, """INSERT INTO events (tenant, event_id, event_type, order_id, amount_cents,
                event_time, kafka_partition, kafka_offset) VALUES %s ON CONFLICT DO NOTHING""", events,
                '(%s, %s::uuid, %s, %s, %s, %s::timestamptz, %s, %s)', page_size=5000)
            # in the order of the key, so that tasks with the same orders do not deadlock
            execute_values(cursor, """INSERT INTO current_orders AS c (tenant, order_id, status, amount_cents,
                currency, updated_at) VALUES %s ON CONFLICT (tenant, order_id) DO UPDATE SET
                status = excluded.status, amount_cents = excluded.amount_cents, currency = excluded.currency,
                updated_at = excluded.updated_at WHERE c.updated_at < excluded.updated_at""",
                [orders[key] for key in sorted(orders)],
                '(%s, %s, %s, %s, %s, %s::timestamptz)', page_size=5000)
    finally:
        db.close()


def main():
    from pyspark.sql import SparkSession
    spark = (SparkSession.builder.master('local[2]').appName('peer')
             .config('spark.jars', ','.join(sorted(glob.glob(JARS + '/*.jar'))))
             .config('spark.driver.memory', '2g').config('spark.ui.enabled', 'false')
             .config('spark.ui.showConsoleProgress', 'false')
             .config('spark.driver.host', '127.0.0.1').config('spark.driver.bindAddress', '127.0.0.1')
             .config('spark.local.dir', DIRECTORY).config('spark.jars.ivy', DIRECTORY + '/ivy')
             .config('spark.sql.warehouse.dir', DIRECTORY + '/warehouse')
             .config('spark.driver.extraJavaOptions', '-XX:-UsePerfData -Djava.io.tmpdir=' + DIRECTORY)
             .getOrCreate())
    spark.sparkContext.setLogLevel('WARN')
    stream = (spark.readStream.format('kafka').option('kafka.bootstrap.servers', BROKERS)
              .option('subscribe', TOPIC).option('startingOffsets', 'earliest')
              .option('maxOffsetsPerTrigger', 200000).load()
              .selectExpr('CAST(value AS string) AS value', 'partition', 'offset'))
    def batch(frame, _):
        frame.foreachPartition(write)

    writer = (stream.writeStream.foreachBatch(batch)
              .option('checkpointLocation', DIRECTORY + '/checkpoint'))
    query = writer.trigger(processingTime=TRIGGER).start()
    seen, last = 0, -1
    while seen < int(EXPECTED):
        time.sleep(0.05)
        if query.exception():
            raise query.exception()
        for p in query.recentProgress:
            if p['batchId'] > last:
                last, seen = p['batchId'], seen + p['numInputRows']
                print(p['numInputRows'], p['durationMs'], file=sys.stderr)
    print(time.time())
    query.stop()
    spark.stop()


main()

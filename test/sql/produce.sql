--
-- Making events, waiting for them, and looking at what arrived.
--

-- This test has a topic of its own, which may hold events of an earlier run.
ALTER DATABASE :"DBNAME" SET spine.topic = 'spine_regress';
ALTER DATABASE :"DBNAME" SET spine.enabled = on;
\c -
CREATE EXTENSION spine;
-- a tenant that no earlier run has used, with characters that might do harm
SELECT E'Robert''); "DROP" \\ \n\t<b> ' || gen_random_uuid() AS tenant \gset

--
-- spine_make_event: one event, to look at
--
SELECT key, jsonb_typeof(value) FROM jsonb_each(spine_make_event('acme')) ORDER BY key COLLATE "C";

SELECT bool_and(e->>'tenant' = :'tenant') AS tenant,
	   bool_and(e->>'event_id' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$') AS uuid_v4,
	   count(DISTINCT e->>'event_id') AS different,
	   bool_and(e->>'order_id' ~ '^ord-[1-9][0-9]*$' AND substr(e->>'order_id', 5)::int <= 100000) AS order_id,
	   bool_and((e->>'amount_cents')::bigint BETWEEN 500 AND 50000) AS amount_cents,
	   bool_and(e->>'event_time' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$') AS iso_8601_utc,
	   bool_and(abs(extract(epoch FROM (e->>'event_time')::timestamptz - clock_timestamp())) < 60) AS made_now
FROM (SELECT spine_make_event(:'tenant') AS e FROM generate_series(1, 1000)) AS made;

-- The weights of the types: placed 5, paid 4, shipped 3, cancelled 1.
SELECT e->>'event_type' AS event_type, round(13 * count(*) / 20000.0) AS weight
FROM (SELECT spine_make_event('acme') AS e FROM generate_series(1, 20000)) AS made
GROUP BY 1 ORDER BY 2 DESC;

SELECT spine_make_event(NULL);
SELECT spine_make_event('');

--
-- spine_produce: sends n events to the topic
--
SELECT spine_produce(:'tenant', 0);
SELECT spine_produce(:'tenant', 500);
SELECT spine_produce(:'tenant', 1);

SELECT spine_produce('acme', -1);
SELECT spine_produce('acme', NULL);
SELECT spine_produce(NULL, 1);
SELECT spine_produce('', 1);
SELECT spine_produce(repeat('x', 256), 1);
SELECT spine_produce(repeat('x', 1024 * 1024), 1);

-- A ROLLBACK does not take back what was sent.
BEGIN;
SELECT spine_produce(:'tenant', 1);
ROLLBACK;

--
-- spine_wait: waits until everything is applied and visible
--
SELECT spine_wait();
SELECT spine_wait('1 minute');
SELECT spine_wait(NULL) IS NULL AS is_null;

SELECT count(*), count(DISTINCT event_id) AS different FROM events WHERE tenant = :'tenant';
SELECT bool_and(kafka_offset >= 0 AND kafka_partition >= 0 AND applied_at <= now()) AS where_from
FROM events WHERE tenant = :'tenant';

-- Each order has the state of its newest event.
SELECT count(*) > 0 AS some,
	   count(*) FILTER (WHERE (c.status, c.amount_cents, c.currency, c.updated_at)
						IS DISTINCT FROM (e.event_type, e.amount_cents, 'USD', e.event_time)) AS wrong
FROM (SELECT DISTINCT ON (order_id) * FROM events WHERE tenant = :'tenant'
	  ORDER BY order_id, event_time DESC, kafka_offset DESC) AS e
FULL JOIN (SELECT * FROM current_orders WHERE tenant = :'tenant') AS c USING (order_id);

SELECT DISTINCT pipeline, topic, worker_pid IS NOT NULL AS has_worker, state, lag
FROM spine_status;
SELECT sum(events_total) >= 502 AS counted, sum(dead_letters_total) AS dead_letters,
	   sum(next_offset) = sum(high_watermark) AS at_the_end
FROM spine_status;

--
-- spine_pause and spine_resume
--
SELECT spine_pause('orders');
SELECT DISTINCT pipeline, state FROM spine_status;

-- Nothing is lost meanwhile, and spine_wait does not wait for a paused pipeline.
SELECT spine_produce(:'tenant', 10);
SELECT spine_wait();
SELECT spine_resume('orders');
SELECT spine_wait();
SELECT count(*) FROM events WHERE tenant = :'tenant';

\set SHOW_CONTEXT never
SELECT spine_pause('no such pipeline');
SELECT spine_resume('no such pipeline');
SELECT spine_pause(NULL);
\set SHOW_CONTEXT errors

-- A timeout of 0 answers at once, and a timeout is an answer, not an error.
SELECT spine_wait('0');
BEGIN;
LOCK TABLE events;
SELECT spine_produce(:'tenant', 1);
SELECT spine_wait('100ms');
COMMIT;
SELECT spine_wait();
SELECT count(*) FROM events WHERE tenant = :'tenant';

--
-- spine_brokers: where other clients find the topic
--
SELECT spine_brokers() ~ '^[^ :]+:\d+' AS host_and_port;

DROP EXTENSION spine;
ALTER DATABASE :"DBNAME" RESET spine.topic;
ALTER DATABASE :"DBNAME" RESET spine.enabled;

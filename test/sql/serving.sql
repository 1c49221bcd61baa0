--
-- What spine-http serves: each endpoint is one function or view
--

-- This test is about the tables: no workers, whatever the server's setting.
ALTER DATABASE :"DBNAME" SET spine.enabled = off;
\c -
CREATE EXTENSION spine;
SET timezone = 'UTC';
SET datestyle = 'ISO';

INSERT INTO current_orders (tenant, order_id, status, amount_cents, currency, updated_at) VALUES
	('acme', 'ord-1', 'order_placed', 1000, 'USD', '2026-01-01 10:00Z'),
	('acme', 'ord-2', 'order_paid', 2500, 'USD', '2026-01-01 10:02Z'),
	('acme', 'ord-3', 'order_cancelled', 9900, 'USD', '2026-01-01 10:01Z'),
	('acme', 'ord-4', 'order_paid', 700, 'EUR', '2026-01-01 09:00Z'),
	('globex', 'ord-1', 'order_shipped', 50, 'USD', '2026-01-01 10:03Z');

-- The newest orders first: all, of a tenant, with a status.
SELECT * FROM spine_orders();
SELECT order_id FROM spine_orders('acme', max_rows => 2);
SELECT tenant, order_id FROM spine_orders(of_status => 'order_paid');
SELECT count(*) FROM spine_orders('nobody');

-- Totals: cancelled orders are counted but carry no revenue, and each currency
-- has a row of its own.
SELECT * FROM spine_stats();

-- The totals follow each change, in the transaction of the change ...
BEGIN;
UPDATE current_orders SET status = 'order_cancelled' WHERE order_id = 'ord-1';
DELETE FROM current_orders WHERE order_id = 'ord-4';
SELECT tenant, currency, orders, revenue_cents FROM spine_stats();
ROLLBACK;
SELECT tenant, currency, orders, revenue_cents FROM spine_stats('acme');

-- ... unless triggers are disabled.  Then a recount is needed.
SET session_replication_role = replica;
DELETE FROM current_orders WHERE tenant = 'globex';
RESET session_replication_role;
SELECT tenant, orders FROM spine_stats('globex');
SELECT spine_recount_orders();
SELECT tenant, orders FROM spine_stats('globex');

-- `ready` is false only when a pipeline has failed.
SELECT spine_pause('orders');
SELECT ready, report -> 'status' AS status,
	   report #> '{pipelines,0,pipeline}' AS pipeline, report #> '{pipelines,0,state}' AS state
FROM spine_readiness();

-- Metrics, as rows and as Prometheus reads them.
SELECT metric, type, help FROM spine_metrics WHERE metric = 'spine_pipeline_enabled';
SELECT metric, labels, value FROM spine_metrics WHERE metric = 'spine_pipeline_enabled';
SELECT line FROM string_to_table(spine_metrics_text(), E'\n') line WHERE line LIKE '%pipeline_enabled%';

TRUNCATE current_orders;
SELECT count(*) FROM spine_stats();

DROP EXTENSION spine;
ALTER DATABASE :"DBNAME" RESET spine.enabled;

--
-- What CREATE EXTENSION spine makes: the tables of orders, the catalog of
-- pipelines and sinks, and the bookkeeping.
--

-- This test is about the tables: no workers, whatever the server's setting.
ALTER DATABASE :"DBNAME" SET spine.enabled = off;
\c -
CREATE EXTENSION spine;

-- Every object of the extension says what it is for, except trigger functions,
-- which are private.
SELECT pg_describe_object(classid, objid, 0) COLLATE "C" AS object,
	   obj_description(objid, classid::regclass::name) AS comment
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'spine')
	AND classid IN ('pg_class'::regclass, 'pg_proc'::regclass)
	AND deptype = 'e'
	AND NOT (classid = 'pg_proc'::regclass AND objid IN (SELECT oid FROM pg_proc WHERE prorettype = 'trigger'::regtype))
	AND NOT (classid = 'pg_class'::regclass AND objid IN (SELECT oid FROM pg_class WHERE relkind = 'S'))
ORDER BY 1;

--
-- The targets of the default pipeline
--
\d events
\d current_orders

-- Updates of current_orders stay HOT: pages have room, and only the key has an index.
SELECT reloptions FROM pg_class WHERE relname = 'current_orders';

-- A field that events may lack has a default.
INSERT INTO current_orders (tenant, order_id, status, amount_cents, updated_at)
VALUES ('acme', 'ord-1', 'order_placed', 100, '2026-01-01Z') RETURNING currency;
TRUNCATE current_orders;

--
-- Pipelines and sinks
--
SELECT name, topic, owner = current_user::regrole AS owner_is_me, enabled, start, is_default
FROM spine_pipelines;
SELECT pipeline, target, mode, key, version, jsonb_pretty(columns) AS columns FROM spine_sinks ORDER BY target::text;

-- A pipeline needs no more than a name: it is enabled, reads the topic of the
-- setting from its start, and applies as the role that made it.
INSERT INTO spine_pipelines (name) VALUES ('mine')
RETURNING name, topic, owner = current_user::regrole AS owner_is_me, enabled, start, is_default;

-- The topic that a pipeline reads:
SELECT spine_pipeline_topic(NULL) = current_setting('spine.topic') AS of_the_setting, spine_pipeline_topic('mine');

-- Sinks follow when their pipeline is renamed, and are deleted with it.
CREATE TABLE target (id bigint PRIMARY KEY, version bigint, note text);
INSERT INTO spine_sinks (pipeline, target, mode, key, version)
VALUES ('mine', 'target', 'upsert', '{id}', 'version');
UPDATE spine_pipelines SET name = 'yours' WHERE name = 'mine';
SELECT pipeline, target FROM spine_sinks WHERE target = 'target'::regclass;
DELETE FROM spine_pipelines WHERE name = 'yours';
SELECT count(*) FROM spine_sinks WHERE target = 'target'::regclass;

-- A second pipeline of the same name is refused.  But as long as nothing has been
-- read for the default pipeline, it gives way, so that a dump can be restored.
BEGIN;
INSERT INTO spine_pipelines (name, topic) VALUES ('orders', 'restored');
SELECT name, topic, is_default FROM spine_pipelines;
INSERT INTO spine_pipelines (name, topic) VALUES ('orders', 'again');
ROLLBACK;

-- Once something has been read for the default pipeline, it stays.
BEGIN;
INSERT INTO spine_offsets (pipeline, topic, partition, next_offset, cluster_id)
VALUES ('orders', 'events', 0, 1, 'cluster');
INSERT INTO spine_pipelines (name, topic) VALUES ('orders', 'restored');
ROLLBACK;

-- Nonsense is refused when it is written, not later by a worker.
\set VERBOSITY terse
INSERT INTO spine_pipelines (name) VALUES ('');
INSERT INTO spine_pipelines (name, topic) VALUES ('bad', 'no spaces');
INSERT INTO spine_pipelines (name, topic) VALUES ('bad', '');
INSERT INTO spine_pipelines (name, topic) VALUES ('bad', '..');
INSERT INTO spine_pipelines (name, topic) VALUES ('bad', repeat('x', 250));
INSERT INTO spine_pipelines (name, start) VALUES ('bad', 'yesterday');
INSERT INTO spine_pipelines (name, owner) VALUES ('bad', 'regress_no_such_role');

INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('nowhere', 'target', 'append');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'no_such_table', 'append');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'target', 'merge');
INSERT INTO spine_sinks (pipeline, target, mode, version) VALUES ('orders', 'target', 'append', 'version');
INSERT INTO spine_sinks (pipeline, target, mode, key) VALUES ('orders', 'target', 'append', '{}');
INSERT INTO spine_sinks (pipeline, target, mode, key) VALUES ('orders', 'target', 'append', '{id,NULL}');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('orders', 'target', 'append', '[]');
INSERT INTO spine_sinks (pipeline, target, mode, columns) VALUES ('orders', 'target', 'append', '{}');
\set VERBOSITY default

-- A table that a crash would empty is refused.
CREATE UNLOGGED TABLE unlogged (id bigint);
CREATE TABLE parts (id bigint) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TEMP TABLE fleeting (id bigint);
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'unlogged', 'append');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'parts', 'append');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'fleeting', 'append');
UPDATE spine_sinks SET target = 'unlogged' WHERE target = 'events'::regclass;
ALTER TABLE unlogged SET LOGGED;
BEGIN;
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'unlogged', 'append');
ROLLBACK;
DROP TABLE unlogged, parts, fleeting;

--
-- The status has a row per pipeline, even when nothing runs
--
SELECT pipeline, partition, worker_pid, state, lag, events_total, dead_letters_total, last_error
FROM spine_status;
SELECT spine_pause('orders');
SELECT pipeline, state FROM spine_status;
\d spine_status

--
-- Bookkeeping
--
\d spine_offsets
\d spine_dead_letters

-- pg_dump includes the data of all these tables.
SELECT c.oid::regclass AS dumped
FROM pg_extension e, unnest(e.extconfig) AS c(oid)
WHERE e.extname = 'spine' ORDER BY c.oid::regclass::text COLLATE "C";

-- Nobody can make or replace a trigger on spine's own tables, or a foreign key to them.
CREATE TRIGGER t BEFORE INSERT ON spine_offsets FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE OR REPLACE TRIGGER spine_check_sink BEFORE INSERT ON spine_sinks FOR EACH ROW EXECUTE FUNCTION spine_check_sink();
CREATE TABLE referencing (id bigint REFERENCES spine_dead_letters);
SELECT spine_check_triggers('target');

-- The schema cannot be changed later.
CREATE SCHEMA elsewhere;
ALTER EXTENSION spine SET SCHEMA elsewhere;

-- DROP EXTENSION removes everything.
DROP EXTENSION spine;
SELECT count(*) FROM pg_class WHERE relname LIKE 'spine%' OR relname IN ('events', 'current_orders');
DROP SCHEMA elsewhere;
DROP TABLE target;
ALTER DATABASE :"DBNAME" RESET spine.enabled;

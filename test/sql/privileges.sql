--
-- A role without privileges can do next to nothing.  A plain GRANT is enough to
-- let it.
--

ALTER DATABASE :"DBNAME" SET spine.topic = 'spine_regress';
ALTER DATABASE :"DBNAME" SET spine.enabled = on;
\c -
CREATE EXTENSION spine;
CREATE ROLE regress_spine_nobody;

SET ROLE regress_spine_nobody;

-- It cannot call what reaches the broker, ...
SELECT spine_produce('acme', 1);
SELECT spine_produce('acme', 0);
SELECT spine_wait();
SELECT spine_brokers();
SELECT spine_topic_offsets('events');
SELECT spine_find_topics('events');
-- ... change what the workers do, ...
\set VERBOSITY sqlstate
SELECT spine_pause('orders');
SELECT spine_resume('orders');
SELECT spine_seek('orders', 0, 0);
SELECT spine_seek('orders', 0, 'earliest');
SELECT spine_seek('orders', 0, now());
SELECT spine_seek('orders', 0, 0, 'events');
SELECT spine_seek('orders', 0, 'earliest', 'events');
SELECT spine_seek('orders', 0, now(), 'events');
SELECT spine_move_positions('orders', NULL, 0, 0, NULL, NULL);
SELECT spine_alter_pipeline('orders', '{"enabled": false}');
SELECT spine_alter_sink('orders', 'events', '{"key": null}');
SELECT spine_add_sink('orders', 'pg_class');
SELECT spine_drop_sink('orders', 'events');
SELECT spine_drop_pipeline('orders');
\set VERBOSITY default
SELECT spine_create_pipeline('mine', 'mine');
INSERT INTO spine_pipelines (name) VALUES ('mine');
UPDATE spine_pipelines SET enabled = false;
DELETE FROM spine_pipelines;
TRUNCATE spine_pipelines CASCADE;
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'pg_class', 'append');
UPDATE spine_offsets SET next_offset = 0;
DELETE FROM spine_dead_letters;
-- ... or see what is in the records and what the workers say.
SELECT count(*) FROM events;
SELECT count(*) FROM current_orders;
SELECT count(*) FROM spine_offsets;
SELECT count(*) FROM spine_all_workers();
SELECT count(*) FROM spine_all_partitions();
-- (In these it would see what concerns its own pipelines.)
SELECT count(*) FROM spine_dead_letters;
SELECT count(*) FROM spine_status;
SELECT count(*) FROM spine_worker_status();
SELECT count(*) FROM spine_partition_status();

-- It cannot go around the gates and say who it is.
SELECT spine_alter_pipeline_as(10, 'orders', '{"enabled": false}');
SELECT spine_move_positions_as(10, 'orders', NULL, 0, 0, NULL, NULL);
SELECT spine_worker_status_as(10);

-- It cannot see broker addresses and secrets in any way.
-- (PostgreSQL words these errors differently in each version.)
\set VERBOSITY sqlstate
SHOW spine.brokers;
SHOW spine.kafka_options;
SELECT current_setting('spine.brokers');
\set VERBOSITY default
SELECT count(*) FROM pg_settings WHERE name IN ('spine.brokers', 'spine.kafka_options');

-- It cannot set anything.
SET spine.topic = 'other';
SET spine.enabled = off;
SET spine.workers = 2;
SET spine.batch_rows = 2;
ALTER SYSTEM SET spine.brokers = 'localhost:9092';
ALTER SYSTEM SET spine.kafka_options = 'client.id=mine';

-- It cannot use the trigger functions.
CREATE TEMP TABLE bait (name name, owner regrole);
CREATE TRIGGER t BEFORE INSERT ON bait FOR EACH ROW EXECUTE FUNCTION spine_check_pipeline();
CREATE TRIGGER t BEFORE INSERT ON bait FOR EACH ROW EXECUTE FUNCTION spine_check_sink();
CREATE TRIGGER t BEFORE INSERT ON bait FOR EACH ROW EXECUTE FUNCTION spine_check_member();
CREATE TRIGGER t AFTER INSERT ON bait EXECUTE FUNCTION spine_catalog_changed();
DROP TABLE bait;

-- It can read the catalog, which holds no secrets, and look at an event.
SELECT count(*) FROM spine_pipelines;
SELECT count(*) FROM spine_sinks;
SELECT spine_make_event('acme')->>'tenant' AS tenant;
RESET ROLE;

-- A reader for dashboards: pg_monitor gives the status, and SELECT the rows.
GRANT pg_monitor TO regress_spine_nobody;
GRANT SELECT ON current_orders TO regress_spine_nobody;
SET ROLE regress_spine_nobody;
SELECT pipeline FROM spine_status GROUP BY 1;
SELECT count(*) >= 0 AS allowed FROM current_orders;
SELECT spine_produce('acme', 1);
RESET ROLE;
REVOKE pg_monitor FROM regress_spine_nobody;

-- An operator: a member of the pipeline's owner.  Other functions can be granted by
-- themselves.
CREATE ROLE regress_spine_orders;
GRANT SELECT, INSERT, UPDATE ON events, current_orders TO regress_spine_orders;
SELECT spine_alter_pipeline('orders', '{"owner": "regress_spine_orders"}');
GRANT regress_spine_orders TO regress_spine_nobody;
GRANT EXECUTE ON FUNCTION spine_produce(text, integer), spine_wait TO regress_spine_nobody;
SET ROLE regress_spine_nobody;
SELECT spine_produce('acme', 1);
SELECT spine_wait();
SELECT pipeline FROM spine_status GROUP BY 1;
SELECT spine_pause('orders');
SELECT spine_resume('orders');
RESET ROLE;
SELECT spine_alter_pipeline('orders', '{"owner": null}');
DROP OWNED BY regress_spine_orders;
DROP ROLE regress_spine_orders;

-- A role that can make pipelines can let them apply as itself, to its own tables.
GRANT INSERT, UPDATE ON spine_pipelines, spine_sinks TO regress_spine_nobody;
CREATE TABLE precious (tenant text);
CREATE TABLE mine (tenant text);
ALTER TABLE mine OWNER TO regress_spine_nobody;
SET ROLE regress_spine_nobody;
INSERT INTO spine_pipelines (name, enabled) VALUES ('mine', false) RETURNING name, owner;
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('mine', 'mine', 'append');

-- It cannot make a pipeline apply as another role, or add a sink to another
-- role's pipeline, which would be written with that role's rights.
CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format(statement, (SELECT relowner::regrole FROM pg_class WHERE oid = 'spine_pipelines'::regclass));
	RETURN 'done';
EXCEPTION WHEN insufficient_privilege THEN
	RETURN 'refused';
END
$$;
SELECT pg_temp.attempt('INSERT INTO spine_pipelines (name, owner) VALUES (''not mine'', %L)');
SELECT pg_temp.attempt('UPDATE spine_pipelines SET owner = %L WHERE name = ''mine''');
SELECT pg_temp.attempt('UPDATE spine_pipelines SET topic = ''mine'' WHERE name = ''orders''');
SELECT pg_temp.attempt('INSERT INTO spine_pipelines (name) VALUES (''orders'')');
SELECT pg_temp.attempt('UPDATE spine_pipelines SET owner = current_user::regrole WHERE name = ''orders''');
INSERT INTO spine_sinks (pipeline, target, mode) VALUES ('orders', 'precious', 'append');
UPDATE spine_sinks SET target = 'precious' WHERE target = 'events'::regclass;
UPDATE spine_sinks SET pipeline = 'orders' WHERE pipeline = 'mine';
UPDATE spine_sinks SET pipeline = 'mine' WHERE pipeline = 'orders';
RESET ROLE;

DROP EXTENSION spine;
DROP TABLE precious, mine;
DROP OWNED BY regress_spine_nobody;
DROP ROLE regress_spine_nobody;
ALTER DATABASE :"DBNAME" RESET spine.topic;
ALTER DATABASE :"DBNAME" RESET spine.enabled;

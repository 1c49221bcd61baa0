--
-- Pipelines by functions: any topic to any table.
--

-- No workers and no broker: what a pipeline is can be written down without them.
ALTER DATABASE :"DBNAME" SET spine.enabled = off;
\c -
CREATE EXTENSION spine;
SELECT spine_drop_pipeline('orders');
\set SHOW_CONTEXT never

CREATE ROLE regress_spine_shop;
CREATE ROLE regress_spine_clerk;
CREATE SCHEMA shop AUTHORIZATION regress_spine_shop;
-- Who may make pipelines is for an administrator to say.
GRANT EXECUTE ON FUNCTION spine_create_pipeline TO regress_spine_shop;
SET ROLE regress_spine_shop;
SET search_path = shop, public;

CREATE TABLE sensors (sensor text PRIMARY KEY, seen bigint, celsius numeric NOT NULL);
CREATE TABLE readings (sensor text, celsius numeric, kafka_offset bigint, fahrenheit numeric GENERATED ALWAYS AS (celsius * 1.8 + 32) STORED);

--
-- A topic, and the table that it goes to
--
SELECT spine_create_pipeline('sensors', 'readings', 'readings');
SELECT name, topic, owner, enabled, start FROM spine_pipelines;
SELECT pipeline, target, mode, key, version, columns, filter FROM spine_sinks;

-- More tables get the same records, in the same transaction, in this order.
SELECT spine_add_sink('sensors', 'sensors', mode => 'upsert', key => '{sensor}', version => 'seen',
	columns => '{"sensor": "id", "seen": "$offset", "celsius": "value"}');
SELECT target, mode, ordinal FROM spine_sinks ORDER BY ordinal;

-- The statements that make it again.  They do make it again.
SELECT spine_show_pipeline('sensors') \gset
\echo :spine_show_pipeline
SELECT md5(string_agg(s::text, '' ORDER BY ordinal)) AS before FROM spine_sinks s \gset
SELECT spine_drop_pipeline('sensors');
:spine_show_pipeline
SELECT md5(string_agg(s::text, '' ORDER BY ordinal)) = :'before' AS same FROM spine_sinks s;

--
-- Changes: the names are those of the arguments, and null is the default
--
SELECT spine_alter_sink('sensors', 'readings', '{"columns": {"sensor": "id", "celsius": "value", "kafka_offset": "$offset"}}');
SELECT spine_alter_pipeline('sensors', '{"topic": "readings,more-readings", "start": "latest", "enabled": false}');
SELECT spine_show_pipeline('sensors') \gset
\echo :spine_show_pipeline
SELECT spine_alter_pipeline('sensors', '{"name": "thermometers", "start": null, "enabled": null}');
SELECT spine_alter_sink('thermometers', 'readings', '{"columns": null}');
SELECT spine_show_pipeline('thermometers') \gset
\echo :spine_show_pipeline

-- Another table in place of one.
CREATE TABLE readings_2 (LIKE readings INCLUDING ALL);
SELECT spine_alter_sink('thermometers', 'readings', new_target => 'readings_2');
SELECT target, mode, ordinal FROM spine_sinks ORDER BY ordinal;
SELECT spine_alter_sink('thermometers', 'readings_2', new_target => 'readings');

-- All of it is part of the transaction.
BEGIN;
SELECT spine_alter_pipeline('thermometers', '{"topic": "elsewhere"}');
SELECT spine_drop_sink('thermometers', 'sensors');
SELECT spine_create_pipeline('another', 'readings', 'readings_2');
ROLLBACK;
SELECT name, topic FROM spine_pipelines;
SELECT count(*) FROM spine_sinks;

--
-- What is refused, at once and not by a worker later
--
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint	text;
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ': ' || SQLERRM || coalesce(E'\nHINT: ' || nullif(hint, ''), '');
END
$$;
-- names
SELECT attempt($$ SELECT spine_create_pipeline('thermometers', 't') $$);
SELECT attempt($$ SELECT spine_create_pipeline('thermometers', 't', if_not_exists => true) $$);
SELECT attempt($$ SELECT spine_create_pipeline('', 't') $$);
SELECT attempt($$ SELECT spine_create_pipeline(NULL, 't') $$);
SELECT attempt($$ SELECT spine_create_pipeline('x', 'no topic') $$);
SELECT attempt($$ SELECT spine_create_pipeline('x', 't', start => 'yesterday') $$);
SELECT attempt($$ SELECT spine_create_pipeline('x', 't', key => '{id}') $$);
SELECT attempt($$ SELECT spine_alter_pipeline('thermometers', '{"topik": "t"}') $$);
SELECT attempt($$ SELECT spine_alter_pipeline('thermometers', '["topic"]') $$);
SELECT attempt($$ SELECT spine_alter_pipeline('thermometers', '{"name": null}') $$);
SELECT attempt($$ SELECT spine_alter_pipeline('thermometers', NULL) $$);
SELECT attempt($$ SELECT spine_alter_pipeline('thermometers', '{"enabled": "perhaps"}') $$);
SELECT attempt($$ SELECT spine_alter_pipeline('nothing', '{}') $$);
SELECT attempt($$ SELECT spine_drop_pipeline('nothing') $$);
SELECT attempt($$ SELECT spine_drop_pipeline('nothing', if_exists => true) $$);
SELECT attempt($$ SELECT spine_show_pipeline('nothing') $$);
-- sinks
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings') $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'nowhere') $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', NULL) $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings_2', mode => 'merge') $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings_2', version => 'kafka_offset') $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings_2', columns => '[]') $$);
SELECT attempt($$ SELECT spine_alter_sink('thermometers', 'readings', '{"start": "latest"}') $$);
SELECT attempt($$ SELECT spine_alter_sink('thermometers', 'readings', new_target => 'sensors') $$);
SELECT attempt($$ SELECT spine_alter_sink('thermometers', 'readings_2', '{}') $$);
SELECT attempt($$ SELECT spine_drop_sink('thermometers', 'readings_2') $$);
SELECT attempt($$ SELECT spine_drop_sink('thermometers', 'readings_2', if_exists => true) $$);
-- columns, and the keys that PostgreSQL has to know
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings_2', columns => '{"nothing": "x"}') $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings_2', columns => '{"fahrenheit": "x"}') $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings_2', key => '{sensor}') $$);
SELECT attempt($$ SELECT spine_add_sink('thermometers', 'readings_2', mode => 'upsert', key => '{sensor}', version => 'kafka_offset') $$);
SELECT attempt($$ SELECT spine_alter_sink('thermometers', 'sensors', '{"columns": {"sensor": "id", "seen": "$offset"}}') $$);

--
-- Who may do what.  A pipeline applies as its owner, which needs the privileges.
--
SELECT attempt($$ SELECT spine_create_pipeline('x', 't', 'readings', owner => 'regress_spine_clerk') $$);
SELECT attempt($$ SELECT spine_alter_pipeline('thermometers', '{"owner": "regress_spine_clerk"}') $$);
RESET ROLE;
CREATE TABLE theirs (sensor text);
SELECT spine_create_pipeline('x', 't', 'theirs', owner => 'regress_spine_shop');
GRANT INSERT ON theirs TO regress_spine_shop;
SELECT spine_create_pipeline('x', 't', 'theirs', owner => 'regress_spine_shop');
SELECT spine_drop_pipeline('x');

-- Others see that a pipeline is there, and cannot change it ...
GRANT USAGE ON SCHEMA shop TO regress_spine_clerk;
SET ROLE regress_spine_clerk;
SELECT attempt($$ SELECT spine_create_pipeline('x', 't') $$);
SELECT attempt(statement) FROM (VALUES
	($$ SELECT spine_pause('thermometers') $$),
	($$ SELECT spine_resume('thermometers') $$),
	($$ SELECT spine_seek('thermometers', NULL, 'latest') $$),
	($$ SELECT spine_alter_pipeline('thermometers', '{"name": "mine"}') $$),
	($$ SELECT spine_add_sink('thermometers', 'pg_class') $$),
	($$ SELECT spine_alter_sink('thermometers', 'readings', '{"key": null}') $$),
	($$ SELECT spine_drop_sink('thermometers', 'readings') $$),
	($$ SELECT spine_drop_pipeline('thermometers') $$),
	($$ SELECT spine_drop_pipeline('thermometers', true) $$)) s (statement);
SELECT name FROM spine_pipelines;
SELECT count(*) FROM spine_status;
RESET ROLE;

-- ... unless they are members of the owner.
GRANT regress_spine_shop TO regress_spine_clerk;
SET ROLE regress_spine_clerk;
SELECT spine_pause('thermometers');
SELECT pipeline, state FROM spine_status;
SELECT spine_resume('thermometers');
SELECT pipeline, state FROM spine_status;
-- A function with the rights of a member has them too; one with the rights of another has not.
RESET ROLE;
CREATE FUNCTION pause_for_shop() RETURNS void SECURITY DEFINER LANGUAGE sql AS $$ SELECT public.spine_pause('thermometers') $$;
ALTER FUNCTION pause_for_shop() OWNER TO regress_spine_shop;
REVOKE regress_spine_shop FROM regress_spine_clerk;
SET ROLE regress_spine_clerk;
SELECT pause_for_shop();
RESET ROLE;
SELECT name, enabled FROM spine_pipelines;
ALTER FUNCTION pause_for_shop() OWNER TO regress_spine_clerk;
SELECT pause_for_shop();
-- An error leaves nobody with rights that are not his.
SET ROLE regress_spine_clerk;
BEGIN;
SAVEPOINT s;
SELECT spine_pause('thermometers');
ROLLBACK TO s;
SELECT current_user;
UPDATE spine_pipelines SET enabled = true;
ROLLBACK;
BEGIN READ ONLY;
SET ROLE regress_spine_shop;
SELECT spine_resume('thermometers');
ROLLBACK;

--
-- Dead letters are seen by members of the owner, also after the pipeline is gone, and by
-- those who may read all tables.
--
RESET ROLE;
INSERT INTO spine_dead_letters (pipeline, topic, kafka_partition, kafka_offset, sqlstate, reason)
VALUES ('thermometers', 'readings', 0, 7, '22P02', 'too hot'), ('unknown', 'readings', 0, 8, '22P02', 'too cold');
SET ROLE regress_spine_clerk;
SELECT pipeline, reason FROM spine_dead_letters;
DELETE FROM spine_dead_letters;
SET ROLE regress_spine_shop;
SELECT pipeline, reason FROM spine_dead_letters;
SELECT spine_alter_pipeline('thermometers', '{"name": "sensors"}');
SELECT pipeline, reason, owner FROM spine_dead_letters;
SELECT spine_drop_pipeline('sensors');
RESET ROLE;
GRANT EXECUTE ON FUNCTION spine_create_pipeline TO regress_spine_clerk;
SET ROLE regress_spine_clerk;
SELECT spine_create_pipeline('sensors', 'readings');
SELECT count(*) FROM spine_dead_letters;
SET ROLE regress_spine_shop;
SELECT count(*) FROM spine_dead_letters;
RESET ROLE;
GRANT pg_read_all_data TO regress_spine_clerk;
SET ROLE regress_spine_clerk;
SELECT count(*) FROM spine_dead_letters;
RESET ROLE;

DROP EXTENSION spine;
DROP FUNCTION pause_for_shop();
DROP TABLE theirs;
DROP SCHEMA shop CASCADE;
DROP ROLE regress_spine_shop, regress_spine_clerk;
ALTER DATABASE :"DBNAME" RESET spine.enabled;

/*
 * spine 0.1.0: what CREATE EXTENSION makes.
 *
 * Ordered as a user meets it: the two tables that orders arrive in; the
 * functions to try it with; what is going on; the catalog that says which
 * topic goes where; the bookkeeping.
 */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION spine" to load this file. \quit

--
-- 1. Orders: the targets of the default pipeline
--

-- Keys are COLLATE "C": equality is all that is asked of them, it compares
-- fastest, and no locale upgrade can break the index.
CREATE TABLE @extschema@.events (
	tenant			text COLLATE "C" NOT NULL,
	event_id		uuid NOT NULL,
	event_type		text NOT NULL,
	order_id		text COLLATE "C" NOT NULL,
	amount_cents	bigint NOT NULL,
	event_time		timestamptz NOT NULL,
	kafka_partition	integer NOT NULL,
	kafka_offset	bigint NOT NULL,
	applied_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant, event_time, event_id)
);
COMMENT ON TABLE @extschema@.events IS 'every order event, once';
COMMENT ON COLUMN @extschema@.events.kafka_partition IS 'the partition the event came from';
COMMENT ON COLUMN @extschema@.events.kafka_offset IS 'its offset in that partition';
COMMENT ON COLUMN @extschema@.events.applied_at IS 'start of the transaction that applied it';

-- fillfactor leaves room on each page so that updates stay HOT.
CREATE TABLE @extschema@.current_orders (
	tenant			text COLLATE "C" NOT NULL,
	order_id		text COLLATE "C" NOT NULL,
	status			text NOT NULL,
	amount_cents	bigint NOT NULL,
	currency		text NOT NULL DEFAULT 'USD',
	updated_at		timestamptz NOT NULL,
	PRIMARY KEY (tenant, order_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE @extschema@.current_orders IS 'the latest state of each order';
COMMENT ON COLUMN @extschema@.current_orders.status IS 'event_type of the newest event';
COMMENT ON COLUMN @extschema@.current_orders.updated_at IS 'event_time of the newest event';

--
-- 2. Making events, and waiting for them
--

CREATE FUNCTION @extschema@.spine_produce(tenant text, n integer)
RETURNS bigint
AS 'MODULE_PATHNAME', 'spine_produce'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_produce(text, integer) IS
'send n synthetic order events of a tenant to the topic; returns how many the broker acknowledged';
REVOKE ALL ON FUNCTION @extschema@.spine_produce(text, integer) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_make_event(tenant text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'spine_make_event'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_make_event(text) IS
'one synthetic order event, as spine_produce would send it';

CREATE FUNCTION @extschema@.spine_wait(timeout interval DEFAULT '30s')
RETURNS boolean
AS 'MODULE_PATHNAME', 'spine_wait'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_wait(interval) IS
'wait until everything that was on the topics when it was called is applied and visible; false on timeout';
REVOKE ALL ON FUNCTION @extschema@.spine_wait(interval) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_brokers()
RETURNS text
AS 'MODULE_PATHNAME', 'spine_brokers'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_brokers() IS
'the address that clients connect to: spine.brokers, or the embedded broker''s';
REVOKE ALL ON FUNCTION @extschema@.spine_brokers() FROM PUBLIC;

--
-- 3. The catalog: pipelines and their sinks
--

CREATE TABLE @extschema@.spine_pipelines (
	name		name PRIMARY KEY CHECK (name <> ''),
	topic		text CHECK (topic ~ '^[A-Za-z0-9._-]{1,249}$' AND topic NOT IN ('.', '..')),
	owner		regrole NOT NULL DEFAULT quote_ident(current_user)::regrole,
	enabled		boolean NOT NULL DEFAULT true,
	start		text NOT NULL DEFAULT 'earliest' CHECK (start IN ('earliest', 'latest')),
	is_default	boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE @extschema@.spine_pipelines IS 'one topic each, and who applies it';
COMMENT ON COLUMN @extschema@.spine_pipelines.topic IS 'NULL: the setting spine.topic';
COMMENT ON COLUMN @extschema@.spine_pipelines.owner IS 'the role whose rights the pipeline applies with';
COMMENT ON COLUMN @extschema@.spine_pipelines.enabled IS 'false: paused';
COMMENT ON COLUMN @extschema@.spine_pipelines.start IS
'where to begin on a topic never read before: earliest or latest';
COMMENT ON COLUMN @extschema@.spine_pipelines.is_default IS
'made by CREATE EXTENSION; a restored pipeline of the same name takes its place';

CREATE TABLE @extschema@.spine_sinks (
	pipeline	name NOT NULL REFERENCES @extschema@.spine_pipelines ON UPDATE CASCADE ON DELETE CASCADE,
	target		regclass NOT NULL,
	mode		text NOT NULL CHECK (mode IN ('append', 'upsert')),
	key			name[] CHECK (array_position(key, NULL) IS NULL AND cardinality(key) > 0),
	version		name,
	columns		jsonb CHECK (jsonb_typeof(columns) = 'object' AND columns <> '{}'),
	PRIMARY KEY (pipeline, target),
	CHECK (CASE mode WHEN 'upsert' THEN key IS NOT NULL AND version IS NOT NULL
					 WHEN 'append' THEN version IS NULL END)
);
COMMENT ON TABLE @extschema@.spine_sinks IS 'the target tables of each pipeline';
COMMENT ON COLUMN @extschema@.spine_sinks.mode IS 'append: a row per event; upsert: a row per key';
COMMENT ON COLUMN @extschema@.spine_sinks.key IS
'columns of a unique index; append: a row that is there already is left alone';
COMMENT ON COLUMN @extschema@.spine_sinks.version IS
'upsert: the column that decides which of two events for a key is newer';
COMMENT ON COLUMN @extschema@.spine_sinks.columns IS
'column -> JSON key, or $partition, $offset, $timestamp, $key; NULL: every column, from the key of its name';

GRANT SELECT ON @extschema@.spine_pipelines, @extschema@.spine_sinks TO PUBLIC;

-- Fires before each row of spine_pipelines: nobody can make a pipeline run as
-- a role that they are not a member of, and a dump can be restored although
-- CREATE EXTENSION has already made the default pipeline (which nothing has
-- been read for yet).
CREATE FUNCTION @extschema@.spine_check_pipeline()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT pg_catalog.pg_has_role(current_user, NEW.owner::oid, 'MEMBER') THEN
		RAISE EXCEPTION 'must be a member of role % to let pipeline "%" apply as it', NEW.owner, NEW.name
			USING ERRCODE = 'insufficient_privilege';
	END IF;
	-- looked for first: INSERT on the table is no right to delete from it
	IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM @extschema@.spine_pipelines p
									WHERE p.name = NEW.name AND p.is_default) THEN
		DELETE FROM @extschema@.spine_pipelines p
		WHERE p.name = NEW.name AND p.is_default
			AND NOT EXISTS (SELECT FROM @extschema@.spine_offsets o WHERE o.pipeline = p.name);
	END IF;
	RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION @extschema@.spine_check_pipeline() FROM PUBLIC;

CREATE TRIGGER spine_check_pipeline
	BEFORE INSERT OR UPDATE ON @extschema@.spine_pipelines
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_check_pipeline();

-- A sink is written to with the rights of its pipeline's owner, so that it
-- takes the same membership to add one.
CREATE FUNCTION @extschema@.spine_check_sink()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM @extschema@.spine_pipelines p
			   WHERE p.name = NEW.pipeline
				   AND NOT pg_catalog.pg_has_role(current_user, p.owner::oid, 'MEMBER')) THEN
		RAISE EXCEPTION 'must be a member of the role that pipeline "%" applies as', NEW.pipeline
			USING ERRCODE = 'insufficient_privilege';
	END IF;
	RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION @extschema@.spine_check_sink() FROM PUBLIC;

CREATE TRIGGER spine_check_sink
	BEFORE INSERT OR UPDATE ON @extschema@.spine_sinks
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_check_sink();

-- Tells the launcher and the workers, once the change is committed.
CREATE FUNCTION @extschema@.spine_catalog_changed()
RETURNS trigger
AS 'MODULE_PATHNAME', 'spine_catalog_changed'
LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.spine_catalog_changed() FROM PUBLIC;

CREATE TRIGGER spine_catalog_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.spine_pipelines
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_catalog_changed();
CREATE TRIGGER spine_catalog_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.spine_sinks
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_catalog_changed();

CREATE FUNCTION @extschema@.spine_pause(pipeline name)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE @extschema@.spine_pipelines SET enabled = false WHERE name = pipeline;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" does not exist', pipeline
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_pipelines lists the pipelines.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_pause(name) IS 'stop a pipeline after its current batch; its position is kept';
REVOKE ALL ON FUNCTION @extschema@.spine_pause(name) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_resume(pipeline name)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE @extschema@.spine_pipelines SET enabled = true WHERE name = pipeline;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" does not exist', pipeline
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_pipelines lists the pipelines.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_resume(name) IS 'let a paused pipeline go on from where it stopped';
REVOKE ALL ON FUNCTION @extschema@.spine_resume(name) FROM PUBLIC;

--
-- 4. Bookkeeping: positions, and records that could not be applied
--

CREATE TABLE @extschema@.spine_offsets (
	pipeline	name NOT NULL REFERENCES @extschema@.spine_pipelines ON UPDATE CASCADE ON DELETE CASCADE,
	topic		text NOT NULL,
	partition	integer NOT NULL,
	next_offset	bigint NOT NULL,
	cluster_id	text NOT NULL,
	updated_at	timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (pipeline, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.spine_offsets IS
'the position of each partition, written in the transaction that applied what is before it';
COMMENT ON COLUMN @extschema@.spine_offsets.next_offset IS 'the first offset not yet applied';
COMMENT ON COLUMN @extschema@.spine_offsets.cluster_id IS 'the broker cluster that the position belongs to';

CREATE TABLE @extschema@.spine_dead_letters (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	pipeline		name NOT NULL,
	topic			text NOT NULL,
	kafka_partition	integer NOT NULL,
	kafka_offset	bigint NOT NULL,
	key				bytea,
	value			bytea,
	headers			bytea[],
	record_time		timestamptz,
	sqlstate		text NOT NULL,
	reason			text NOT NULL,
	failed_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE @extschema@.spine_dead_letters IS
'records that could not be applied, with their exact bytes and the reason';
COMMENT ON COLUMN @extschema@.spine_dead_letters.headers IS
'the record''s headers as {{name, value}, ...}';

--
-- 5. What is going on
--

CREATE FUNCTION @extschema@.spine_worker_status(
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_worker_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_worker_status() IS 'the workers of this database, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_worker_status() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_partition_status(
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_partition_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_partition_status() IS
'the partitions that workers of this database have read since the server started, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_partition_status() FROM PUBLIC;

CREATE VIEW @extschema@.spine_status AS
SELECT p.name AS pipeline,
	   t.topic,
	   x.partition,
	   w.pid AS worker_pid,
	   CASE WHEN NOT p.enabled THEN 'paused'
			WHEN w.pid IS NULL AND w.state IS DISTINCT FROM 'failed' THEN 'stopped'
			ELSE w.state END AS state,
	   w.state_since,
	   x.next_offset,
	   x.high_watermark,
	   -- greatest() by itself would take an unknown lag for none
	   CASE WHEN x.high_watermark IS NOT NULL
			THEN greatest(x.high_watermark - x.next_offset, 0) END AS lag,
	   x.last_batch_rows,
	   x.last_batch_ms,
	   x.last_commit_at,
	   coalesce(x.events_total, 0) AS events_total,
	   coalesce(x.dead_letters_total, 0) AS dead_letters_total,
	   w.last_error,
	   w.last_error_at
FROM @extschema@.spine_pipelines p
CROSS JOIN LATERAL (SELECT coalesce(p.topic, current_setting('spine.topic')) AS topic) t
LEFT JOIN (
	SELECT pipeline, topic, partition,
		   coalesce(o.next_offset, s.next_offset) AS next_offset,
		   s.high_watermark, s.last_batch_rows, s.last_batch_ms, s.last_commit_at,
		   s.events_total, s.dead_letters_total
	FROM @extschema@.spine_offsets o
	FULL JOIN @extschema@.spine_partition_status() s USING (pipeline, topic, partition)
) x ON x.pipeline = p.name AND x.topic = t.topic
LEFT JOIN @extschema@.spine_worker_status() w
	ON w.pipeline = p.name AND w.worker = coalesce(x.partition, 0) % w.workers
ORDER BY 1, 3;
COMMENT ON VIEW @extschema@.spine_status IS
'a row per pipeline and partition: its worker, position, lag and last error; totals are since the server started';
GRANT SELECT ON @extschema@.spine_status TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_worker_status() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_partition_status() TO pg_monitor;

--
-- 6. The default pipeline: order events
--

INSERT INTO @extschema@.spine_pipelines (name, is_default) VALUES ('orders', true);

INSERT INTO @extschema@.spine_sinks (pipeline, target, mode, key, version, columns) VALUES
	('orders', '@extschema@.events', 'append', '{tenant,event_time,event_id}', NULL,
	 '{"tenant": "tenant", "event_id": "event_id", "event_type": "event_type",
	   "order_id": "order_id", "amount_cents": "amount_cents", "event_time": "event_time",
	   "kafka_partition": "$partition", "kafka_offset": "$offset"}'),
	('orders', '@extschema@.current_orders', 'upsert', '{tenant,order_id}', 'updated_at',
	 '{"tenant": "tenant", "order_id": "order_id", "status": "event_type",
	   "amount_cents": "amount_cents", "currency": "currency", "updated_at": "event_time"}');

--
-- 7. pg_dump keeps the data of all of them
--

SELECT pg_catalog.pg_extension_config_dump('@extschema@.events', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.current_orders', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_sinks', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_offsets', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters_id_seq', '');

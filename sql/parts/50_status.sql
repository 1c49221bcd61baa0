--
-- What is going on
--

-- What a worker says may quote values of records, so it is for those who may act as the
-- pipeline's owner, and for monitoring.
CREATE FUNCTION @extschema@.spine_all_workers(
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_worker_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_all_workers() IS
'the workers of this database, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_all_workers() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_worker_status_as(caller oid,
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT hint text)
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
		SELECT w.*
		FROM @extschema@.spine_all_workers() w
		WHERE pg_has_role(caller, 'pg_monitor', 'USAGE')
			OR w.pipeline IN (SELECT p.name
							   FROM @extschema@.spine_pipelines p
							   WHERE pg_has_role(caller, p.owner::oid, 'USAGE'));
END
$$;
COMMENT ON FUNCTION @extschema@.spine_worker_status_as(oid) IS 'part of spine_worker_status';
REVOKE ALL ON FUNCTION @extschema@.spine_worker_status_as(oid) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_worker_status(
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_worker_status() IS
'the workers of this database: those of pipelines that the caller may watch';
GRANT EXECUTE ON FUNCTION @extschema@.spine_worker_status() TO PUBLIC;

CREATE FUNCTION @extschema@.spine_all_partitions(
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_partition_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_all_partitions() IS
'the partitions that workers of this database have read since the server started, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_all_partitions() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_partition_status_as(caller oid,
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
		SELECT s.*
		FROM @extschema@.spine_all_partitions() s
		WHERE pg_has_role(caller, 'pg_monitor', 'USAGE')
			OR s.pipeline IN (SELECT p.name
							   FROM @extschema@.spine_pipelines p
							   WHERE pg_has_role(caller, p.owner::oid, 'USAGE'));
END
$$;
COMMENT ON FUNCTION @extschema@.spine_partition_status_as(oid) IS 'part of spine_partition_status';
REVOKE ALL ON FUNCTION @extschema@.spine_partition_status_as(oid) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_partition_status(
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_partition_status() IS
'the partitions that workers of this database have read since the server started: those of pipelines that the caller may watch';
GRANT EXECUTE ON FUNCTION @extschema@.spine_partition_status() TO PUBLIC;

CREATE FUNCTION @extschema@.spine_missing_topics(OUT pipeline name, OUT topic text, OUT since timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_missing_topics'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_missing_topics() IS
'the topics that pipelines of this database list and that do not exist, from shared memory';
GRANT EXECUTE ON FUNCTION @extschema@.spine_missing_topics() TO PUBLIC;

CREATE VIEW @extschema@.spine_status WITH (security_barrier) AS
SELECT p.name AS pipeline,
	   coalesce(x.topic, t.topics) AS topic,
	   x.partition,
	   w.pid AS worker_pid,
	   CASE WHEN NOT p.enabled THEN 'paused'
			WHEN w.pid IS NULL AND w.state IS DISTINCT FROM 'failed' THEN 'stopped'
			WHEN m.is_missing THEN 'waiting'
			ELSE w.state END AS state,
	   CASE WHEN m.is_missing THEN x.missing_since ELSE w.state_since END AS state_since,
	   x.next_offset,
	   x.high_watermark,
	   -- greatest() ignores NULL: an unknown lag would become 0
	   CASE WHEN x.high_watermark IS NOT NULL
			THEN greatest(x.high_watermark - x.next_offset, 0) END AS lag,
	   x.last_batch_rows,
	   x.last_batch_ms,
	   x.last_commit_at,
	   coalesce(x.events_total, 0) AS events_total,
	   coalesce(x.dead_letters_total, 0) AS dead_letters_total,
	   CASE WHEN m.is_missing THEN format('topic "%s" does not exist', x.topic)
			ELSE w.last_error END AS last_error,
	   CASE WHEN m.is_missing THEN x.missing_since ELSE w.last_error_at END AS last_error_at,
	   CASE WHEN m.is_missing THEN 'Create it, or change "topic" in spine_pipelines. The other topics are read.'
			ELSE w.hint END AS hint
FROM @extschema@.spine_pipelines p
CROSS JOIN LATERAL (SELECT @extschema@.spine_pipeline_topic(p.topic) AS topics) t
LEFT JOIN (
	SELECT pipeline, topic, partition,
		   coalesce(o.next_offset, s.next_offset) AS next_offset,
		   s.high_watermark, s.last_batch_rows, s.last_batch_ms, s.last_commit_at,
		   s.events_total, s.dead_letters_total, NULL::timestamptz AS missing_since
	FROM @extschema@.spine_offsets o
	FULL JOIN @extschema@.spine_partition_status() s USING (pipeline, topic, partition)
	UNION ALL
	SELECT pipeline, topic, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, since
	FROM @extschema@.spine_missing_topics()
) x ON x.pipeline = p.name AND @extschema@.spine_topic_matches(x.topic, t.topics)
LEFT JOIN @extschema@.spine_worker_status() w
	ON w.pipeline = p.name
	AND w.worker = @extschema@.spine_partition_worker(p.name, t.topics, coalesce(x.topic, ''), coalesce(x.partition, 0), w.workers)
CROSS JOIN LATERAL (SELECT x.missing_since IS NOT NULL AND w.state = 'running' AS is_missing) m
WHERE pg_has_role('pg_monitor', 'USAGE') OR pg_has_role(p.owner::oid, 'USAGE')
ORDER BY 1, 2, 3;
COMMENT ON VIEW @extschema@.spine_status IS
'a row per pipeline, topic and partition: its worker, position, lag and last error; totals are since the server started';
COMMENT ON COLUMN @extschema@.spine_status.last_error IS
'the message and detail of the last error; kept after recovery';
COMMENT ON COLUMN @extschema@.spine_status.hint IS 'the hint of the last error, or NULL';
GRANT SELECT ON @extschema@.spine_status TO PUBLIC;

CREATE FUNCTION @extschema@.spine_brokers()
RETURNS text
AS 'MODULE_PATHNAME', 'spine_brokers'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_brokers() IS
'the address that clients connect to: spine.brokers, or the embedded broker''s';
REVOKE ALL ON FUNCTION @extschema@.spine_brokers() FROM PUBLIC;

--
-- Readiness and metrics, as spine-http serves them
--

-- spine_readiness and spine_metrics_text run as the extension's owner: they tell how
-- spine is doing, and nothing that is in the records.
CREATE FUNCTION @extschema@.spine_readiness(OUT ready boolean, OUT report jsonb)
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(bool_and(p.state <> 'failed'), true),
		   jsonb_build_object(
			   'status', CASE WHEN bool_or(p.state = 'failed') THEN 'not ready' ELSE 'ready' END,
			   'pipelines', coalesce(jsonb_agg(p ORDER BY p.pipeline), '[]'))
	FROM (
		SELECT s.pipeline,
			   -- the worst state of its workers
			   (array_agg(s.state ORDER BY array_position(
				   ARRAY['failed', 'waiting', 'stopped', 'starting', 'paused', 'running'], s.state)))[1] AS state,
			   CASE WHEN count(s.partition) = count(s.lag) THEN sum(s.lag) END AS lag,
			   sum(s.events_total) AS events_total,
			   sum(s.dead_letters_total) AS dead_letters_total
		FROM @extschema@.spine_status s
		GROUP BY 1
	) p
$$;
COMMENT ON FUNCTION @extschema@.spine_readiness() IS
'false when a pipeline has failed; and the state of each pipeline';
REVOKE ALL ON FUNCTION @extschema@.spine_readiness() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_pipeline_counters(
	OUT pipeline name, OUT records_consumed bigint, OUT upserts bigint,
	OUT batches bigint, OUT batch_seconds double precision,
	OUT bucket_bounds double precision[], OUT bucket_counts bigint[])
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_pipeline_counters'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_pipeline_counters() IS
'what the workers of this database''s pipelines have done since the server started, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_pipeline_counters() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_pipeline_skipped(
	OUT pipeline name, OUT filtered bigint, OUT unchanged bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_pipeline_skipped'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_pipeline_skipped() IS
'what each pipeline has not written since the server started, from shared memory: events that a filter left out, and rows that would not have changed';
REVOKE ALL ON FUNCTION @extschema@.spine_pipeline_skipped() FROM PUBLIC;

-- Names and units as Prometheus has them: https://prometheus.io/docs/practices/naming/
CREATE VIEW @extschema@.spine_metrics AS
WITH partitions AS (
	SELECT s.*, jsonb_build_object('pipeline', s.pipeline, 'topic', s.topic,
								   'partition', s.partition::text) AS labels
	FROM @extschema@.spine_status s
	WHERE s.partition IS NOT NULL
), pipelines AS (
	SELECT c.*, jsonb_build_object('pipeline', c.pipeline) AS labels
	FROM @extschema@.spine_pipeline_counters() c
), workers AS (
	SELECT w.*, jsonb_build_object('pipeline', w.pipeline, 'worker', w.worker::text) AS labels
	FROM @extschema@.spine_worker_status() w
)
SELECT m.metric, m.type, m.help, m.metric || m.suffix AS sample, m.labels, m.value
FROM (
	SELECT metric, type, help, suffix, labels, value
	FROM @extschema@.spine_produced_metrics
	UNION ALL
	SELECT 'spine_records_consumed_total', 'counter',
		   'Records read from the broker, including those read again.', '', labels, records_consumed
	FROM pipelines
	UNION ALL
	SELECT 'spine_upserts_total', 'counter',
		   'Rows inserted or updated by sinks in mode upsert.', '', labels, upserts
	FROM pipelines
	UNION ALL
	SELECT 'spine_filtered_total', 'counter', 'Events that a sink''s filter has left out, over all sinks.', '',
		   jsonb_build_object('pipeline', s.pipeline), s.filtered
	FROM @extschema@.spine_pipeline_skipped() s
	UNION ALL
	SELECT 'spine_unchanged_total', 'counter',
		   'Rows that sinks in mode upsert did not write, because the row in the table is the same or newer.', '',
		   jsonb_build_object('pipeline', s.pipeline), s.unchanged
	FROM @extschema@.spine_pipeline_skipped() s
	UNION ALL
	SELECT 'spine_batches_total', 'counter', 'Batches committed.', '', labels, batches
	FROM pipelines
	UNION ALL
	SELECT 'spine_batch_duration_seconds', 'histogram', 'Time from the start of a batch to its commit.',
		   '_bucket', labels || jsonb_build_object('le', CASE WHEN b.bound = 'infinity' THEN '+Inf' ELSE b.bound::text END),
		   b.count
	FROM pipelines, unnest(bucket_bounds, bucket_counts) b (bound, count)
	UNION ALL
	SELECT 'spine_batch_duration_seconds', 'histogram', 'Time from the start of a batch to its commit.',
		   s.suffix, labels, s.value
	FROM pipelines, LATERAL (VALUES ('_sum', batch_seconds::numeric), ('_count', batches)) s (suffix, value)
	UNION ALL
	SELECT 'spine_events_applied_total', 'counter', 'Records applied to the tables.', '', labels, events_total
	FROM partitions
	UNION ALL
	SELECT 'spine_dead_letters_total', 'counter', 'Records kept as dead letters.', '', labels, dead_letters_total
	FROM partitions
	UNION ALL
	SELECT 'spine_next_offset', 'gauge', 'First offset that is not applied yet.', '', labels, next_offset
	FROM partitions
	UNION ALL
	SELECT 'spine_high_watermark_offset', 'gauge', 'End of the partition, as last heard from the broker.',
		   '', labels, high_watermark
	FROM partitions
	UNION ALL
	SELECT 'spine_lag_records', 'gauge', 'Records of the partition that are not applied yet.', '', labels, lag
	FROM partitions
	UNION ALL
	SELECT 'spine_last_commit_timestamp_seconds', 'gauge', 'When a batch of the partition was last committed.',
		   '', labels, round(extract(epoch FROM last_commit_at), 3)
	FROM partitions
	UNION ALL
	SELECT 'spine_worker_up', 'gauge', 'Whether the worker is running.', '', labels, (pid IS NOT NULL)::integer
	FROM workers
	UNION ALL
	SELECT 'spine_worker_failed', 'gauge', 'Whether the worker waits for a person: see spine_status.',
		   '', labels, (state = 'failed')::integer
	FROM workers
	UNION ALL
	SELECT 'spine_pipeline_enabled', 'gauge', 'Whether the pipeline is not paused.', '',
		   jsonb_build_object('pipeline', p.name), p.enabled::integer
	FROM @extschema@.spine_pipelines p
) m
WHERE m.value IS NOT NULL;
COMMENT ON VIEW @extschema@.spine_metrics IS
'counters since the server started, and gauges; what /metrics of spine-http shows';
GRANT SELECT ON @extschema@.spine_metrics TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_pipeline_counters() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_pipeline_skipped() TO pg_monitor;

-- https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
CREATE FUNCTION @extschema@.spine_metrics_text()
RETURNS text
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off	-- compiling would take longer than the query
AS $$
	SELECT string_agg(f.lines, '' ORDER BY f.metric)
	FROM (
		SELECT m.metric,
			   '# HELP ' || m.metric || ' ' || m.help || E'\n' ||
			   '# TYPE ' || m.metric || ' ' || m.type || E'\n' ||
			   string_agg(m.sample || coalesce('{' || l.text || '}', '') || ' ' || m.value || E'\n', ''
						  ORDER BY l.series, m.sample COLLATE "C", (m.labels ->> 'le')::float8) AS lines
		FROM @extschema@.spine_metrics m
		CROSS JOIN LATERAL (
			SELECT string_agg(pair, ',' ORDER BY key = 'le', key) AS text,
				   string_agg(pair, ',' ORDER BY key) FILTER (WHERE key <> 'le') AS series
			FROM (SELECT key, key || '="' || replace(replace(replace(value,
							'\', '\\'), '"', '\"'), E'\n', '\n') || '"' AS pair
				  FROM jsonb_each_text(m.labels)) p
		) l
		GROUP BY m.metric, m.type, m.help
	) f
$$;
COMMENT ON FUNCTION @extschema@.spine_metrics_text() IS 'spine_metrics in the text format of Prometheus';
REVOKE ALL ON FUNCTION @extschema@.spine_metrics_text() FROM PUBLIC;

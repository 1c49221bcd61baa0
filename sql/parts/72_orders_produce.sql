--
-- Making order events
--

CREATE FUNCTION @extschema@.spine_produce(tenant text, n integer)
RETURNS bigint
AS 'MODULE_PATHNAME', 'spine_produce'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_produce(text, integer) IS
'send n synthetic order events of a tenant to the topic; returns how many the broker acknowledged';
REVOKE ALL ON FUNCTION @extschema@.spine_produce(text, integer) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_produce(tenant text, n integer, server name)
RETURNS bigint
AS 'MODULE_PATHNAME', 'spine_produce'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_produce(text, integer, name) IS
'the same, to the topic of another server';
REVOKE ALL ON FUNCTION @extschema@.spine_produce(text, integer, name) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_make_event(tenant text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'spine_make_event'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_make_event(text) IS
'one synthetic order event, as spine_produce would send it';

CREATE FUNCTION @extschema@.spine_produced(OUT tenant text, OUT events bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_produced'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_produced() IS
'synthetic events sent since the server started, by tenant; NULL: all tenants beyond the first 64';
REVOKE ALL ON FUNCTION @extschema@.spine_produced() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.spine_produced() TO pg_monitor;

CREATE VIEW @extschema@.spine_produced_metrics AS
SELECT 'spine_events_produced_total' AS metric, 'counter' AS type,
	   'Synthetic events that the broker acknowledged; without a tenant: all beyond the first 64.' AS help,
	   '' AS suffix,
	   CASE WHEN p.tenant IS NULL THEN '{}' ELSE jsonb_build_object('tenant', p.tenant) END AS labels,
	   sum(p.events) AS value
FROM @extschema@.spine_produced() p
GROUP BY p.tenant;
COMMENT ON VIEW @extschema@.spine_produced_metrics IS 'spine_produced as metrics; part of spine_metrics';

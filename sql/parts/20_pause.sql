--
-- Pause and resume
--

CREATE FUNCTION @extschema@.spine_pause(pipeline name)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT @extschema@.spine_alter_pipeline(pipeline, jsonb '{"enabled": false}')
$$;
COMMENT ON FUNCTION @extschema@.spine_pause(name) IS 'stop a pipeline after its current batch; its position is kept';
GRANT EXECUTE ON FUNCTION @extschema@.spine_pause(name) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_resume(pipeline name)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT @extschema@.spine_alter_pipeline(pipeline, jsonb '{"enabled": true}')
$$;
COMMENT ON FUNCTION @extschema@.spine_resume(name) IS 'let a paused pipeline go on from where it stopped';
GRANT EXECUTE ON FUNCTION @extschema@.spine_resume(name) TO PUBLIC;
